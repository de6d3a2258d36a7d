"""``migpool explain``: two trace logs in, what limits the downtime out, in the forms that ``compare`` has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migpool.lab.run.result import LabResult
from tests.support.commandline import here
from tests.support.qemu_logs import real

SOURCE, DESTINATION = map(str, real("e1000e-16"))


def test_the_first_lines_say_how_long_and_what_limits_it() -> None:
    ended = here("explain", SOURCE, DESTINATION)
    assert (ended.code, ended.err) == (0, "")
    said = " ".join(ended.out.split())
    assert said.startswith(
        "QEMU: 39.0 ms of downtime. What limits it: the 16 e1000e are loaded one after the other. "
        "Without that: 13.2 ms instead of 39.0 ms."
    )
    for word in ("load config", "src-non-iterable-saved", "each e1000e like the first", "0000:00:11.0/e1000e", "Clock"):
        assert word in ended.out
    assert said.count("What limits it") == 1
    assert max(map(len, ended.out.splitlines())) <= 100
    assert len(ended.out.splitlines()[0]) + len(ended.out.splitlines()[1]) <= 200


def test_the_files_are_those_of_compare(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("result.json", "trace.json", "page.html", "again.html")}
    ended = here(
        *("explain", SOURCE, DESTINATION, "--json", str(files["result.json"])),
        *("--trace", str(files["trace.json"]), "--report", str(files["page.html"])),
    )
    assert ended.code == 0
    result = LabResult.model_validate_json(files["result.json"].read_text())
    assert result.runs[0].checkpoints["dst-precopy-bh-vm-started"] == result.runs[0].downtime_ms
    events = json.loads(files["trace.json"].read_text())["traceEvents"]
    path = [event for event in events if event.get("cat") == "critical path"]
    downtime = result.runs[0].downtime_ms
    assert downtime is not None
    assert sum(event["dur"] for event in path) / 1e3 == pytest.approx(downtime)
    assert here("report", str(files["result.json"]), "-o", str(files["again.html"])).code == 0
    for page in (files["page.html"].read_text(), files["again.html"].read_text()):
        assert (
            page.count("What limits it: the 16 e1000e are loaded one after the other.") == 2
        )  # one is for search engines
        assert "dst-precopy-loadvm-completed" in page
        assert "Efficiency</th>" not in page
        assert "destination's memory" not in page


@pytest.mark.parametrize(("limit", "code"), [("1s", 0), ("40ms", 0), ("39ms", 1), ("20ms", 1)])
def test_a_limit_decides_the_exit_code(limit: str, code: int) -> None:
    ended = here("explain", SOURCE, DESTINATION, "--fail-above", limit)
    assert ended.code == code
    assert "QEMU: 39.0 ms" in ended.out
    assert ended.err.startswith("migpool: the downtime is 39.0 ms: more than the ") is bool(code)


@pytest.mark.parametrize("command", [("run", "small"), ("compare", "small", "--models", "inline", "--no-report")])
@pytest.mark.parametrize(("limit", "code"), [("1h", 2), ("0.1us", 1), ("100s", 0)])
def test_run_and_compare_take_the_same_limit(command: tuple[str, ...], limit: str, code: int) -> None:
    ended = here(*command, "--fail-above", limit)
    assert ended.code == code, ended.err
    assert ("of --fail-above" in ended.err) is (code == 1)
    assert ("is no duration" in ended.err) is (code == 2)


def test_compare_names_the_model_that_took_too_long() -> None:
    ended = here(
        "compare", "small", "--models", "inline,pool:1", "--repeats", "1", "--no-report", "--fail-above", "1us"
    )
    assert ended.code == 1
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith(("migpool: under inline the downtime is", "migpool: under pool:1 the downtime is"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((SOURCE, DESTINATION, SOURCE), "3 logs are too many"),
        (("nowhere.log",), "cannot be read"),
        ((SOURCE, DESTINATION, "--fail-above", "soon"), "--fail-above: 'soon' is no duration"),
        ((SOURCE, "--json", "/nowhere/at/all.json"), "no directory"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(arguments: tuple[str, ...], said: str) -> None:
    ended = here("explain", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1
