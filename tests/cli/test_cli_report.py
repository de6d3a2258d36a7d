"""The report from the command line: where it goes, what it is made from, and what is said of files that are none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from migpool.lab.analysis.kinds import BY_NAME
from migpool.lab.run.result import LabResult
from tests.support.commandline import LIMIT, here, migpool


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two results of one scenario."""
    directory = tmp_path_factory.mktemp("results")
    paths = [directory / f"{number}.json" for number in (1, 2)]
    for path, model in zip(paths, ("pool:1", "per-device"), strict=True):
        assert here("run", "small", "-m", model, "--json", str(path)).code == 0
    return paths


def test_compare_writes_one_where_it_was_called_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = here("compare", "small", "--models", "pool:1,per-device", "--repeats", "1")
    assert ended.code == 0, ended.err
    assert "Report       migpool-report.html" in ended.out
    assert " ".join(ended.out.split()).count("What limits it: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["migpool-report.html"]


def test_compare_writes_none_if_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = here("compare", "small", "--models", "pool:1", "--repeats", "1", "--no-report")
    assert ended.code == 0, ended.err
    assert "Report" not in ended.out
    assert list(tmp_path.iterdir()) == []


def test_the_opposite_of_each_other_is_refused(tmp_path: Path) -> None:
    ended = here("compare", "small", "--no-report", "--report", str(tmp_path / "x.html"))
    assert (ended.code, ended.out) == (2, "")
    assert "--report and --no-report say the opposite" in ended.err


def test_a_page_is_made_from_results(results: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    ended = migpool("report", *map(str, results), "-o", str(target))
    assert (ended.code, ended.err) == (0, "")
    assert str(target) in ended.out
    page = target.read_text()
    # Of one scenario on one host: one part, with the models of both.
    assert page.count('<section class="part"') == 1
    assert "<b>pool:1</b>" in page
    assert "<b>per-device</b>" in page
    fetched = re.findall(r"""<(?:script|link|img|iframe)[^>]+?(?:src|href)="([^"]*)""", page.partition("<script")[0])
    assert all(address.startswith("data:") for address in fetched)


def test_run_writes_one_on_demand_and_draws_the_switchover(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    ended = here("run", "small", "--model", "pool:1", "--report", str(target))
    assert ended.code == 0, ended.err
    assert target.stat().st_size > 1_000_000
    lines = ended.out.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("Switchover   run 1"))
    lane = lines[start + 1]
    assert lane.startswith("critical path")
    # Plain text where there is no terminal, and a mark for every column.
    assert "\x1b" not in ended.out
    assert set(lane.removeprefix("critical path").replace(" ", "")) <= {kind.mark for kind in BY_NAME.values()}
    assert any("X device stop" in line or "R device read" in line for line in lines[start:])
    assert ended.out.count("What limits it: ") == 1


def test_the_result_carries_what_a_page_needs_for_one_run_of_each_model(results: list[Path]) -> None:
    (run,) = LabResult.model_validate_json(results[0].read_text()).runs
    assert run.analysis is not None
    assert run.downtime_ms is not None
    assert sum(link.end_ms - link.begin_ms for link in run.analysis.path) == pytest.approx(run.downtime_ms)
    kinds = {row[0] for row in run.analysis.trace.source.spans}
    assert {"stop", "read", "send", "save_config"} <= kinds
    assert run.analysis.memory
    # A row of the trace is a line of the file: it can be read, and the file compared with another.
    assert re.search(r'^ +\["read", \d+, 0, -?\d+, -?\d+, \d+\],?$', results[0].read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is no JSON"),
        (b"\xff\xfe", "is no result"),
        (b"[1, 2]", "is no result"),
        (b'{"schema": 2}', "has schema 2: this version reads schema 1"),
        (b'{"schema": 1, "scenario": "x"}', "is no result: settings: Field required"),
        (b"[" * 100_000, "is no JSON"),
    ],
    ids=["cut off", "not text", "a list", "newer", "incomplete", "deep"],
)
def test_what_is_no_result_is_named_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    broken, target = tmp_path / "broken.json", tmp_path / "page.html"
    broken.write_bytes(content)
    ended = here("report", str(broken), "-o", str(target))
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert str(broken) in line
    assert said in line
    assert not target.exists()


def test_a_file_that_is_not_there_and_a_place_that_cannot_be_written(results: list[Path], tmp_path: Path) -> None:
    assert "cannot be read: No such file" in here("report", str(tmp_path / "none.json")).err
    ended = here("report", str(results[0]), "-o", str(tmp_path / "no" / "page.html"))
    assert ended.code == 2
    assert "there is no directory" in ended.err


def test_an_older_result_without_an_analysis_still_makes_a_page(results: list[Path], tmp_path: Path) -> None:
    form = json.loads(results[0].read_text())
    del form["runs"][0]["analysis"]
    older, target = tmp_path / "older.json", tmp_path / "page.html"
    older.write_text(json.dumps(form))
    assert here("report", str(older), "-o", str(target)).code == 0
    assert "of downtime." in target.read_text()


def test_the_command_line_starts_without_the_plotting_library() -> None:
    code = "import sys, migpool.cli.app, migpool.cli.runs; sys.exit(any('plotly' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=LIMIT).returncode == 0
