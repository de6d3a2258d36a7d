"""What a served device is as a PCI function, asked by a client that is written by hand, with the kernel's numbers."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool_plugins.vfio.content import BaseBlock
from migpool_plugins.vfio.profiles import DeviceProfile
from migpool_plugins.vfio.state import DeviceState
from migpool_plugins.vfio.transfer import Refusal, SharedLock
from migpool_plugins.vfio.vfiouser.pci import PciFunction, PciId
from tests.support.commandline import here
from tests.support.vfio.server_bench import Bench
from tests.support.vfio.vfiouser_rig import (
    GET_INFO,
    IRQ_INFO,
    REGION_INFO,
    REGION_READ,
    REGION_WRITE,
    RESET,
    SET_IRQS,
    RawClient,
)

BAR, CONFIG, REGIONS, KINDS = 0, 7, 9, 5
SIZES = {BAR: 4096, CONFIG: 256}
RESET_AND_PCI, EVENTFD_AND_NORESIZE = 3, 9
WRITABLE = {0x04: 0x46, 0x05: 0x05, 0x0C: 0xFF, 0x11: 0xF0, 0x12: 0xFF, 0x13: 0xFF, 0x3C: 0xFF}
"""The bits of each byte of the configuration space that a driver may set: a header of type 0 with one BAR of 4 KiB."""


def read(client: RawClient, region: int, offset: int, count: int) -> bytes:
    head = struct.pack("=QII", offset, region, count)
    error, answer = client.ask(REGION_READ, head)
    assert (error, answer[:16]) == (0, head)
    return answer[16:]


def write(client: RawClient, region: int, offset: int, data: bytes) -> None:
    head = struct.pack("=QII", offset, region, len(data))
    assert client.ask(REGION_WRITE, head + data) == (0, head)


def test_the_device_says_that_it_is_a_pci_device(bench: Bench) -> None:
    client = bench.one()
    asked = struct.pack("=IIII", 16, 0, 0, 0)
    assert client.ask(GET_INFO, asked) == (0, struct.pack("=IIII", 16, RESET_AND_PCI, REGIONS, KINDS))


def test_its_regions_are_the_configuration_space_and_one_bar(bench: Bench) -> None:
    client = bench.one()
    for index in range(REGIONS):
        size = SIZES.get(index, 0)
        answer = struct.pack("=IIIIQQ", 32, 3 if size else 0, index, 0, size, 0)
        assert client.ask(REGION_INFO, struct.pack("=IIIIQQ", 4096, 0, index, 0, 0, 0)) == (0, answer)


def test_it_has_no_interrupt_but_the_one_for_errors_which_can_be_set_up(bench: Bench) -> None:
    client = bench.one()
    for kind in range(KINDS):
        one = kind == 3
        answer = struct.pack("=IIII", 16, EVENTFD_AND_NORESIZE * one, kind, one)
        assert client.ask(IRQ_INFO, struct.pack("=IIII", 16, 0, kind, 0)) == (0, answer)
        for action in (8, 16, 32):
            assert client.ask(SET_IRQS, struct.pack("=IIIII", 20, 1 | action, kind, 0, 0)) == (0, b"")
        error = client.ask(SET_IRQS, struct.pack("=IIIII", 20, 4 | 32, kind, 0, 1))[0]
        assert error == (0 if one else errno.EINVAL)
    assert len(bench.told) == KINDS - 1


def test_the_header_is_one_of_type_0_and_names_the_device(bench: Bench) -> None:
    header = read(bench.one(), CONFIG, 0, 64)
    vendor, device, command, status, revision, interface, subclass, base = struct.unpack_from("<HHHHBBBB", header)
    assert (vendor, device, command, status, revision, interface) == (0x1AF4, 0x10F0, 0, 0, 0, 0)
    assert (base, subclass) == (0x08, 0x80)  # a system peripheral
    assert header[0x0E] == 0  # type 0, one function
    assert struct.unpack_from("<HH", header, 0x2C) == (0x1AF4, 0x10F0)
    assert header[0x34] == header[0x3D] == 0  # no capability, no interrupt


def test_the_bar_says_its_size_as_firmware_asks_and_where_it_was_put(bench: Bench) -> None:
    client = bench.one()
    write(client, CONFIG, 0x10, b"\xff" * 24)
    assert struct.unpack("<6I", read(client, CONFIG, 0x10, 24)) == (0xFFFFF000, 0, 0, 0, 0, 0)
    write(client, CONFIG, 0x10, struct.pack("<I", 0xFEB00000))
    assert read(client, CONFIG, 0x10, 4) == struct.pack("<I", 0xFEB00000)


def test_the_registers_show_the_state_of_the_migration_and_take_no_writes(bench: Bench) -> None:
    (where,) = bench.serve()
    vmm, migrating = bench.client(where), bench.client(where)
    size = 256 << 10
    for number, state in ((2, "RUNNING"), (3, "STOP_COPY"), (2, "RUNNING"), (4, "RESUMING")):
        assert migrating.go(state) == 0
        write(vmm, BAR, 0, b"\xff" * 16)
        assert read(vmm, BAR, 0, 16) == b"migp" + struct.pack("<IQ", number, size)
    assert read(vmm, BAR, 16, 4080) == bytes(4080)


def test_what_was_written_outlives_the_client_and_a_reset(bench: Bench) -> None:
    (where,) = bench.serve()
    client = bench.client(where)
    write(client, CONFIG, 0x3C, b"\x0b")
    client.close()
    client = bench.client(where)
    assert client.ask(RESET) == (0, b"")
    assert read(client, CONFIG, 0x3C, 2) == b"\x0b\0"


@pytest.mark.parametrize(
    ("command", "payload"),
    [
        (REGION_INFO, struct.pack("=IIIIQQ", 32, 0, REGIONS, 0, 0, 0)),
        (REGION_INFO, struct.pack("=IIIIQQ", 31, 0, 0, 0, 0, 0)),
        (REGION_INFO, bytes(31)),
        (IRQ_INFO, struct.pack("=IIII", 16, 0, KINDS, 0)),
        (IRQ_INFO, b""),
        (SET_IRQS, struct.pack("=IIIII", 20, 1 | 32, 0, 0, 1)),
        (SET_IRQS, struct.pack("=IIIII", 20, 1 | 32, 3, 0, 1)),
        (SET_IRQS, struct.pack("=IIIII", 20, 1 | 32, 0, 1, 0)),
        (SET_IRQS, struct.pack("=IIIII", 20, 1 | 8 | 32, 0, 0, 0)),
        (SET_IRQS, struct.pack("=IIIII", 20, 4 | 32, 3, 1, 1)),
        (SET_IRQS, struct.pack("=IIIII", 20, 4 | 32, 3, 0, 0xFFFFFFFF)),
        (SET_IRQS, struct.pack("=IIIII", 20, 1 | 32, 5, 0, 0)),
        (SET_IRQS, bytes(19)),
        (REGION_READ, struct.pack("=QII", 0, 1, 1)),
        (REGION_READ, struct.pack("=QII", 0, 1 << 31, 1)),
        (REGION_READ, struct.pack("=QII", 253, CONFIG, 4)),
        (REGION_READ, struct.pack("=QII", (1 << 64) - 1, CONFIG, 4)),
        (REGION_READ, struct.pack("=QII", 0, CONFIG, 0xFFFFFFFF)),
        (REGION_READ, struct.pack("=QII", 0, CONFIG, 4) + b"more"),
        (REGION_READ, bytes(15)),
        (REGION_WRITE, struct.pack("=QII", 253, CONFIG, 4) + b"what"),
        (REGION_WRITE, struct.pack("=QII", 0, CONFIG, 4) + b"wha"),
        (REGION_WRITE, struct.pack("=QII", 0, CONFIG, 4) + b"whats"),
        (REGION_WRITE, bytes(15)),
    ],
)
def test_a_request_that_is_wrong_is_refused_in_one_line_and_changes_nothing(
    command: int, payload: bytes, bench: Bench
) -> None:
    client = bench.one()
    before = read(client, CONFIG, 0, 256)
    assert client.ask(command, payload) == (errno.EINVAL, b"")
    assert len(bench.told) == 1
    assert bench.told[0].startswith("0000:01:00.0/vfio: ")
    assert bench.told[0].isprintable()
    assert read(client, CONFIG, 0, 256) == before


def function() -> PciFunction:
    state = DeviceState("d/vfio", DeviceProfile(300, 128), BaseBlock(1), False, SharedLock(), None, configured=False)
    return PciFunction(state, PciId(0x1234, 0xABCD))


@given(st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=80)), max_size=8))
def test_writes_set_the_bits_that_a_driver_may_set_and_no_other(writes: list[tuple[int, bytes]]) -> None:
    made = function()
    whole = struct.pack("=QII", 0, CONFIG, 256)
    wanted = bytearray(made.answers[REGION_READ](whole)[16:])
    for offset, data in writes:
        payload = struct.pack("=QII", offset, CONFIG, len(data)) + data
        if offset + len(data) > SIZES[CONFIG]:
            with pytest.raises(Refusal):
                made.answers[REGION_WRITE](payload)
            continue
        made.answers[REGION_WRITE](payload)
        for at, new in enumerate(data, offset):
            bits = WRITABLE.get(at, 0)
            wanted[at] = wanted[at] & ~bits | new & bits
    assert made.answers[REGION_READ](whole)[16:] == wanted
    assert wanted[:4] == struct.pack("<HH", 0x1234, 0xABCD)


@pytest.mark.parametrize("wrong", ["", "1af4", "1af4:", "1af4:10f00", "g:1", "0x1af4:1", "1af4:10f0\n"])
def test_numbers_that_are_none_are_one_line(wrong: str, tmp_path: Path) -> None:
    done = here("vfio", "serve", "tiny", "--socket", str(tmp_path / "s"), "--pci-id", wrong)
    assert (done.code, done.out) == (2, "")
    assert f"--pci-id is {wrong!r}: give vendor and device" in " ".join(done.err.split())
