"""A real QEMU migrates into ``migpool receive --store``; a real QEMU loads the file."""

from __future__ import annotations

import contextlib
import resource
import socket
from pathlib import Path

import pytest

from tests.qemu.qemu_guest import Guest, continues, set_up
from tests.qemu.qemuprocess import OLDEST, QemuProcess, qemu_here
from tests.qemu.tool import Tool, migpool

RETURN_PATH = ("return-path",)
ACKNOWLEDGED = ("return-path", "switchover-ack")
PROGRAM = qemu_here()
MACHINES = sorted({PROGRAM.machine(), PROGRAM.machine(version=(OLDEST, 0))}) if PROGRAM is not None else ["none"]
"""The newest type that this QEMU has, and one that all have that run these tests."""


@pytest.mark.parametrize(
    ("channels", "capabilities"),
    [(0, ()), (0, ACKNOWLEDGED), (2, ()), (2, ACKNOWLEDGED), (4, RETURN_PATH)],
    ids=["plain", "plain acknowledged", "2 channels", "2 channels acknowledged", "4 channels with return path"],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_source_says_completed_and_the_guest_goes_on_from_the_file(
    guest: Guest, source: QemuProcess, tmp_path: Path, channels: int, capabilities: tuple[str, ...]
) -> None:
    file = tmp_path / "vm.mig"
    with Tool("receive", "--store", str(file), "--listen", f"unix:{tmp_path}/s", "--channels", str(channels)) as tool:
        set_up(source, channels=channels, capabilities=capabilities)
        source.execute("migrate", {"uri": tool.address()})
        assert source.wait_for_status("completed", "failed") == "completed"
        ended = tool.wait()
    assert (ended.code, ended.err) == (0, f"listening on unix:{tmp_path}/s\n")
    assert f"{file}: machine {guest.machine}, " in ended.out
    assert ("the source knows" in ended.out) == bool(capabilities)
    with guest.loading(f"file:{file}", source.drain_console()) as loaded:
        assert continues(loaded.wait_for_ticks(2))


@pytest.mark.parametrize("machine", [PROGRAM.machine(version=(8, 0)) if PROGRAM is not None else ""])
def test_a_machine_type_that_flushes_at_each_section_comes_back(
    guest: Guest, source: QemuProcess, tmp_path: Path
) -> None:
    """Up to 8.0 the main channel says nothing of multifd's flushes: pages would be lost without a word."""
    file, address = tmp_path / "vm.mig", f"unix:{tmp_path}/d"
    set_up(source, channels=2, capabilities=RETURN_PATH)
    with Tool("receive", "--store", str(file), "--listen", f"unix:{tmp_path}/s", "--channels", "2") as tool:
        source.execute("migrate", {"uri": tool.address()})
        assert source.wait_for_status("completed", "failed") == "completed"
        assert tool.wait().code == 0
    with guest.destination(source.drain_console()) as loaded:
        set_up(loaded, channels=2)
        loaded.execute("migrate-incoming", {"uri": address, "exit-on-error": False})
        ended = migpool("send", str(file), "--to", address, "--channels", "2", "--idle", "10")
        assert (ended.code, ended.err) == (0, "")
        assert continues(loaded.wait_for_ticks(2))


def test_a_switchover_that_the_source_does_not_wait_for_is_not_acknowledged(guest: Guest, tmp_path: Path) -> None:
    """Acknowledged by force: a source of 11.1 or later fails, and that is no stored machine here."""
    file = tmp_path / "vm.mig"
    fails = guest.qemu.version >= (11, 1)
    arguments = ("receive", "--store", str(file), "--listen", f"unix:{tmp_path}/s", "--switchover-ack", "yes")
    with guest.source() as source:
        source.wait_for_ticks(1)
        set_up(source, channels=0, capabilities=RETURN_PATH)
        with Tool(*arguments) as tool:
            source.execute("migrate", {"uri": tool.address()})
            assert source.wait_for_status("completed", "failed") == ("failed" if fails else "completed")
            assert tool.wait().code == int(fails)
        assert source.running() == fails


def test_strangers_before_and_during_it_change_nothing(guest: Guest, source: QemuProcess, tmp_path: Path) -> None:
    file = tmp_path / "vm.mig"
    set_up(source, channels=2, capabilities=RETURN_PATH, parameters={"max-bandwidth": 8 << 20})
    with Tool("receive", "--store", str(file), "--listen", "tcp:127.0.0.1:0", "--channels", "2") as tool:
        host, _, port = tool.address().removeprefix("tcp:").rpartition(":")
        socket.create_connection((host, int(port))).close()
        source.execute("migrate", {"uri": tool.address()})
        source.wait_for_status("active")
        with contextlib.suppress(ConnectionRefusedError):  # once every channel is there, nobody listens any more
            socket.create_connection((host, int(port))).close()
        source.execute("migrate-set-parameters", {"max-bandwidth": 1 << 32})
        assert source.wait_for_status("completed", "failed") == "completed"
        ended = tool.wait()
    assert ended.code == 0
    assert "note: a connection was closed without a byte" in ended.err
    with guest.loading(f"file:{file}", source.drain_console()) as loaded:
        assert continues(loaded.wait_for_ticks(2))


def test_ram_that_changes_while_it_is_sent_is_stored_in_its_last_state(
    guest: Guest, source: QemuProcess, tmp_path: Path
) -> None:
    file = tmp_path / "vm.mig"
    # So slow that it does not come to its end in the moment between the second pass and the next request.
    set_up(source, channels=3, capabilities=RETURN_PATH, parameters={"max-bandwidth": 4 << 20, "downtime-limit": 1})
    with Tool("receive", "--store", str(file), "--listen", "tcp:127.0.0.1:0", "--channels", "3") as tool:
        source.execute("migrate", {"uri": tool.address()})
        source.wait_for_pass(2)
        # Slower than the guest writes: as long as this lasts, memory changes behind what has been sent.
        source.execute("migrate-set-parameters", {"max-bandwidth": 1 << 20})
        source.wait_for_ticks(2)
        source.execute("migrate-set-parameters", {"max-bandwidth": 1 << 32, "downtime-limit": 300})
        source.wait_for_pass(3)
        assert source.wait_for_status("completed", "failed") == "completed"
        assert tool.wait().code == 0
    with guest.loading(f"file:{file}", source.drain_console()) as loaded:
        assert continues(loaded.wait_for_ticks(5))


def test_a_source_with_more_channels_fails_and_the_guest_goes_on(source: QemuProcess, tmp_path: Path) -> None:
    file = tmp_path / "vm.mig"
    set_up(source, channels=3, capabilities=RETURN_PATH)
    with Tool("receive", "--store", str(file), "--listen", f"unix:{tmp_path}/s", "--channels", "2") as tool:
        source.execute("migrate", {"uri": tool.address()})
        assert source.wait_for_status("completed", "failed") == "failed"
        ended = tool.wait()
    assert ended.code == 1
    assert "give --channels as the source has" in ended.err.splitlines()[-1]
    assert list(tmp_path.glob("vm.mig*")) == []
    assert continues(source.wait_for_ticks(2))


def test_a_source_with_fewer_channels_fails_when_the_wait_is_over(source: QemuProcess, tmp_path: Path) -> None:
    set_up(source, channels=2)
    file, address = str(tmp_path / "vm.mig"), f"unix:{tmp_path}/s"
    with Tool("receive", "--store", file, "--listen", address, "--channels", "3", "--idle", "2") as tool:
        source.execute("migrate", {"uri": tool.address()})
        assert source.wait_for_status("completed", "failed") == "failed"
        ended = tool.wait()
    assert ended.code == 1
    assert "the source opened 2 of 3 multifd channels and the main channel within 2 s" in ended.err
    assert continues(source.wait_for_ticks(2))


def test_a_full_disk_fails_the_migration_and_the_guest_goes_on(source: QemuProcess, tmp_path: Path) -> None:
    file = tmp_path / "vm.mig"
    set_up(source, channels=2, capabilities=RETURN_PATH)

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))

    arguments = ("receive", "--store", str(file), "--listen", f"unix:{tmp_path}/s", "--channels", "2")
    with Tool(*arguments, prepare=small_disk) as tool:
        source.execute("migrate", {"uri": tool.address()})
        assert source.wait_for_status("completed", "failed") == "failed"
        ended = tool.wait()
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == f"migpool: {file}.partial cannot be written: File too large"
    assert list(tmp_path.glob("vm.mig*")) == []
    assert continues(source.wait_for_ticks(2))


