"""``migpool send`` sends a stream file into a real QEMU, and says what the QEMU makes of it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from migpool.wire.vmdesc import find
from tests.qemu.qemu_guest import UUID, Guest, set_up
from tests.qemu.qemuprocess import QemuProcess, qemu_here
from tests.qemu.tool import Ended, Tool, migpool


def send(qemu: QemuProcess, file: Path, tmp_path: Path, *options: str, listens: int, channels: int) -> Ended:
    """Let a QEMU listen with some channels, and send it a file with some, perhaps others."""
    set_up(qemu, channels=listens)
    address = f"unix:{tmp_path}/d"
    qemu.execute("migrate-incoming", {"uri": address, "exit-on-error": False})
    return migpool("send", str(file), "--to", address, "--channels", str(channels), *options)


def refused(qemu: QemuProcess, ended: Ended) -> str:
    """The one line that the tool says after a QEMU has refused a machine in good order."""
    assert qemu.wait_for_status("completed", "failed") == "failed"
    assert ended.code == 1
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    return line


@pytest.mark.parametrize("channels", [0, 1, 2, 4])
def test_the_guest_goes_on_and_the_destination_says_so(
    guest: Guest, stored: Path, tmp_path: Path, channels: int
) -> None:
    with guest.destination() as qemu:
        ended = send(qemu, stored, tmp_path, listens=channels, channels=channels)
        assert (ended.code, ended.err) == (0, "")
        assert "it runs at the destination" in ended.out
        assert qemu.wait_for_status("completed", "failed") == "completed"
        assert qemu.wait_for_ticks(2)[:2] == [3, 4]


def test_the_guest_goes_on_when_nobody_asks(guest: Guest, stored: Path, tmp_path: Path) -> None:
    with guest.destination() as qemu:
        ended = send(qemu, stored, tmp_path, "--no-return-path", listens=2, channels=2)
        assert (ended.code, ended.err) == (0, "")
        assert "nobody has asked" in ended.out
        assert qemu.wait_for_status("completed", "failed") == "completed"
        assert qemu.wait_for_ticks(2)[:2] == [3, 4]


def test_a_machine_with_a_uuid_comes_back_from_what_receive_has_stored(guest: Guest, tmp_path: Path) -> None:
    file = tmp_path / "vm.mig"
    with guest.source(UUID) as source:
        source.wait_for_ticks(1)
        set_up(source, channels=2, capabilities=("return-path",))
        with Tool("receive", "--store", str(file), "--listen", f"unix:{tmp_path}/s", "--channels", "2") as tool:
            source.execute("migrate", {"uri": tool.address()})
            assert source.wait_for_status("completed", "failed") == "completed"
            assert tool.wait().code == 0
        console = source.drain_console()
    with guest.destination(console, UUID) as qemu:
        ended = send(qemu, file, tmp_path, listens=3, channels=3)
        assert (ended.code, ended.err) == (0, "")
        before = len(qemu.ticks())
        ticks = qemu.wait_for_ticks(2)
        assert ticks == list(range(ticks[0], ticks[0] + before + 2))


def test_another_uuid_is_refused(guest: Guest, stored: Path, tmp_path: Path) -> None:
    with guest.destination(uuid=UUID) as qemu:
        ended = send(qemu, stored, tmp_path, "--uuid", str(uuid.UUID(int=7)), listens=2, channels=2)
        assert "the destination" in refused(qemu, ended)


def test_another_machine_is_refused(guest: Guest, stored: Path, tmp_path: Path) -> None:
    with guest.destination(machine=guest.other_machine) as qemu:
        ended = send(qemu, stored, tmp_path, listens=2, channels=2)
        assert "the destination" in refused(qemu, ended)
        assert guest.machine in qemu.reason()


def changed(stored: Path, copy: Path, *, cut: int = 0, footer: bool = False) -> Path:
    """A copy of a stream file with less before the end of its last device, or with that device's footer wrong."""
    data = bytearray(stored.read_bytes())
    found = find(bytes(data))
    assert found is not None
    eof = found[0] - 1
    if footer:
        assert data[eof - 5] == 0x7E
        data[eof - 5] ^= 1
    copy.write_bytes(data[: eof - cut] if cut else data)
    return copy


