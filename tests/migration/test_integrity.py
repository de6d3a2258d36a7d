"""What is changed or lost on the way is found, and named by device and chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.device import Device, DeviceContext
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool_plugins.vfio import devices as vfio_devices
from tests.support.rig import KIB, LIMIT, Pair, Scripted
from tests.support.tampering import Line, Tamper

SETTINGS = Settings(channels=2, chunk=64 * KIB, budget=512 * KIB, peer_limit=3)
PATIENT = replace(SETTINGS, peer_limit=LIMIT)  # the source's, so that it is the destination that finds what is missing
OPTIONS = {"profile": "tiny", "chunk": "64KiB"}


class Digested(Scripted):
    """A device whose fingerprint is its config."""

    def fingerprint(self) -> bytes:
        return self.got_config or self.config


Through = Callable[[Tamper], tuple[SideReport, SideReport]]


@pytest.fixture
def both() -> Iterator[tuple[list[Device], list[Device]]]:
    """Two emulated VFIO devices at each end."""
    made = [list(vfio_devices(DeviceContext(side, OPTIONS, count=2, seed=7))) for side in ("source", "destination")]
    yield made[0], made[1]
    for device in (*made[0], *made[1]):
        device.close()


@pytest.fixture
def through(both: tuple[list[Device], list[Device]], tmp_path: Path) -> Through:
    def run(tamper: Tamper) -> tuple[SideReport, SideReport]:
        line = Line(tmp_path / "line", tamper)
        try:
            return Pair(*both, PATIENT, SETTINGS, through=line).run(tmp_path)
        finally:
            line.close()

    return run


def second_name(both: tuple[list[Device], list[Device]]) -> str:
    return both[0][1].idstr


def test_untouched_it_completes(through: Through) -> None:
    sent, got = through(lambda _idstr, _index, payload: payload)
    assert (sent.error, got.error) == ("", "")
    assert [device.verified for device in sent.devices] == [True, True]


@pytest.mark.parametrize("index", [0, 2, 3])
@pytest.mark.parametrize("at", [0, 31_337, 65_535])
def test_a_flipped_byte_names_device_and_chunk(
    through: Through, both: tuple[list[Device], list[Device]], index: int, at: int
) -> None:
    name = second_name(both)

    def flip(idstr: str, chunk: int, payload: bytes) -> bytes:
        if (idstr, chunk) != (name, index):
            return payload
        return payload[:at] + bytes([payload[at] ^ 0x40]) + payload[at + 1 :]

    sent, got = through(flip)
    assert got.outcome is sent.outcome is State.FAILED
    assert got.error.startswith(f"{name}, chunk {index}: ")
    assert str(index * 65_536 + at) in got.error
    assert sent.error == f"the destination failed: {got.error}"


@pytest.mark.parametrize("index", [0, 1, 3])
def test_a_chunk_left_out_is_named(through: Through, both: tuple[list[Device], list[Device]], index: int) -> None:
    name = second_name(both)
    sent, got = through(lambda idstr, chunk, payload: None if (idstr, chunk) == (name, index) else payload)
    assert got.outcome is sent.outcome is State.FAILED
    assert got.error.startswith(f"{name}: chunk {index} has not come")
    assert name in sent.error


def test_a_config_left_out_is_named(through: Through, both: tuple[list[Device], list[Device]]) -> None:
    name = second_name(both)
    sent, got = through(lambda idstr, chunk, payload: None if (idstr, chunk) == (name, 4) else payload)
    assert got.error.startswith(f"{name}: chunk 4 has not come")
    assert sent.outcome is State.FAILED


def test_a_flipped_byte_in_a_config_names_the_device(through: Through, both: tuple[list[Device], list[Device]]) -> None:
    name = second_name(both)

    def flip(idstr: str, chunk: int, payload: bytes) -> bytes:
        return payload if (idstr, chunk) != (name, 4) else payload[:9] + bytes([payload[9] ^ 1]) + payload[10:]

    _, got = through(flip)
    assert got.outcome is State.FAILED
    assert got.error.startswith(name)


def test_a_flipped_byte_in_a_section_names_the_device(both: tuple[list[Device], list[Device]], tmp_path: Path) -> None:
    line = Line(tmp_path / "line", main=lambda data: data.replace(b"config of plain-9", b"config of plain-8"))
    source, destination = Digested(9, None, name="plain"), Digested(9, None, name="plain")
    try:
        sent, _ = Pair([*both[0], source], [*both[1], destination], PATIENT, SETTINGS, through=line).run(tmp_path)
    finally:
        line.close()
    assert sent.outcome is State.UNCONFIRMED
    assert sent.error.endswith("its state is not what was sent: plain-9")
