"""``migpool run`` and ``migpool compare``: real processes, the table, the files, the exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from migpool.lab.run.result import LabResult
from tests.support.commandline import LIMIT, MakeHolding, here, migpool, scenario_file, started


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabResult, str, str, Path]:
    """One comparison, looked at by several tests."""
    directory = tmp_path_factory.mktemp("compared")
    result, trace = directory / "result.json", directory / "trace.json"
    models = "inline,pool:2,per-device+receiver"
    ended = migpool(
        *("compare", "small", "--models", models, "--repeats", "2", "--no-report"),
        *("--json", str(result), "--trace", str(trace)),
    )
    assert ended.code == 0, ended.err
    return LabResult.model_validate_json(result.read_text()), ended.out, ended.err, trace


def test_every_run_of_a_comparison_is_verified(compared: tuple[LabResult, str, str, Path]) -> None:
    result = compared[0]
    assert len(result.runs) == 6
    assert all(run.verified and run.outcome == "completed" and not run.error for run in result.runs)
    assert {(run.model, run.repeat) for run in result.runs} == {
        (model, repeat) for model in ("inline", "pool:2", "per-device+receiver") for repeat in (1, 2)
    }


def test_repetitions_are_interleaved_and_have_a_seed_each(compared: tuple[LabResult, str, str, Path]) -> None:
    result = compared[0]
    assert [run.repeat for run in result.runs] == [1, 1, 1, 2, 2, 2]
    assert {run.seed for run in result.runs if run.repeat == 1} == {2}
    assert {run.seed for run in result.runs if run.repeat == 2} == {3}


def test_the_numbers_of_a_run_fit_together(compared: tuple[LabResult, str, str, Path]) -> None:
    result = compared[0]
    assert result.lower_bound is not None
    for run in result.runs:
        assert run.downtime_ms is not None
        assert run.total_ms is not None
        assert run.efficiency is not None
        assert 0 < run.downtime_ms < run.total_ms
        assert sum(run.attribution.values()) == pytest.approx(run.downtime_ms, rel=0.02)
        assert run.lower_bound_ms == result.lower_bound.milliseconds
        assert run.efficiency == pytest.approx(run.lower_bound_ms / run.downtime_ms)
        assert run.threads_peak == (run.threads.source or 0) + (run.threads.destination or 0)
        assert run.clock == "monotonic"
        assert run.bytes == sum(device.bytes for device in run.devices) > 2 * 256 * 1024
        assert run.memory.budget_bytes == 256 * 1024
        assert 0 < (run.memory.high_water_bytes or 0) <= 256 * 1024
        assert (run.memory.peak_rss_bytes or 0) > 1 << 20
        assert [device.name for device in run.devices if device.iterable] == [
            "0000:01:00.0/vfio",
            "0000:02:00.0/vfio",
        ]
        assert all(device.verified for device in run.devices if device.iterable)


def test_a_thread_model_shows_in_the_number_of_threads(compared: tuple[LabResult, str, str, Path]) -> None:
    threads = {run.model: run.threads for run in compared[0].runs}
    assert threads["pool:2"].source == (threads["inline"].source or 0) + 2
    assert threads["pool:2"].destination == (threads["inline"].destination or 0) + 2


def test_the_table_names_every_model_and_its_proof(compared: tuple[LabResult, str, str, Path]) -> None:
    _, out, err, _ = compared
    for word in ("inline", "pool:2", "per-device", "+receiver", "2/2 yes", "Lower bound", "Clock", "emulated VFIO"):
        assert word in out
    assert re.search(r"shortest downtime|[Ll]evel within the spread", out)
    assert "[6/6]" in err
    assert "state verified" in err


def test_where_there_is_no_terminal_nothing_is_coloured_or_redrawn(
    compared: tuple[LabResult, str, str, Path],
) -> None:
    _, out, err, _ = compared
    assert "\x1b" not in out + err
    assert "\r" not in out + err


def test_the_trace_holds_a_run_of_each_model(compared: tuple[LabResult, str, str, Path]) -> None:
    events = json.loads(compared[3].read_text())["traceEvents"]
    processes = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    for model in ("inline", "pool:2", "per-device+receiver"):
        assert any(model in name and "source" in name for name in processes), processes
        assert any(model in name and "destination" in name for name in processes), processes


def test_the_file_is_json_with_schema_1(tmp_path: Path) -> None:
    target = tmp_path / "one.json"
    assert here("run", "small", "--model", "elastic", "--seed", "9", "--json", str(target)).code == 0
    form = json.loads(target.read_text())
    assert form["schema"] == 1
    assert form["scenario"] == "small"
    assert form["runs"][0]["seed"] == 10
    assert set(form["runs"][0]) >= {
        *("model", "repeat", "outcome", "verified", "downtime_ms", "total_ms", "bytes", "lower_bound_ms"),
        *("efficiency", "threads_peak", "attribution", "memory", "devices", "error"),
    }


def test_on_a_terminal_of_80_columns_every_line_fits() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
    command = [sys.executable, "-m", "migpool", "compare", "small", "--repeats", "1", "--no-report"]
    command += ["--models", "pool,per-device+receiver"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 1 << 16)
            except OSError:
                break
            if not data:
                break
            shown += data
        os.close(ours)
        assert process.wait(LIMIT) == 0
    text = shown.decode()
    assert "\x1b[" in text
    assert "run 1:" in text
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n").splitlines()
    assert any("1/1 yes" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_device_that_fails_is_named_with_its_chunk(tmp_path: Path) -> None:
    fault = '{device = 1, side = "source", at = "128KiB", kind = "error"}'
    scenario = scenario_file(
        tmp_path / "fault.toml",
        [f'plugin = "vfio"\ncount = 2\noptions = {{profile = "tiny", fault = {fault}}}'],
        "[limits]\npeer = 5",
    )
    target = tmp_path / "result.json"
    ended = here("run", scenario, "--json", str(target))
    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    assert last.startswith("migpool: pool, run 1: failed:")
    assert "0000:02:00.0/vfio, chunk 2" in last
    run = LabResult.model_validate_json(target.read_text()).runs[0]
    assert (run.outcome, run.verified) == ("failed", False)
    assert "0000:02:00.0/vfio" in run.error


@pytest.mark.parametrize(
    ("method", "killed", "other"), [("save_state", "source", "destination"), ("load_config", "destination", "source")]
)
def test_a_side_that_is_killed_is_told_of_and_the_other_ends(
    method: str, killed: str, other: str, holding: MakeHolding
) -> None:
    held = holding(method, killed)
    with started("run", held.scenario, "-v", "--log-format", "json", extra=held.environment) as command:
        side, pid = held.fifo.holds()
        assert side == killed
        os.kill(pid, signal.SIGKILL)
        ended = command.wait()
        assert ended.code == 1
        assert f"{killed}: the {killed} process ended without a result (killed by SIGKILL)" in ended.err
        states = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
        assert any(entry.get("side") == other and entry.get("state") == "failed" for entry in states)
        assert "0/1 NO" in ended.out
        assert command.all_gone()


def test_states_are_logged_as_json_on_request_and_not_otherwise() -> None:
    ended = migpool("--log-format", "json", "run", "small", "-v")
    logged = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    source = [entry["state"] for entry in logged if entry.get("side") == "source"]
    assert source == ["setup", "active", "switchover", "sent", "running", "completed"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nosuch"], "migpool: nosuch: there is no such file, and no built-in scenario of that name"),
        (["run", "small", "-m", "receiver"], "such as per-device+receiver"),
        (["run", "small", "-m", "p00l"], "there is no threading model 'p00l'; there are: blocking-aware, "),
        (["compare", "small", "--models", "pool,pool"], "named twice"),
        (["run", "small", "--json", "/nowhere/x.json"], "there is no directory /nowhere"),
        (["run", "small", "--repeat", "0"], "see migpool run --help"),
        (["run", "--nonsense"], "No such option: --nonsense"),
        (["send", "small", "--to", "nowhere"], "write tcp:HOST:PORT or unix:PATH"),
        (["send", "small"], "Missing option '--to'; see migpool send --help"),
        (["rnu"], "No such command 'rnu'; did you mean 'run'? See migpool --help"),
        (["scenario", "lst"], "No such command 'lst'; did you mean 'list'? See migpool scenario --help"),
        (["vfio", "prob"], "did you mean 'probe'? See migpool vfio --help"),
        (["xyzzy"], "No such command 'xyzzy'; see migpool --help"),
        (["run", "--modle", "pool"], "No such option: --modle; did you mean --model? See migpool run --help"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], said: str) -> None:
    ended = here(*arguments)
    assert ended.code == 2
    assert said in ended.err
    assert ended.err.startswith("migpool: ")
    assert len(ended.err.splitlines()) == 1
    assert ended.out == ""