def test_ctrl_c_at_the_destination_leaves_the_guest_at_the_source(source: QemuProcess, tmp_path: Path) -> None:
    file = tmp_path / "vm.mig"
    set_up(source, channels=2, capabilities=RETURN_PATH, parameters={"max-bandwidth": 4 << 20})
    with Tool("receive", "--store", str(file), "--listen", f"unix:{tmp_path}/s", "--channels", "2") as tool:
        source.execute("migrate", {"uri": tool.address()})
        source.wait_for_status("active")
        tool.interrupt()
        ended = tool.wait()
        assert source.wait_for_status("completed", "failed") == "failed"
    assert ended.code == 130
    assert ended.err.splitlines()[-1].startswith("migpool: cancelled")
    assert list(tmp_path.glob("vm.mig*")) == []
    assert continues(source.wait_for_ticks(2))


def test_a_source_that_is_killed_leaves_no_file(source: QemuProcess, tmp_path: Path) -> None:
    file = tmp_path / "vm.mig"
    set_up(source, channels=2, parameters={"max-bandwidth": 4 << 20})
    with Tool("receive", "--store", str(file), "--listen", f"unix:{tmp_path}/s", "--channels", "2") as tool:
        source.execute("migrate", {"uri": tool.address()})
        source.wait_for_status("active")
        source.wait_for_ticks(1)
        source.close()
        ended = tool.wait()
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 2, ended.err
    assert list(tmp_path.glob("vm.mig*")) == []


def test_post_copy_is_refused_and_the_guest_goes_on(source: QemuProcess, tmp_path: Path) -> None:
    set_up(source, channels=0, capabilities=(*RETURN_PATH, "postcopy-ram"))
    with Tool("receive", "--store", str(tmp_path / "vm.mig"), "--listen", f"unix:{tmp_path}/s") as tool:
        source.execute("migrate", {"uri": tool.address()})
        assert source.wait_for_status("completed", "failed") == "failed"
        ended = tool.wait()
    assert ended.code == 1
    assert "POSTCOPY_ADVISE" in ended.err.splitlines()[-1]
    assert continues(source.wait_for_ticks(2))


def test_compressed_pages_are_refused_and_the_guest_goes_on(source: QemuProcess, tmp_path: Path) -> None:
    set_up(source, channels=2, capabilities=RETURN_PATH, parameters={"multifd-compression": "zlib"})
    arguments = ("receive", "--store", str(tmp_path / "vm.mig"), "--listen", f"unix:{tmp_path}/s", "--channels", "2")
    with Tool(*arguments) as tool:
        source.execute("migrate", {"uri": tool.address()})
        assert source.wait_for_status("completed", "failed") == "failed"
        ended = tool.wait()
    assert ended.code == 1
    assert ended.err.splitlines()[-1].endswith("found zlib: set multifd-compression to none")
    assert continues(source.wait_for_ticks(2))
