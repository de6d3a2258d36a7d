"""What many runs say together: the summaries, the answer and the table."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from migpool.lab.comparison import plan
from migpool.lab.report.page.document import document
from migpool.lab.report.summary import answer, summarize
from migpool.lab.report.table import console_for, render, run_line
from migpool.migration.report import DeviceReport
from tests.support.lab_reports import lab_result_of, run


def test_a_summary_has_the_median_and_the_range_of_the_completed_runs() -> None:
    runs = [run("pool", number, downtime) for number, downtime in enumerate([30.0, 10.0, 20.0, None], start=1)]
    (summary,) = summarize(runs)
    assert (summary.downtime, summary.least, summary.most) == (20.0, 10.0, 30.0)
    assert (summary.runs, summary.verified) == (4, 3)
    assert [kind for kind, _ in summary.kinds] == ["device read", "send"]
    assert [part for _, part in summary.kinds] == pytest.approx([15.0, 5.0])


def test_what_was_not_compared_is_not_called_verified() -> None:
    dark = [DeviceReport("card", "kernel", iterable=True, bytes=9), DeviceReport("nothing", "", iterable=False)]
    runs = [run("pool", number, 9.0, verified=None, devices=dark) for number in (1, 2)]
    (summary,) = summarize(runs)
    assert (summary.verified, summary.uncompared) == (0, 2)
    assert run_line(runs[0]) == "pool, run 1: completed, not compared, downtime 9.00 ms (no fingerprint: card)"
    screen = io.StringIO()
    Console(file=screen, width=80).print(render(lab_result_of(*runs), 80))
    assert "not" in screen.getvalue()
    assert "compared" in screen.getvalue()
    assert "Not compared card: no fingerprint" in screen.getvalue()
    assert "0/2 NO" not in screen.getvalue()
    assert json.loads(lab_result_of(*runs).to_json())["runs"][0]["verified"] is None
    page = document([lab_result_of(*runs)], "page")
    assert "0 of 2, others not compared" in page
    # One that failed is another matter.
    (summary,) = summarize([*runs, run("pool", 3, None, verified=False)])
    assert (summary.runs, summary.verified, summary.uncompared) == (3, 0, 2)
    assert "NOT all" in document([lab_result_of(*runs, run("pool", 3, None, verified=False))], "page")


def test_the_fastest_model_comes_first_and_one_that_never_completed_last() -> None:
    summaries = summarize([run("slow", 1, 30.0), run("never", 1, None), run("fast", 1, 10.0)])
    assert [one.model for one in summaries] == ["fast", "slow", "never"]


def test_the_answer_says_by_how_much_where_the_runs_allow_it() -> None:
    runs = [run(model, n, base + n) for model, base in (("a", 100), ("b", 200), ("c", 400)) for n in (1, 2, 3)]
    assert answer(summarize(runs)) == (
        "a has the shortest downtime: 102 ms, 50 % shorter than b (202 ms); "
        "and 75 % shorter than c (402 ms), the slowest. Medians of 3 runs each."
    )


def test_the_answer_is_level_where_the_ranges_overlap() -> None:
    runs = [run(model, n, base + 10 * n) for model, base in (("a", 100), ("b", 110), ("c", 400)) for n in (1, 2, 3)]
    assert answer(summarize(runs)) == (
        "Level within the spread of the runs: a and b (120 ms to 130 ms); "
        "each at least 69 % shorter than c (420 ms), the slowest. Medians of 3 runs each."
    )


def test_the_answer_does_not_hide_that_there_was_one_run_of_each() -> None:
    assert answer(summarize([run("a", 1, 100.0), run("b", 1, 200.0), run("c", 1, 100.0)])) == (
        "a had the shortest downtime: 100 ms; c 100 ms, b 200 ms. "
        "One run of each: the spread is not known, use --repeats."
    )
    assert answer(summarize([run("a", 1, 100.0)])) == "a: 100 ms downtime."
    assert answer(summarize([run("a", 1, None)])) == ""


def test_each_repetition_makes_every_model_once_in_an_order_of_its_own() -> None:
    models = ["a", "b", "c", "d", "e"]
    planned = plan(models, 6, 100)
    orders = [[one.model for one in planned if one.repeat == repeat] for repeat in range(1, 7)]
    assert all(sorted(order) == models for order in orders)
    assert len({tuple(order) for order in orders}) > 3
    assert planned == plan(models, 6, 100)
    assert {(one.repeat, one.seed) for one in planned} == {(repeat, 100 + repeat) for repeat in range(1, 7)}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "padded"), [(Terminal(), True), (io.StringIO(), False)], ids=["terminal", "file"])
@pytest.mark.parametrize("columns", ["", "70", "140"])
def test_in_a_file_no_line_of_a_table_ends_in_blanks(
    stream: io.StringIO, padded: bool, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    console = console_for(stream)
    console.print(render(lab_result_of(run("pool", 1, 12.0), run("inline", 1, 12.0)), console.width))
    lines = stream.getvalue().splitlines()
    assert any(line.endswith(" ") for line in lines) is padded
    assert any("pool" in line and "12.0 ms" in line for line in lines)


def shown(width: int) -> list[str]:
    runs = [run(model, n, 1234.5 + n) for model in ("per-device+receiver", "pool:16+elastic:128") for n in (1, 2)]
    runs += [run("blocking-aware", 1, None, error="source: gpu, chunk 3: it broke", verified=False)]
    stream = io.StringIO()
    Console(file=stream, width=width).print(render(lab_result_of(*runs), width))
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_table_fits_and_cuts_nothing(width: int) -> None:
    lines = shown(width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "…" not in text
    for word in (
        "+receiver",
        "1236 ms",
        "1236-1236",
        "device read 75%",
        "3/8 MiB",
        "RSS 50.0 MiB",
        "2/2 yes",
        "0/1 NO",
    ):
        assert word in text


def test_a_remark_stands_once_below_the_table_however_many_runs_made_it() -> None:
    remark = "at the source, 1 of 2 devices not polled, since they have no descriptor to poll: gpu"
    runs = [run("poll", number, 10.0, remarks=[remark]) for number in (1, 2)]
    stream = io.StringIO()
    Console(file=stream, width=200).print(render(lab_result_of(*runs), 200))
    assert [line.strip() for line in stream.getvalue().splitlines() if "polled" in line] == [
        f"Remark       poll, {remark}"
    ]


def test_what_failed_is_told_below_the_table() -> None:
    assert any("blocking-aware, run 1: failed: source: gpu, chunk 3: it broke" in line for line in shown(200))


def test_a_stream_that_is_no_terminal_has_a_width_of_its_own_or_that_of_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console_for(io.StringIO()).width == 100
    monkeypatch.setenv("COLUMNS", "40")
    assert console_for(io.StringIO()).width == 40


@pytest.mark.parametrize("width", [40, 47, 48, 59, 60, 79])
def test_a_narrow_table_leaves_columns_out_and_cuts_none(width: int) -> None:
    lines = shown(width)
    table = lines[: next(at for at, line in enumerate(lines) if line.startswith("Host"))]
    assert not any("…" in line for line in table)
    assert any("Downtime" in line for line in table)
    assert any("yes" in line for line in table)


def test_runs_that_failed_alike_are_told_once() -> None:
    lines = shown(200)
    assert sum("gpu, chunk 3: it broke" in line for line in lines) == 1
