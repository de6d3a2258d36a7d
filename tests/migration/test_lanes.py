"""One device on several threads: read by one at a time, sent while the next chunk is read, under every model."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.device import DeviceError
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.pool import PoolScheduler
from tests.support.rig import KIB, LIMIT, MODELS, Models, Pair, Scripted, contents, migrate

SETTINGS = Settings(channels=2, chunk=4 * KIB, budget=64 * KIB, peer_limit=5, in_flight=3)


class Alone(Scripted):
    """A device that says whether two of its calls were ever under way at the same time."""

    def __init__(self, number: int, state: bytes) -> None:
        super().__init__(number, state)
        self._inside = threading.Lock()
        self.together = False

    def save_state(self, buffer: memoryview) -> int:
        alone = self._inside.acquire(blocking=False)
        self.together |= not alone
        try:
            return super().save_state(buffer)
        finally:
            if alone:
                self._inside.release()


@pytest.mark.parametrize("workers", [(None, None), (1, 1), (4, 2)])
@pytest.mark.parametrize("models", MODELS)
def test_the_state_arrives_whole_and_in_order(
    tmp_path: Path, models: Models, workers: tuple[int | None, int | None]
) -> None:
    """Also of a device that has no state at all, one chunk, or fewer chunks than jobs."""
    sizes = [0, 1, 4 * KIB, 9 * KIB, 70 * KIB]
    source = [Alone(number, contents(size, number)) for number, size in enumerate(sizes)]
    source[4].in_flight = 5
    destination = [Scripted(number) for number in range(len(sizes))]
    sent, got = migrate(tmp_path, source, destination, settings=SETTINGS, models=models, workers=workers)
    assert not sent.error, sent.error
    assert sent.outcome is State.COMPLETED
    assert [bytes(device.got) for device in destination] == [bytes(device.state) for device in source]
    assert [device.got_config for device in destination] == [device.config for device in source]
    assert [report.bytes - report.config for report in sent.devices] == sizes
    assert not any(device.together for device in source)
    assert all(device.calls.count("save_config") == 1 for device in source)
    assert got.high_water <= 64 * KIB


def test_a_chunk_is_read_while_the_one_before_is_being_sent(tmp_path: Path) -> None:
    """The destination takes nothing for as long as the source has not read the next chunk."""
    next_is_read = threading.Event()
    source, destination = Scripted(0, contents(6 * 64 * KIB)), Scripted(0)
    reads: list[None] = []

    def note() -> None:
        reads.append(None)
        if len(reads) == 3:
            next_is_read.set()

    source.before["save_state"] = note
    destination.before["load_state"] = lambda: None if next_is_read.wait(LIMIT) else pytest.fail("not read ahead")
    # One room: the second chunk cannot be sent before the first is loaded.
    settings = replace(SETTINGS, chunk=64 * KIB, budget=64 * KIB, in_flight=2)
    sent, _ = migrate(tmp_path, [source], [destination], settings=settings, models=(PerDeviceScheduler, PoolScheduler))
    assert not sent.error, sent.error
    assert destination.got == source.state


@pytest.mark.parametrize("models", MODELS)
def test_a_read_that_fails_ends_the_other_jobs_of_the_device(tmp_path: Path, models: Models) -> None:
    source, destination = [Scripted(0, contents(40 * KIB)), Scripted(1, contents(40 * KIB))], [Scripted(0), Scripted(1)]
    reads: list[None] = []

    def fifth() -> None:
        reads.append(None)
        if len(reads) == 5:
            raise DeviceError("told to fail")

    source[1].before["save_state"] = fifth
    sent, _ = migrate(tmp_path, source, destination, settings=SETTINGS, models=models)
    assert sent.error == "device-1, chunk 4: told to fail"
    assert sent.outcome is State.FAILED
    assert all(device.running for device in source)


@pytest.mark.parametrize("models", MODELS)
def test_a_cancel_ends_who_waits_for_a_turn(tmp_path: Path, models: Models) -> None:
    source, destination = Scripted(0, contents(40 * KIB)), Scripted(0)
    reached = threading.Event()
    source.block_in("save_state", reached)
    sent, _ = Pair([source], [destination], settings=SETTINGS, models=models).cancelled_at(tmp_path, reached)
    assert sent.outcome is State.CANCELLED
    assert source.running
