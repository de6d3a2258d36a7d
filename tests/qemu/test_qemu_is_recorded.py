"""A real QEMU migrates to a real QEMU through ``migpool record``; the recording is replayed into another one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.qemu.qemu_guest import Guest, continues, set_up
from tests.qemu.qemuprocess import QemuProcess
from tests.qemu.tool import Ended, Tool, migpool

RETURN_PATH = ("return-path",)
ACKNOWLEDGED = ("return-path", "switchover-ack")


def waiting(qemu: QemuProcess, address: str, channels: int, capabilities: tuple[str, ...]) -> None:
    """Let a QEMU wait for a migration."""
    set_up(qemu, channels=channels, capabilities=capabilities)
    qemu.execute("migrate-incoming", {"uri": address, "exit-on-error": False})


def record(
    source: QemuProcess, destination: QemuProcess, tmp_path: Path, channels: int, capabilities: tuple[str, ...]
) -> Ended:
    """Migrate through ``migpool record``, which writes ``rec``; both QEMUs must find that all is well."""
    waiting(destination, f"unix:{tmp_path}/d", channels, capabilities)
    set_up(source, channels=channels, capabilities=capabilities)
    arguments = ("record", str(tmp_path / "rec"), "--listen", f"unix:{tmp_path}/s", "--to", f"unix:{tmp_path}/d")
    with Tool(*arguments) as tool:
        source.execute("migrate", {"uri": tool.address()})
        assert source.wait_for_status("completed", "failed") == "completed"
        assert destination.wait_for_status("completed", "failed") == "completed"
        destination.console = source.drain_console()
        return tool.wait()


@pytest.mark.parametrize(
    ("channels", "capabilities"),
    [(2, ()), (2, ACKNOWLEDGED), (4, RETURN_PATH), (4, ACKNOWLEDGED), (4, ()), (0, RETURN_PATH)],
    ids=["2", "2 acknowledged", "4 with return path", "4 acknowledged", "4", "plain with return path"],
)
def test_the_guest_goes_on_at_the_destination_and_again_when_replayed(
    guest: Guest, source: QemuProcess, tmp_path: Path, channels: int, capabilities: tuple[str, ...]
) -> None:
    with guest.destination() as destination:
        ended = record(source, destination, tmp_path, channels, capabilities)
        assert ended.code == 0, ended.err
        moved = destination.console
        assert continues(destination.wait_for_ticks(2))
    with guest.destination(moved) as fresh:
        waiting(fresh, f"unix:{tmp_path}/r", channels, capabilities)
        arguments = ("--channels", str(channels), "--speed", "full", "--order", "seed:5")
        ended = migpool("replay", str(tmp_path / "rec"), "--to", f"unix:{tmp_path}/r", *arguments)
        assert (ended.code, ended.err) == (0, "")
        assert fresh.wait_for_status("completed", "failed") == "completed"
        assert continues(fresh.wait_for_ticks(2))


@pytest.mark.parametrize("preempt", [False, True], ids=["plain", "with a preempt channel"])
def test_a_postcopy_is_recorded_and_replayed_in_another_order(
    guest: Guest, source: QemuProcess, tmp_path: Path, preempt: bool
) -> None:
    capabilities = (*RETURN_PATH, "postcopy-ram", *(["postcopy-preempt"] if preempt else []))
    arguments = ("record", str(tmp_path / "rec"), "--listen", f"unix:{tmp_path}/s", "--to", f"unix:{tmp_path}/d")
    with guest.destination() as destination, Tool(*arguments) as tool:
        waiting(destination, f"unix:{tmp_path}/d", 0, capabilities)
        set_up(source, channels=0, capabilities=capabilities, parameters={"max-bandwidth": 8 << 20})
        source.execute("migrate", {"uri": tool.address()})
        source.wait_for_status("active")
        source.execute("migrate-start-postcopy")
        assert source.wait_for_status("completed", "failed", limit=60) == "completed"
        assert destination.wait_for_status("completed", "failed") == "completed"
        moved = source.drain_console()
        assert tool.wait().code == 0
    with guest.destination(moved) as fresh:
        waiting(fresh, f"unix:{tmp_path}/r", 0, capabilities)
        speed = ("--speed", "full", "--order", "seed:3")
        ended = migpool("replay", str(tmp_path / "rec"), "--to", f"unix:{tmp_path}/r", *speed)
        assert (ended.code, ended.err) == (0, "")
        assert fresh.wait_for_status("completed", "failed") == "completed"
        assert continues(fresh.wait_for_ticks(2))


def test_strangers_are_kept_from_the_destination(guest: Guest, source: QemuProcess, tmp_path: Path) -> None:
    arguments = ("record", str(tmp_path / "rec"), "--listen", "tcp:127.0.0.1:0", "--to", f"unix:{tmp_path}/d")
    with guest.destination() as destination, Tool(*arguments) as tool:
        waiting(destination, f"unix:{tmp_path}/d", 2, RETURN_PATH)
        set_up(source, channels=2, capabilities=RETURN_PATH, parameters={"max-bandwidth": 8 << 20})
        host, _, port = tool.address().removeprefix("tcp:").rpartition(":")
        socket.create_connection((host, int(port))).close()
        source.execute("migrate", {"uri": tool.address()})
        source.wait_for_status("active")
        with socket.create_connection((host, int(port))):
            source.execute("migrate-set-parameters", {"max-bandwidth": 1 << 32})
            assert source.wait_for_status("completed", "failed") == "completed"
            assert destination.wait_for_status("completed", "failed") == "completed"
            assert tool.wait().code == 0
        destination.console = source.drain_console()
        assert continues(destination.wait_for_ticks(2))


def test_a_replay_with_another_number_of_channels_is_refused(guest: Guest, source: QemuProcess, tmp_path: Path) -> None:
    with guest.destination() as destination:
        assert record(source, destination, tmp_path, 2, ()).code == 0
    for channels in ("1", "3"):
        ended = migpool("replay", str(tmp_path / "rec"), "--to", f"unix:{tmp_path}/r", "--channels", channels)
        assert ended.code == 2
        assert len(ended.err.splitlines()) == 1


def test_a_destination_that_refuses_the_replay_ends_it(guest: Guest, source: QemuProcess, tmp_path: Path) -> None:
    with guest.destination() as destination:
        assert record(source, destination, tmp_path, 2, RETURN_PATH).code == 0
    with guest.destination(machine=guest.other_machine) as other:
        waiting(other, f"unix:{tmp_path}/r", 2, RETURN_PATH)
        ended = migpool("replay", str(tmp_path / "rec"), "--to", f"unix:{tmp_path}/r", "--limit", "10")
        assert other.wait_for_status("completed", "failed") == "failed"
        assert ended.code == 1
        assert len(ended.err.splitlines()) == 1


def test_a_migration_that_fails_is_told_to_both_ends_and_the_guest_goes_on(
    guest: Guest, source: QemuProcess, tmp_path: Path
) -> None:
    with guest.destination(machine=guest.other_machine) as other:
        waiting(other, f"unix:{tmp_path}/d", 2, RETURN_PATH)
        set_up(source, channels=2, capabilities=RETURN_PATH)
        arguments = ("record", str(tmp_path / "rec"), "--listen", f"unix:{tmp_path}/s", "--to", f"unix:{tmp_path}/d")
        with Tool(*arguments) as tool:
            source.execute("migrate", {"uri": tool.address()})
            assert source.wait_for_status("completed", "failed") == "failed"
            assert other.wait_for_status("completed", "failed") == "failed"
            ended = tool.wait()
    assert ended.code == 1
    assert "is not complete: " in ended.err.splitlines()[-1]
    assert len(ended.err.splitlines()) == 2, ended.err
    assert continues(source.wait_for_ticks(2))
