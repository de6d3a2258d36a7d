"""The pace of a device: deadlines that do not drift, no earlier than the profile says, and the shared lock."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import select
import time

import pytest

from migpool.device import OptionValue
from migpool_plugins.vfio.emulated import EmulatedVfioDevice
from migpool_plugins.vfio.profiles import PROFILES
from migpool_plugins.vfio.transfer import Cancel, Pacer, SharedLock
from tests.support.vfio.vfio_rig import CHUNK, LIMIT, Blocked, OpenSide, Saver


def read_at_once(devices: list[EmulatedVfioDevice]) -> list[list[tuple[float, float]]]:
    """Read all devices at the same time, a thread each; returns the device process's record of each."""
    states: dict[str, int] = {}

    def read(device: EmulatedVfioDevice) -> None:
        room = memoryview(bytearray(1 << 20))
        while count := device.save_state(room):
            states[device.idstr] = states.get(device.idstr, 0) + count

    for device in devices:
        device.stop()
    reading = [Blocked(functools.partial(read, device)) for device in devices]
    for call in reading:
        assert call.ended() is None
    assert set(states.values()) == {4 * CHUNK}
    return [device.record() for device in devices]


def overlaps(records: list[list[tuple[float, float]]]) -> int:
    """How many pieces of work began before the one that began before them had ended."""
    pieces = sorted(piece for record in records for piece in record)
    return sum(later[0] < earlier[1] for earlier, later in itertools.pairwise(pieces))


def test_oversleeping_does_not_move_the_deadlines() -> None:
    pacer = Pacer(latency=1e-4, rate=1e7, shared=None, cancelled=Cancel())
    began = pacer.due = time.monotonic()
    for _ in range(10):
        pacer.work(1000, pacer.due)
    assert pacer.due - began == pytest.approx(10 * 2e-4)
    assert pacer.record[-1][1] >= pacer.due


def test_without_rate_and_latency_nothing_waits() -> None:
    pacer = Pacer(latency=0.0, rate=0.0, shared=None, cancelled=Cancel())
    pacer.work(1 << 30, 5.0)
    assert pacer.due == 5.0


def test_a_cancelled_wait_ends_and_gives_the_lock_back() -> None:
    cancelled = Cancel()
    shared = SharedLock()
    waiting = Blocked(lambda: Pacer(600.0, 0.0, shared, cancelled).work(1, time.monotonic()))
    assert shared.lock.locked()
    cancelled.set()
    assert waiting.ended() is None
    assert not shared.lock.locked()
    assert shared.free_at <= time.monotonic()


def test_work_under_a_shared_lock_begins_when_the_holder_before_was_due() -> None:
    shared = SharedLock()
    first, second = (Pacer(1e-3, 0.0, shared, Cancel()) for _ in range(2))
    began = time.monotonic()
    for pacer in (first, second, first, second):
        pacer.work(1, began)
    assert second.due - began == pytest.approx(4e-3)


def test_a_read_is_never_faster_than_the_profile(open_side: OpenSide) -> None:
    (device,) = open_side("source", read_latency="2ms", read_rate="64MiB/s")
    began = time.monotonic()
    (record,) = read_at_once([device])
    assert len(record) == 4
    assert record[-1][1] - began >= 4 * (2e-3 + 1 / 1024) - 1e-4


def test_a_write_returns_no_earlier_than_the_profile_says(open_side: OpenSide, tiny_chunks: list[bytes]) -> None:
    (device,) = open_side("destination", write_latency="3ms", write_rate="64MiB")
    device.load_setup(b"")
    began = time.monotonic()
    for chunk in tiny_chunks:
        device.load_state(memoryview(chunk))
    assert time.monotonic() - began >= 4 * (3e-3 + 1 / 1024)


@pytest.mark.parametrize("use", ["read", "both"])
def test_a_shared_lock_makes_reads_take_turns(use: str, open_side: OpenSide) -> None:
    devices = open_side("source", count=3, read_latency="3ms", shared_lock=use)
    assert overlaps(read_at_once(devices)) == 0


@pytest.mark.parametrize("use", ["", "write"])
def test_without_a_lock_on_reads_they_overlap(use: str, open_side: OpenSide) -> None:
    devices = open_side("source", count=3, read_latency="150ms", shared_lock=use)
    assert overlaps(read_at_once(devices)) > 0


@pytest.mark.parametrize(("use", "overlapping"), [("write", False), ("", True)])
def test_a_shared_lock_makes_writes_take_turns(use: str, overlapping: bool, open_side: OpenSide, save: Saver) -> None:
    # Long enough that on a busy machine, too, the second thread begins before the first one has ended.
    options: dict[str, OptionValue] = {"write_latency": "150ms", "shared_lock": use}
    states = [save(device) for device in open_side("source", count=2)]
    devices = open_side("destination", options, count=2)
    for device in devices:
        device.load_setup(b"")

    def write(device: EmulatedVfioDevice, state: list[bytes]) -> None:
        for chunk in state:
            device.load_state(memoryview(chunk))

    pairs = zip(devices, states, strict=True)
    writing = [Blocked(functools.partial(write, device, state)) for device, state in pairs]
    for call in writing:
        assert call.ended() is None
    assert (overlaps([device.record() for device in devices]) > 0) is overlapping


def test_a_device_is_at_most_one_chunk_ahead_of_its_reader(open_side: OpenSide, buffer: memoryview) -> None:
    chunk = 1 << 20
    (device,) = open_side("source", size=8 * chunk, chunk=chunk, pollable=True)
    device.stop()
    descriptor = device.poll_fd()
    assert descriptor is not None
    for taken in range(1, 5):
        assert device.save_state(buffer) == chunk
        select.select([descriptor], [], [], LIMIT)
        assert len(device.record()) <= taken + 1


def test_the_default_profile_is_the_documented_network_function(open_side: OpenSide) -> None:
    profile = PROFILES["network-function"]
    (device,) = open_side("source", profile="network-function")
    assert dataclasses.replace(device.profile, transport="vfio-user") == profile
    assert (profile.size, profile.chunk, profile.chunks) == (64 << 20, 1 << 20, 64)
    assert device.costs().read == pytest.approx(64 * 100e-6 + 64 / 400)
    assert device.costs().load_config == 0.07


def test_there_is_no_descriptor_until_the_device_has_stopped(open_side: OpenSide, buffer: memoryview) -> None:
    (device,) = open_side("source", pollable=True)
    assert device.poll_fd() is None
    device.save_setup()
    assert device.poll_fd() is None
    device.stop()
    descriptor = device.poll_fd()
    assert descriptor is not None
    for expected in [CHUNK] * 4 + [0]:
        assert select.select([descriptor], [], [], LIMIT)[0] == [descriptor]
        assert device.save_state(buffer) == expected
    assert os.get_blocking(descriptor)
