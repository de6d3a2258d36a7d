"""``migpool observe`` attaches to two real QEMUs: what it says is what their checkpoints say; nothing stays on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.qemu.qemuprocess import QemuProcess, qemu_here
from tests.qemu.test_qemu_explains_itself import checkpoint
from tests.qemu.tool import migpool
from tests.support.monitors import observing


def machine(directory: Path, side: str, *more: str, timed: bool = True) -> QemuProcess:
    found = qemu_here()
    assert found is not None
    arguments = ["-accel", "tcg", "-machine", "q35", "-m", "64", "-nodefaults", "-display", "none", "-device", "e1000e"]
    monitor = ["-qmp", f"unix:{directory}/{side}.qmp,server=on,wait=off", *(["-msg", "timestamp=on"] * timed)]
    return QemuProcess([*found.command, *arguments, *monitor, *more], directory / f"{side}.err")


def on(qemu: QemuProcess) -> list[str]:
    """Which tracepoints are on."""
    rows = qemu.execute("trace-event-get-state", {"name": "*"})
    assert isinstance(rows, list)
    return [str(row["name"]) for row in rows if isinstance(row, dict) and row["state"] == "enabled"]


@pytest.mark.parametrize("more", [(), ("--all",)], ids=["light", "all"])
def test_it_starts_the_migration_and_explains_it(tmp_path: Path, more: tuple[str, ...]) -> None:
    with machine(tmp_path, "source") as source, machine(tmp_path, "destination", "-incoming", "defer") as destination:
        ended = migpool(
            *("observe", "--source", f"{tmp_path}/source.qmp", "--destination", f"{tmp_path}/destination.qmp"),
            *("--keep", str(tmp_path / "kept"), "--json", str(tmp_path / "result.json"), *more),
            *("--", f"unix:{tmp_path}/migration", "multifd=on", "multifd-channels=2", "return-path=on"),
        )
        assert ended.code == 0, ended.err
        assert destination.running()
        assert (on(source), on(destination)) == ([], [])
    (run,) = json.loads((tmp_path / "result.json").read_text())["runs"]
    logs = [tmp_path / "kept" / f"{side}.log" for side in ("source", "destination")]
    expected = checkpoint(logs[1], "dst-precopy-bh-vm-started") - checkpoint(logs[0], "src-downtime-start")
    assert run["downtime_ms"] == pytest.approx(expected, abs=1.0)
    told = json.loads((tmp_path / "result.json").read_text())["settings"]["monitors"]
    assert told["source"]["parameters"]["multifd-channels"] == 2
    events = [event["event"] for side in told.values() for event in side["events"]]
    assert {"STOP", "RESUME", "MIGRATION"} <= set(events)


def test_a_signal_leaves_two_machines_as_they_were(tmp_path: Path) -> None:
    with machine(tmp_path, "source") as source, machine(tmp_path, "destination", "-incoming", "defer") as destination:
        with observing(tmp_path / "source.qmp", tmp_path / "destination.qmp") as command:
            assert "vmstate_downtime_checkpoint" in on(source)
            assert "vmstate_downtime_checkpoint" in on(destination)
            command.interrupt(signal.SIGINT)
            assert command.wait().code == 130
        assert (on(source), on(destination)) == ([], [])
        assert source.running()


def test_logs_without_times_are_told_before_the_migration(tmp_path: Path) -> None:
    with machine(tmp_path, "source", timed=False) as source:
        ended = migpool("observe", "--source", f"{tmp_path}/source.qmp", "--limit", "5")
        assert (ended.code, ended.out) == (2, "")
        assert "without times: start it with -msg timestamp=on" in ended.err
        assert on(source) == []
