"""A stream with vCPUs says what every value in it is: ``migpool inspect`` prints them by name, with no other source."""

from __future__ import annotations

from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.device import Device, DeviceContext
from migpool.migration.sections import counted, describe
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.events import eof, header, vm_description
from migpool_plugins.vcpu import devices
from migpool_plugins.vcpu.program import start_value
from migpool_plugins.vcpu.proof import after
from tests.support.commandline import here
from tests.support.wire_bytes import section_full, section_start

LIMIT = 60
SEED = 7


def stream_of(made: list[Device]) -> bytes:
    """What a source writes to the main channel; the description is made while the vCPUs run."""
    parts = [header(), configuration(Configuration("made-up"))]
    for number, device in enumerate(made):
        if data := device.save_setup():
            parts += map(bytes, section_start(number, device.idstr, counted(data), instance_id=device.instance_id))
    description = describe("made-up", Machine("made-up", made).sections)
    for device in made:
        device.stop()
    for number, device in enumerate(made):
        section = section_full(
            number,
            device.idstr,
            [device.save_config()],
            instance_id=device.instance_id,
            version=device.version,
        )
        parts += map(bytes, section)
    return b"".join([*parts, eof(), *map(bytes, vm_description(description))])


def inspected(stream: bytes, tmp_path: Path) -> str:
    file = tmp_path / "vm.mig"
    file.write_bytes(stream)
    ended = here("inspect", str(file), "--device", "vcpu*")
    assert (ended.code, ended.err) == (0, "")
    return ended.out


@pytest.fixture
def printed(backend: str, tmp_path: Path) -> str:
    made = devices(DeviceContext("source", {"backend": backend}, 2, SEED))
    try:
        return inspected(stream_of(made), tmp_path)
    finally:
        for device in made:
            device.close()


def value(text: str, name: str) -> int:
    """The first value of that name."""
    return next(int(line.split()[1], 16) for line in text.splitlines() if line.split()[:1] == [name])


def test_every_value_is_printed_by_name(printed: str, backend: str) -> None:
    vcpus = printed.split("\nvcpu")
    assert len(vcpus) == 3, "two vCPUs and what they share"
    second = vcpus[1]
    x, checksum = after(start_value(SEED, 1), value(second, "rcx"))
    assert (value(second, "rax"), value(second, "xmm0_low")) == (x, checksum)
    parts = {"vcpu/tsc", "vcpu/xcrs", "vcpu/lapic", "vcpu/msrs", "vcpu/mp_state", "vcpu/vcpu_events", "vcpu/debugregs"}
    found = {line.strip() for line in printed.splitlines()}
    assert parts <= found if backend == "kvm" else not parts & found
    board = {"vcpu-board/pic_master", "vcpu-board/ioapic", "vcpu-board/pit", "vcpu-board/clock"}
    assert board <= found if backend == "kvm" else not board & found