@pytest.mark.parametrize("channels", [0, 2])
def test_a_wrong_footer_is_refused(guest: Guest, stored: Path, tmp_path: Path, channels: int) -> None:
    damaged = changed(stored, tmp_path / "damaged.mig", footer=True)
    with guest.destination() as qemu:
        ended = send(qemu, damaged, tmp_path, listens=channels, channels=channels)
        assert "the destination" in refused(qemu, ended)


@pytest.mark.parametrize("channels", [0, 2])
def test_a_file_that_was_cut_is_refused_at_both_ends(guest: Guest, stored: Path, tmp_path: Path, channels: int) -> None:
    damaged = changed(stored, tmp_path / "damaged.mig", cut=100)
    with guest.destination() as qemu:
        ended = send(qemu, damaged, tmp_path, listens=channels, channels=channels)
        assert refused(qemu, ended).endswith("found the end of the file: it has been cut")


def test_a_file_that_was_cut_inside_ram_is_refused_at_both_ends(guest: Guest, stored: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mig"
    damaged.write_bytes(stored.read_bytes())
    os.truncate(damaged, 20_000_001)
    with guest.destination() as qemu:
        ended = send(qemu, damaged, tmp_path, listens=2, channels=2)
        line = refused(qemu, ended)
        assert line.startswith("migpool: RAM")
        assert line.endswith("the end of the input")


def test_too_few_channels_end_at_the_time_limit(guest: Guest, stored: Path, tmp_path: Path) -> None:
    with guest.destination() as qemu:
        ended = send(qemu, stored, tmp_path, "--idle", "3", listens=3, channels=2)
        assert ended.code == 1
        (line,) = ended.err.splitlines()
        assert "within 3 s" in line or "for 3 s" in line
        assert "give --channels as it has" in line
        assert not qemu.running()


def test_too_many_channels_are_refused_and_nothing_is_loaded_wrong(guest: Guest, stored: Path, tmp_path: Path) -> None:
    with guest.destination() as qemu:
        ended = send(qemu, stored, tmp_path, listens=2, channels=3)
        assert "--channels" in refused(qemu, ended)
        assert not qemu.running()


@pytest.fixture
def captured(guest: Guest, stored: Path, tmp_path: Path) -> Path:
    """A scenario of the guest's machine, held as it was stored."""
    path = tmp_path / "captured.toml"
    path.write_text(
        f"""\
name = "captured"
[machine]
name = "{guest.machine}"
uuid = "{uuid.UUID(int=0)}"
[[devices]]
plugin = "vmsd"
options = {{stream = "{stored}", memory = true}}
[migration]
credits = false
"""
    )
    return path


PROGRAM = qemu_here()
MACHINES = [PROGRAM.machine(), PROGRAM.machine(version=(8, 0))] if PROGRAM is not None else ["none"]
"""The newest type, and one of which the end of each section of RAM is multifd's flush, and none is said."""


@pytest.mark.parametrize("model", ["pool", "per-device"])
@pytest.mark.parametrize("machine", MACHINES)
def test_a_captured_machine_goes_on_in_qemu(guest: Guest, captured: Path, tmp_path: Path, model: str) -> None:
    with guest.destination() as qemu:
        set_up(qemu, channels=2)
        qemu.execute("migrate-incoming", {"uri": f"unix:{tmp_path}/d", "exit-on-error": False})
        ended = migpool("send", str(captured), "--to", f"unix:{tmp_path}/d", "--model", model)
        assert (ended.code, "completed" in ended.out) == (0, True), ended
        assert qemu.wait_for_status("completed", "failed") == "completed"
        assert qemu.wait_for_ticks(2)[:2] == [3, 4]


@pytest.mark.parametrize("machine", MACHINES)
def test_qemu_migrates_into_a_captured_machine(guest: Guest, captured: Path, tmp_path: Path) -> None:
    with guest.source() as source, Tool("receive", str(captured), "--listen", f"unix:{tmp_path}/s") as tool:
        source.wait_for_ticks(1)
        set_up(source, channels=2, capabilities=("return-path",))
        source.execute("migrate", {"uri": tool.address()})
        assert source.wait_for_status("completed", "failed") == "completed"
        ended = tool.wait()
    assert (ended.code, "the machine runs here" in ended.out) == (0, True), ended
