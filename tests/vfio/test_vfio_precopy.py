"""Devices that give state before they stop: initial bytes first, then dirty ones, and every byte is still checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from migpool.device import DeviceError, OptionValue, VerificationError
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool_plugins.vfio.emulated import EmulatedVfioDevice
from migpool_plugins.vfio.migration import MigrationState
from tests.support.rig import KIB, migrate
from tests.support.vfio.vfio_rig import CHUNK, Blocked, OpenSide, Saver

OPTIONS: dict[str, OptionValue] = {"precopy": True, "initial_size": CHUNK, "dirty_rate": "1MiB"}


@pytest.fixture
def transport() -> str:
    """Only vfio-user knows pre-copy."""
    return "vfio-user"


def precopied(device: EmulatedVfioDevice, buffer: memoryview, least: int) -> list[bytes]:
    """Read before the stop until so many bytes have come."""
    chunks: list[bytes] = []
    while sum(map(len, chunks)) < least:
        if device.pending().precopy:
            count = device.iterate(buffer)
            chunks.append(bytes(buffer[:count]))
    return chunks


def test_initial_bytes_come_first_and_dirty_ones_keep_appearing(open_side: OpenSide, buffer: memoryview) -> None:
    (device,) = open_side("source", OPTIONS)
    assert device.iterate(buffer) == 0
    device.save_setup()
    assert device.backend.state() is MigrationState.PRE_COPY
    assert device.pending().initial == CHUNK
    assert len(precopied(device, buffer, CHUNK)[0]) == CHUNK
    assert device.pending().initial == 0
    assert len(b"".join(precopied(device, buffer, 10_000))) >= 10_000
    device.quiesce()
    assert device.backend.state() is MigrationState.PRE_COPY_P2P
    assert device.pending() == device.pending()


def test_what_was_copied_before_and_after_the_stop_is_the_state(
    open_side: OpenSide, save: Saver, buffer: memoryview
) -> None:
    (source,), (destination,) = open_side("source", OPTIONS), open_side("destination", OPTIONS)
    destination.load_setup(source.save_setup())
    chunks = precopied(source, buffer, CHUNK + 20_000)
    source.quiesce()
    chunks += save(source)
    for chunk in chunks:
        destination.load_state(memoryview(chunk))
    destination.load_config(source.save_config())
    destination.wake()
    destination.start()
    destination.verify()
    assert sum(map(len, chunks)) > 4 * CHUNK
    assert source.fingerprint() == destination.fingerprint()


@pytest.mark.parametrize("left_out", [0, 1, -1])
def test_a_chunk_that_is_left_out_is_found(left_out: int, open_side: OpenSide, save: Saver, buffer: memoryview) -> None:
    (source,), (destination,) = open_side("source", OPTIONS), open_side("destination", OPTIONS)
    destination.load_setup(source.save_setup())
    chunks = precopied(source, buffer, CHUNK + 5000) + save(source)
    config = source.save_config()
    del chunks[left_out]

    def load() -> None:
        for chunk in chunks:
            destination.load_state(memoryview(chunk))
        destination.load_config(config)

    words = "state is incomplete" if left_out == -1 else "what came there belongs at byte|content differs"
    with pytest.raises(VerificationError, match=words):
        load()


def test_a_byte_that_changed_among_dirty_ones_is_found(open_side: OpenSide, buffer: memoryview) -> None:
    (source,), (destination,) = open_side("source", OPTIONS), open_side("destination", OPTIONS)
    destination.load_setup(source.save_setup())
    chunks = precopied(source, buffer, CHUNK + 5000)
    for chunk in chunks[:-1]:
        destination.load_state(memoryview(chunk))
    wrong = bytearray(chunks[-1])
    wrong[-1] ^= 1
    with pytest.raises(VerificationError, match="content differs at byte"):
        destination.load_state(memoryview(wrong))


def test_a_cancelled_precopy_leaves_a_device_that_can_be_saved_whole(
    open_side: OpenSide, save: Saver, buffer: memoryview, tiny_chunks: list[bytes]
) -> None:
    (device,) = open_side("source", OPTIONS)
    device.save_setup()
    precopied(device, buffer, CHUNK + 1000)
    device.abort()
    device.wake()
    device.resume()
    assert device.backend.state() is MigrationState.RUNNING
    assert save(device) == tiny_chunks


def test_a_stalled_precopy_read_is_ended_by_abort(open_side: OpenSide, buffer: memoryview) -> None:
    (device,) = open_side("source", OPTIONS, fault={"at": 0, "kind": "stall"})
    device.save_setup()
    blocked = Blocked(lambda: device.iterate(buffer))
    device.abort()
    assert str(blocked.ended()) == "the device's work was aborted"
    device.wake()
    device.resume()
    assert device.backend.state() is MigrationState.RUNNING


def test_a_whole_migration_loads_the_initial_data_before_the_stop(open_side: OpenSide, tmp_path: Path) -> None:
    source, destination = open_side("source", OPTIONS, count=3), open_side("destination", OPTIONS, count=3)
    settings = Settings(channels=2, chunk=64 * KIB, budget=256 * KIB, peer_limit=20)
    sent, got = migrate(tmp_path, source, destination, settings=settings)
    assert (sent.error, got.error) == ("", "")
    assert (sent.outcome, got.outcome) == (State.COMPLETED, State.COMPLETED)


def test_a_descriptor_cannot_precopy(open_side: OpenSide) -> None:
    with pytest.raises(DeviceError, match='precopy is True: use it with transport "vfio-user"'):
        open_side("source", OPTIONS, transport="descriptor")
