"""State that crosses in memory which the device process shares, instead of in messages; and who has no such memory."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.device import OptionValue
from migpool_plugins.memory import Memory, shared_file
from migpool_plugins.vfio.content import BaseBlock
from migpool_plugins.vfio.migration import MigrationState
from migpool_plugins.vfio.profiles import PAGE, PROFILES, DeviceProfile
from migpool_plugins.vfio.state import DeviceState
from migpool_plugins.vfio.transfer import READ_ALLOWANCE, WRITE_ALLOWANCE, Refusal, SharedLock
from migpool_plugins.vfio.vfiouser.connection import Connection
from migpool_plugins.vfio.vfiouser.message import UserCommand
from tests.support.vfio.server_bench import Bench
from tests.support.vfio.vfio_rig import OpenSide, Saver

MIB = 1 << 20
PLACED_READ, PLACED_WRITE = 0xFF03, 0xFF04


@pytest.fixture
def transport() -> str:
    """Only vfio-user has messages that could carry it."""
    return "vfio-user"


@contextmanager
def made(source: bool, profile: DeviceProfile = PROFILES["tiny"]) -> Iterator[DeviceState]:
    device = DeviceState("d", profile, BaseBlock(1), source, SharedLock(), None)
    try:
        yield device
    finally:
        device.reset()
        if device.memory >= 0:
            os.close(device.memory)


def test_a_chunk_that_no_message_could_carry_is_read_and_written_at_once(open_side: OpenSide) -> None:
    size: dict[str, OptionValue] = {"size": 11 * MIB + 5, "chunk": 5 * MIB}
    (source,), (destination,) = open_side("source", size), open_side("destination", size)
    destination.load_setup(source.save_setup())
    source.stop()
    room = memoryview(bytearray(6 * MIB))
    lengths = []
    while count := source.save_state(room):
        lengths.append(count)
        destination.load_state(room[:count])
    assert lengths == [5 * MIB, 5 * MIB, MIB + 5]
    destination.load_config(source.save_config())
    destination.start()
    destination.verify()
    assert source.fingerprint() == destination.fingerprint()


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("cut", [1, 4095, 65_537, 200_000])
def test_writes_of_any_length_are_put_where_they_belong(
    cut: int, readonly: bool, open_side: OpenSide, save: Saver
) -> None:
    (source,), (destination,) = open_side("source"), open_side("destination")
    state = b"".join(save(source))
    destination.load_setup(b"")
    begin = 3 * cut  # a few of that length, and the rest at once
    for part in (*(state[at : at + cut] for at in range(0, min(begin, len(state)), cut)), state[begin:]):
        if part:
            destination.load_state(memoryview(part if readonly else bytearray(part)))
    destination.load_config(source.save_config())
    assert source.fingerprint() == destination.fingerprint()


def test_bytes_that_were_put_elsewhere_are_refused_and_what_failed_before_is_said_first() -> None:
    with made(source=False) as device:
        device.set_state(MigrationState.RESUMING)
        loading = device.loading()
        with pytest.raises(Refusal, match="the bytes were put at 4096, but 0 have come"):
            loading.write_placed(4096, 4096, 0.0, 0.0)
        said = []
        for at in (0, 8192):
            loading.write_placed(at, 4096, 0.0, 0.0)  # taken, and found to be none of the state's
            error = loading.error
            assert error is not None
            said.append(error.text)
        assert said[0].startswith("content differs at byte ")
        assert said[1] == said[0]


class Clock:
    """CLOCK_MONOTONIC as the device process sees it; it moves when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def paced(source: bool) -> Iterator[tuple[DeviceState, Clock]]:
    """A device of eight chunks of a page, each of which takes ``COST``, and its clock."""
    clock = Clock()
    with made(source, PACED) as device, pytest.MonkeyPatch.context() as patch:
        for module in ("transfer", "transferkinds"):
            patch.setattr(f"migpool_plugins.vfio.{module}.time", clock)
        yield device, clock


COST = 2e-6
PACED = DeviceProfile(size=8 * PAGE, chunk=PAGE, read_latency=COST, write_latency=COST)
SECONDS = st.floats(0, 0.05)


def test_a_write_is_late_by_what_its_caller_takes_and_not_by_what_the_device_process_does() -> None:
    with made(source=True, profile=PACED) as source:
        state = os.pread(source.memory, PACED.size, 0)

    @given(delays=st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=8, max_size=8))
    def property_of(delays: list[tuple[float, float, float]]) -> None:
        with paced(source=False) as (device, clock):
            os.pwrite(device.memory, state, 0)
            device.set_state(MigrationState.RESUMING)
            loading = device.loading()
            returned, due = 0.0, clock.now
            for number, (callers, process, way_back) in enumerate(delays):
                called = clock.now = clock.now + callers
                assert loading.write_placed(number * PAGE, PAGE, called, returned)
                due += callers + COST
                assert loading.pacer.due == pytest.approx(due, rel=0, abs=1e-9)
                clock.now = loading.pacer.due + process
                loading.answered()
                returned = clock.now = clock.now + way_back
                due += max(0.0, way_back - WRITE_ALLOWANCE)
            assert loading.error is None

    property_of()


