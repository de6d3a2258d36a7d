"""Emulated VFIO devices for the tests: opened on either side, and gone, with their processes, when the test ends."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from migpool.device import DeviceContext, OptionValue, Side
from migpool_plugins.vfio import devices
from migpool_plugins.vfio.emulated import EmulatedVfioDevice
from tests.support.vfio.server_bench import Bench
from tests.support.vfio.vfio_rig import CHUNK, OpenSide, Saver


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wakes a device waits for its process as long as a busy machine needs."""
    monkeypatch.setattr("migpool_plugins.vfio.device.WAKE_PATIENCE", 60.0)


@pytest.fixture(params=["vfio-user", "descriptor"])
def transport(request: pytest.FixtureRequest) -> str:
    """The two ways in which an emulated device's state moves; what holds, holds for both."""
    way = request.param
    assert isinstance(way, str)
    return way


@pytest.fixture
def open_side(transport: str) -> Iterator[OpenSide]:
    opened: list[EmulatedVfioDevice] = []

    def open_one(
        side: Side,
        table: Mapping[str, OptionValue] | None = None,
        /,
        *,
        count: int = 1,
        seed: int = 1,
        **options: OptionValue,
    ) -> list[EmulatedVfioDevice]:
        asked = {"profile": "tiny", **(table or {}), **options}
        if not {"pollable", "precopy"} & asked.keys():
            asked = {"transport": transport, **asked}
        made = devices(DeviceContext(side, asked, count, seed))
        emulated = [device for device in made if isinstance(device, EmulatedVfioDevice)]
        opened.extend(emulated)
        assert len(emulated) == count
        return emulated

    yield open_one
    for device in opened:
        device.close()
    for device in opened:
        assert not Path(f"/proc/{device.process.pid}").exists()


@pytest.fixture
def buffer() -> memoryview:
    """A page-aligned buffer of 1 MiB, as migpool gives devices."""
    return memoryview(mmap.mmap(-1, 1 << 20))


@pytest.fixture
def save(buffer: memoryview) -> Saver:
    def save_one(device: EmulatedVfioDevice) -> list[bytes]:
        device.stop()
        chunks: list[bytes] = []
        while count := device.save_state(buffer):
            chunks.append(bytes(buffer[:count]))
        return chunks

    return save_one


@pytest.fixture
def tiny_chunks(open_side: OpenSide, save: Saver) -> list[bytes]:
    """The chunks of a tiny device with seed 1, whole: the device's process may be held up in the middle of one."""
    state = b"".join(save(open_side("source")[0]))
    assert len(state) == 4 * CHUNK
    return [state[at : at + CHUNK] for at in range(0, len(state), CHUNK)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as directory:
        made = Bench(Path(directory))
        yield made
        made.stop()
        assert list(made.directory.iterdir()) == []
