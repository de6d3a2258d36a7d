"""The values and the text of the page, and the time line of a terminal."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from pydantic import JsonValue
from rich.console import Console

from migpool.lab.analysis.kinds import BY_NAME
from migpool.lab.analysis.why import analyse, representatives
from migpool.lab.report.change import changes, differences
from migpool.lab.report.page.contents import CRITICAL, contents, lanes_of, thinned
from migpool.lab.report.page.document import document, joined
from migpool.lab.report.summary import headline
from migpool.lab.report.table import COLUMNS, device_table
from migpool.lab.report.time_line import switchover
from migpool.lab.run.form import json_text
from migpool.lab.run.result import LabResult, RunResult
from tests.support.attribution.made_downtimes import Rules, alike
from tests.support.attribution.made_memory import Pages, made
from tests.support.lab_reports import lab_result_of, report, run

MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def looked_into(model: str = "pool", repeat: int = 1, downtime: float = 20.0) -> RunResult:
    """A run with an analysis of the made-up reports."""
    source, destination = report("source"), report("destination")
    devices = [
        {"name": one.name, "note": one.note, "iterable": one.iterable, "bytes": one.bytes, "verified": one.verified}
        for one in source.devices
    ]
    made = run(model, repeat, downtime, analysis=analyse(source, destination, 1 << 20))
    return RunResult.model_validate({**made.model_dump(), "devices": devices})


def test_the_median_run_of_each_model_stands_for_it() -> None:
    runs = [run("a", 1, 30.0), run("b", 1, 5.0), run("a", 2, 10.0), run("a", 3, 20.0), run("b", 2, 6.0)]
    assert [(runs[at].model, runs[at].repeat) for at in representatives([*runs, run("c", 1, None)])] == [
        ("b", 1),
        ("a", 3),
    ]


def test_the_first_sentence_says_which_how_much_and_why() -> None:
    said = headline(lab_result_of(looked_into("fast"), run("slow", 1, 50.0)))
    assert said.startswith("fast is the fastest, with 20.0 ms of downtime. What limits it: ")
    # Of two runs neither has the median; one that never completed is no model's first.
    two = headline(lab_result_of(run("never", 1, None), looked_into("fast"), run("fast", 2, 40.0)))
    assert two.startswith("fast: 30.0 ms of downtime. What limits it, in the run with 20.0 ms: ")
    level = [run("a", 1, 10.0), run("a", 2, 30.0), run("b", 1, 21.0)]
    assert headline(lab_result_of(*level)) == "a is among the fastest, with 20.0 ms of downtime."
    assert headline(lab_result_of(run("a", 1, None))) == ""


def test_lanes_are_threads_or_devices_and_the_path_runs_through_them() -> None:
    by_device = lanes_of(looked_into(), "device")
    assert by_device.names[0] == CRITICAL
    assert "source: gpu" in by_device.names
    by_thread = lanes_of(looked_into(), "thread")
    assert "source: source-worker-0" in by_thread.names
    for lanes in (by_device, by_thread):
        analysis = looked_into().analysis
        assert analysis is not None
        assert len(lanes.path) == len(analysis.path)
        assert max(lanes.path) < len(lanes.names)
        assert all(0 <= span.begin < span.end <= 20.0 for span in lanes.spans)
    read = next(span for span in by_device.spans if span.name == "device read")
    assert (by_device.names[read.lane], read.begin, read.end) == ("source: gpu", 2.0, 10.0)


def test_the_memory_has_a_lane_of_its_own_at_each_side() -> None:
    source, destination = made(Rules(alike(2, chunks=4)), Pages())
    downtime = (destination.running - source.stopped) / 1e6
    devices = [
        {"name": one.name, "note": "", "iterable": one.iterable, "bytes": 0, "verified": None} for one in source.devices
    ]
    whole = run("pool", 1, downtime, analysis=analyse(source, destination, 1 << 20))
    whole = RunResult.model_validate({**whole.model_dump(), "devices": devices})
    lanes = lanes_of(whole, "device")
    assert {"source: memory", "destination: memory"} <= set(lanes.names)
    kinds = {lane: {span.name for span in lanes.spans if lanes.names[span.lane] == lane} for lane in lanes.names}
    assert {"scan", "send", "sync"} <= kinds["source: memory"]
    # A channel that waits behind its SYNC is left out: it would cover what was received.
    assert "receive" in kinds["destination: memory"]
    waits = [span for span in lanes.spans if span.name == "sync" and lanes.names[span.lane] == "destination: memory"]
    assert {span.thread for span in waits} <= {"main"}
    assert whole.analysis is not None
    at = [lanes.names[lane] for lane, link in zip(lanes.path, whole.analysis.path, strict=True) if link.device == "ram"]
    assert at
    assert set(at) <= {"source: memory", "destination: memory"}


def test_results_of_one_scenario_and_host_are_joined_and_others_are_not() -> None:
    one, two = lab_result_of(run("a", 1, 10.0)), lab_result_of(run("b", 1, 20.0))
    other = two.model_copy(update={"scenario": "y"})
    assert [[run.model for run in part.runs] for part in joined([one, other, two])] == [["a", "b"], ["b"]]


def test_what_a_file_says_is_never_markup() -> None:
    bad = looked_into(MARKUP).model_copy(update={"error": MARKUP})
    result = lab_result_of(bad).model_copy(update={"scenario": MARKUP})
    page = document([result], MARKUP)
    head, _, rest = page.partition('<script type="application/json"')
    assert "<img" not in head
    assert "<script" not in head
    values, _, _ = rest.partition("</script>")
    form = json.loads(values.partition(">")[2])
    assert form["parts"][0]["models"][0]["name"] == MARKUP


def test_the_page_forbids_itself_every_request() -> None:
    page = document([lab_result_of(looked_into())], "x")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert "default-src 'none'" in policy
    assert "http" not in policy
    own = page.replace(re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[0], "")
    assert not re.findall(r"https?://", own)


def test_the_values_of_the_page_are_plain() -> None:
    form = contents([lab_result_of(looked_into(), run("slow", 1, 50.0), run("never", 1, None))])
    (part,) = json.loads(json.dumps(form, allow_nan=False))["parts"]
    assert [model["name"] for model in part["models"]] == ["pool", "slow"]
    assert part["models"][1]["run"] is None
    devices = part["models"][0]["run"]["devices"]
    assert set(devices["head"]) <= set(COLUMNS)
    assert devices["rows"][0] == [
        ["gpu", ""],
        ["emulated", ""],
        ["2.0 MiB", "number"],
        ["8.00 ms", "number"],
        ["2.00 ms", "number"],
        ["yes", ""],
    ]


def test_a_path_of_very_many_links_is_drawn_without_those_that_cannot_be_seen() -> None:
    few = [(0.0, 1.0), (1.0, 1.0001), (1.0001, 9.0)]
    assert thinned(few, 9.0) == [(0, 1.0), (1, 1.0001), (2, 9.0)]
    many = [(0.0, 5.0), *((5 + n / 1e4, 5 + (n + 1) / 1e4) for n in range(5000)), (5.5, 9.0)]
    kept = thinned(many, 9.0)
    assert kept == [(0, pytest.approx(5.5)), (5001, 9.0)]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_time_line_fits_and_every_mark_is_explained(width: int) -> None:
    drawn = switchover(lab_result_of(looked_into()), width)
    assert drawn is not None
    stream = io.StringIO()
    Console(file=stream, width=width).print(drawn)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    path = next(line for line in lines if line.startswith(CRITICAL)).removeprefix(CRITICAL)
    whole = " ".join(lines)
    for mark in set(path) - {" "}:
        assert any(f"{mark} {kind.name}" in whole for kind in BY_NAME.values() if kind.mark == mark)
    # The device stopped for two of the twenty milliseconds, and was read for eight.
    columns = len(path.strip())
    assert path.count("X") == pytest.approx(0.1 * columns, abs=2)
    lane = next(line for line in lines if line.startswith("src gpu"))
    assert lane.count("R") == pytest.approx(0.4 * columns, abs=2)


def test_there_is_no_time_line_without_a_trace() -> None:
    assert switchover(lab_result_of(run("a", 1, 10.0)), 80) is None


def test_json_keeps_plain_rows_on_one_line_and_says_the_same() -> None:
    value: JsonValue = {
        "a": [[1, "x", None], [2.5, "]\n[", True]],
        "b": {"c": 1},
        "d": [],
        "e": {"f": [{}, {"g": [1]}]},
    }
    text = json_text(value)
    assert json.loads(text) == value
    assert '\n    [1, "x", null],\n' in text


def test_a_result_with_an_analysis_is_read_back_as_it_was() -> None:
    result = lab_result_of(looked_into())
    assert LabResult.model_validate_json(result.to_json()) == result


def test_two_results_side_by_side_say_what_became_of_each_model_and_what_else_differs() -> None:
    others = (run("gone", 1, 5.0), run("level", 1, 20.0))
    before = lab_result_of(*(run("pool", at, 39.0 + at) for at in (1, 2, 3)), *others)
    after = lab_result_of(*(run("pool", at, 19.0 + at) for at in (1, 2, 3)), run("level", 1, 20.0))
    assert list(map(str, changes(before, after))) == [
        "level: 20.0 ms instead of 20.0 ms, within the spread of the runs.",
        "pool: 21.0 ms instead of 41.0 ms, 49 % shorter.",
    ]
    (once,) = changes(lab_result_of(run("a", 1, 1.0)), lab_result_of(run("a", 1, 2.0)))
    assert str(once) == "a: 2.00 ms instead of 1.00 ms. With one run the spread is not known."
    settings = {**after.settings, "channels": {"count": 9}}
    assert list(differences(before, after)) == []
    (said,) = differences(
        after.model_copy(update={"settings": {**settings, "channels": {"count": 4}}}),
        after.model_copy(update={"settings": settings}),
    )
    assert said == "channels.count was 4, and is 9"
    page = document([after], MARKUP, before)
    assert "Before and after" in page
    assert "pool: 21.0 ms instead of 41.0 ms, 49 % shorter." in page
    assert page.count('<section class="part"') == 3


def test_two_results_without_a_model_in_common_are_told_so() -> None:
    page = document([lab_result_of(run("a", 1, 1.0))], "x", lab_result_of(run("b", 1, 1.0)))
    assert "No model has completed runs in both results." in page


def test_pages_that_share_the_library_have_it_beside_them_and_ask_nobody_else() -> None:
    shared = document([lab_result_of(looked_into())], "x", library="plotly.min.js")
    assert '<script src="plotly.min.js"></script>' in shared
    assert "script-src 'unsafe-inline' 'self' file:;" in shared
    assert len(shared) < 300_000
    alone = document([lab_result_of(looked_into())], "x")
    assert "<script src" not in alone
    assert "script-src 'unsafe-inline';" in alone


@pytest.mark.parametrize("width", [80, 90, 100, 120])
def test_with_every_column_no_word_is_broken(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["ram", "emulated VFIO", "16.0 MiB", "66.7 ms", "189 ms", "235 ms", "dma 71.9 ms", "not compared"]
    rows = [[(one, "number" if "." in one else "") for one in said]]
    monkeypatch.setattr("migpool.lab.report.table.device_rows", lambda _: (list(COLUMNS), rows))
    stream = io.StringIO()
    Console(file=stream, width=width).print(device_table(looked_into(), width))
    assert set(" ".join([*COLUMNS, *said]).split()) <= set(stream.getvalue().split())


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_no_device_s_name_is_cut_at_any_width(width: int) -> None:
    name = "0000:04:00.0/vfio"
    shown = looked_into()
    shown = shown.model_copy(update={"devices": [replace(device, name=name) for device in shown.devices]})
    stream = io.StringIO()
    Console(file=stream, width=width).print(device_table(shown, width))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "\u2026" not in stream.getvalue()
    first = re.sub(r"\s", "", "".join(line[: len(line) - len(line.lstrip()) + 18].split("  ")[0] for line in lines[2:]))
    assert name in first