@given(delays=st.lists(st.tuples(SECONDS, SECONDS), min_size=8, max_size=8))
def test_a_read_is_late_by_when_it_was_called_and_not_by_when_the_device_process_heard_of_it(
    delays: list[tuple[float, float]],
) -> None:
    with paced(source=True) as (device, clock):
        device.set_state(MigrationState.STOP_COPY)
        saving = device.saving()
        called = handed_over = due = clock.now
        for callers, process in delays:
            called += callers
            clock.now = called + process
            assert saving.take(PAGE) == [(saving.offset - PAGE, PAGE)]
            saving.given(called)
            due = max(due, handed_over - READ_ALLOWANCE) + COST
            handed_over = max(called, due)
            assert saving.pacer.due == pytest.approx(due, rel=0, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "shared"),
    [({}, True), ({"transport": "descriptor"}, False), ({"engines": 2}, False)],
    ids=["vfio-user", "descriptor", "engines"],
)
def test_only_a_device_whose_data_cross_in_it_has_shared_memory(changes: dict[str, object], shared: bool) -> None:
    profile = DeviceProfile(size=8192, chunk=4096, **changes)  # type: ignore[arg-type]
    for source in (True, False):
        with made(source, profile) as device:
            assert (device.memory >= 0) is shared


def test_the_device_process_is_believed_where_it_has_brought_the_device(
    open_side: OpenSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    (device,) = open_side("source")
    device.save_setup()
    asked: list[str] = []
    ask = Connection.ask

    def noting(connection: Connection, what: UserCommand, payload: bytes, name: str, refused: str) -> bytes:
        asked.append(name)
        return ask(connection, what, payload, name, refused)

    monkeypatch.setattr(Connection, "ask", noting)
    device.stop()
    assert asked == ["set-state"]
    assert device.backend.state() is MigrationState.STOP_COPY


@pytest.mark.parametrize("state", ["RUNNING", "STOP_COPY", "RESUMING"])
def test_a_client_of_a_server_gets_no_memory(state: str, bench: Bench) -> None:
    client = bench.one()
    client.go(state)
    assert client.ask(PLACED_READ, struct.pack("=II", 8 + 100, 100)) == (errno.ENOTSUP, b"")
    assert client.ask(PLACED_WRITE, struct.pack("=QQdd", 0, 100, 0.0, 0.0)) == (errno.ENOTSUP, b"")
    assert client.state == state


def test_memory_that_is_shared_is_the_same_at_both_ends_and_keeps_its_size() -> None:
    ours = Memory(10_000, resident=True, descriptor=shared_file(10_000))
    theirs = Memory(10_000, descriptor=os.dup(ours.descriptor))
    ours.put(9_000, memoryview(b"from ours "))
    theirs.put(9_010, memoryview(bytearray(b"and from theirs")))
    came = memoryview(bytearray(25))
    theirs.get(9_000, came)
    assert bytes(came) == b"from ours and from theirs" == bytes(ours.view[9_000:9_025])
    for size in (0, 20_000):
        with pytest.raises(PermissionError):
            os.ftruncate(theirs.descriptor, size)
    for memory in (ours, theirs):
        memory.close()
        assert memory.descriptor == -1
        with pytest.raises(ValueError, match="closed"):
            memory.get(0, came)


@pytest.mark.parametrize(("at", "length"), [(0, 10_001), (9_999, 2), (10_000, 1), (0, 0)])
def test_no_byte_beyond_the_memory_is_copied(at: int, length: int) -> None:
    memory = Memory(10_000)
    for data in (memoryview(bytearray(length)), memoryview(bytes(length))):
        with pytest.raises(ValueError, match=f"{length} bytes at {at} are no part of 10000 bytes of memory"):
            memory.put(at, data)
    with pytest.raises(ValueError, match="no part of"):
        memory.get(at, memoryview(bytearray(length)))
    memory.close()


@pytest.mark.parametrize(("late", "over"), [(0.0, 0.07), (0.03, 0.07), (0.5, 0.5)])
def test_a_config_is_loaded_from_when_that_was_asked_for(late: float, over: float) -> None:
    """That the request came late to the device process makes the device no slower."""
    profile = replace(PACED, load_config_time=0.07)
    with made(source=True, profile=profile) as source:
        state = os.pread(source.memory, profile.size, 0)
        source.set_state(MigrationState.STOP_COPY)
        source.saving().take(profile.size)
        config = source.save_config()
    clock = Clock()
    with made(source=False, profile=profile) as device, pytest.MonkeyPatch.context() as patch:
        patch.setattr("migpool_plugins.vfio.state.time", clock)
        os.pwrite(device.memory, state, 0)
        device.set_state(MigrationState.RESUMING)
        device.loading().write_placed(0, profile.size, 0.0, 0.0)
        called = clock.now
        clock.now += late
        device.load_config(config, called)
        assert clock.now - called == pytest.approx(over)
