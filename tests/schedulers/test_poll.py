"""``poll``: one thread for all devices that can be polled, and the truth about those that cannot."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Wait
from migpool.core.machine import Machine
from migpool.core.threads import ThreadGroup
from migpool.errors import Cancelled
from migpool.migration.report import SideReport
from migpool.migration.save_handlers import Gates
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.scenario.model_syntax import parse_model
from migpool.scenario.schema import parse_scenario
from migpool.schedulers.lane import Lane
from migpool.schedulers.poller import Poller
from tests.support.rig import KIB, LIMIT, Pair, Scripted, contents

CHUNK = 16 * KIB


class Fed(Scripted):
    """A device whose state comes out of a socket that a test feeds."""

    def __init__(self, number: int, state: bytes) -> None:
        super().__init__(number, state)
        self.ours, self.theirs = socket.socketpair()
        self.readers: set[str] = set()

    def poll_fd(self) -> int | None:
        return self.ours.fileno()

    def save_state(self, buffer: memoryview) -> int:
        self.readers.add(threading.current_thread().name)
        self._called("save_state")
        return self.ours.recv_into(buffer)

    def abort(self) -> None:
        super().abort()
        self.ours.shutdown(socket.SHUT_RDWR)

    def feed(self, piece: int = 0) -> None:
        """Give the state from ``piece`` on, and then the end."""
        self.theirs.sendall(self.state[piece:])
        self.theirs.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


class Odd(Scripted):
    """A device with all its state at hand, and a descriptor of the test's choice."""

    def __init__(self, number: int, state: bytes, descriptor: Callable[[], int | None], wait: float = 0) -> None:
        super().__init__(number, state, piece=CHUNK // 4)
        self._descriptor = descriptor
        self._wait = wait
        self.readers: list[str] = []

    def poll_fd(self) -> int | None:
        return self._descriptor()

    def save_state(self, buffer: memoryview) -> int:
        self.readers.append(threading.current_thread().name)
        if self._wait:
            self._aborted.wait(self._wait)
        return super().save_state(buffer)


@pytest.fixture
def devices() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def migrate(folder: Path, source: list[Scripted], model: str = "poll", **how: object) -> tuple[SideReport, Pair]:
    pair = prepared(folder, source, model, **how)
    sent, received = pair.go()
    assert (sent.outcome, received.outcome) == (State.COMPLETED, State.COMPLETED), (sent.error, received.error)
    assert [bytes(device.got) for device in pair.destination] == [device.state for device in source]  # type: ignore[attr-defined]
    return sent, pair


def prepared(folder: Path, source: list[Scripted], model: str, **how: object) -> Pair:
    parsed = parse_model(model)
    pair = Pair(
        source,
        [Scripted(number) for number in range(len(source))],
        models=(parsed.source.scheduler, parsed.destination.scheduler),
        workers=(parsed.source.workers, parsed.destination.workers),
        **how,  # type: ignore[arg-type]
    )
    pair.prepare(folder)
    return pair


@pytest.mark.parametrize("model", ["poll", "poll+receiver", "poll+pool:1", "poll+inline", "poll:1"])
def test_one_thread_reads_all_devices_that_can_be_polled(tmp_path: Path, devices: ExitStack, model: str) -> None:
    source = [Fed(number, contents(5 * CHUNK + number, seed=number)) for number in range(12)]
    for device in source:
        devices.callback(device.close)
    # The last device's state is there first: whoever waits for the first one alone never comes to it.

    def feed() -> None:
        for device in reversed(source):
            device.feed()

    feeder = threading.Thread(target=feed)
    feeder.start()
    sent, _ = migrate(tmp_path, list(source), model)
    feeder.join(LIMIT)
    assert {name for device in source for name in device.readers} == {"poll"}
    assert sent.remarks == ()
    # The caller, the return path, the thread that polls, the one for the big lock.
    assert sent.threads_peak <= 4


def test_two_polls_with_one_worker_each_get_devices_through_that_cannot_be_polled(tmp_path: Path) -> None:
    source = [Scripted(number, contents(3 * CHUNK, seed=number), piece=CHUNK // 2) for number in range(6)]
    sent, _ = migrate(tmp_path, source, "poll:1")
    (remark,) = sent.remarks
    assert remark.startswith("6 of 6 devices not polled, since they have no descriptor to poll: device-")
    assert remark.endswith(" and others")


def broken() -> int | None:
    raise ZeroDivisionError("by zero")


def test_what_cannot_be_polled_is_read_by_a_worker_and_named_with_the_reason(
    tmp_path: Path, devices: ExitStack
) -> None:
    regular = devices.enter_context((tmp_path / "state").open("wb"))
    fed = Fed(0, contents(4 * CHUNK))
    devices.callback(fed.close)
    fed.feed()
    state = contents(2 * CHUNK)
    source: list[Scripted] = [
        fed,
        Odd(1, state, lambda: None),
        Odd(2, state, regular.fileno),
        Odd(3, state, lambda: 1 << 20),
        Odd(4, state, broken),
        Odd(5, state, fed.poll_fd),
    ]
    sent, _ = migrate(tmp_path, source)
    assert list(sent.remarks) == [
        f"1 of 6 devices not polled, since they {reason}: {name}"
        for reason, name in [
            ("have no descriptor to poll", "device-1"),
            ("have a descriptor that epoll refuses (Operation not permitted)", "device-2"),
            ("have a descriptor that epoll refuses (Bad file descriptor)", "device-3"),
            ("fail when they are asked for a descriptor (ZeroDivisionError: by zero)", "device-4"),
            ("share their descriptor with another device", "device-5"),
        ]
    ]
    assert fed.readers == {"poll"}
    assert all("poll" not in device.readers for device in source[1:] if isinstance(device, Odd))


@pytest.mark.parametrize(("wait", "polled"), [(0.005, 30), (0.2, 1)])
def test_a_descriptor_that_says_ready_although_reads_block_is_found_out(
    tmp_path: Path, devices: ExitStack, wait: float, polled: int
) -> None:
    ready, other = socket.socketpair()
    devices.enter_context(ready)
    devices.enter_context(other)
    other.send(b"always")
    slow = Odd(0, contents(20 * CHUNK if polled > 1 else CHUNK), ready.fileno, wait)
    sent, _ = migrate(tmp_path, [slow, Odd(1, contents(CHUNK), lambda: None)])
    assert [remark for remark in sent.remarks if "device-0" in remark] == [
        "1 of 2 devices not polled, since they say that they are readable although a read blocks: device-0"
    ]
    assert 1 <= slow.readers.count("poll") <= polled
    assert slow.readers[-1] == "source-worker-0"


def test_cancel_ends_a_job_that_waits_in_the_selector(tmp_path: Path, devices: ExitStack) -> None:
    source = [Fed(number, contents(4 * CHUNK)) for number in range(3)]
    for device in source:
        devices.callback(device.close)
        device.theirs.sendall(device.state[:CHUNK])  # and then nothing: each job waits for more
    pair = prepared(tmp_path, list(source), "poll")
    took = threading.Event()
    pair.destination[2].before["load_state"] = took.set  # type: ignore[attr-defined]

    def cancel() -> None:
        assert took.wait(LIMIT)
        pair.sender.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    sent, received = pair.go()
    canceller.join(LIMIT)
    assert (sent.outcome, received.outcome) == (State.CANCELLED, State.FAILED), (sent.error, received.error)


def test_a_job_that_waits_for_credit_has_no_thread(tmp_path: Path, devices: ExitStack) -> None:
    """The first device's chunks are not loaded before the second's have all come: through one thread at the source."""
    first, second = Fed(0, contents(8 * CHUNK, 1)), Fed(1, contents(8 * CHUNK, 2))
    all_came = threading.Event()
    for device in (first, second):
        devices.callback(device.close)
        device.feed()
    pair = prepared(
        tmp_path,
        [first, second],
        "poll+per-device",
        settings=Settings(channels=2, chunk=CHUNK, budget=4 * CHUNK, peer_limit=10),
    )

    def hold() -> None:
        assert all_came.wait(LIMIT)

    pair.destination[0].before["load_state"] = hold  # type: ignore[attr-defined]
    pair.destination[1].before["load_config"] = all_came.set  # type: ignore[attr-defined]
    sent, received = pair.go()
    assert (sent.outcome, received.outcome) == (State.COMPLETED, State.COMPLETED), (sent.error, received.error)
    assert first.readers == second.readers == {"poll"}
    assert any(span.wait is Wait.CREDIT and span.slot == 0 for span in sent.spans)


# ---------------------------------------------------------------------- the parts


def test_a_descriptor_that_goes_away_while_it_is_watched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migpool.schedulers.poller.LOOK_AGAIN", 0.01)
    switch, refusals = CancelSwitch(), []
    came = threading.Event()

    def refused(thing: str, reason: str) -> None:
        refusals.append((thing, reason))
        came.set()

    poller: Poller[str] = Poller(switch, lambda thing: refusals.append((thing, "performed")), refused)
    thread = threading.Thread(target=poller.run)
    thread.start()
    ours, theirs = socket.socketpair()
    assert poller.watch(ours.fileno(), 0, "read") == ""
    ours.close()
    assert came.wait(LIMIT)
    theirs.close()
    poller.end()
    thread.join(LIMIT)
    ((thing, reason),) = refusals
    assert thing == "read"
    assert reason.startswith("have a descriptor that went away (")


def test_what_is_put_after_the_end_is_performed_by_who_puts_it() -> None:
    done: list[tuple[str, str]] = []

    def perform(thing: str) -> None:
        done.append((thing, threading.current_thread().name))

    threads = ThreadGroup(LIMIT)
    lane: Lane[str] = Lane("lane", 1, perform, threads.start)
    poller: Poller[str] = Poller(CancelSwitch(), perform, lambda *_: None)
    lane.put("a")
    threads.start("poller", poller.run)
    poller.put("b")
    lane.end()
    poller.end()
    threads.close()
    assert sorted(done) == [("a", "lane-0"), ("b", "poller")]
    lane.put("c")
    poller.put("d")
    here = threading.current_thread().name
    assert done[2:] == [("c", here), ("d", here)]


def test_a_lane_makes_threads_as_things_wait_and_no_more_than_its_number() -> None:
    gate = threading.Barrier(4)
    threads = ThreadGroup(LIMIT)
    done: list[int] = []

    def perform(number: int) -> None:
        if number < 3:
            gate.wait(LIMIT)
        done.append(number)

    lane: Lane[int] = Lane("lane", 3, perform, threads.start)
    for number in range(8):
        lane.put(number)
    gate.wait(LIMIT)
    lane.end()
    threads.close()
    assert sorted(done) == list(range(8))
    assert threads.peak == 3


def test_a_scenario_can_compare_poll() -> None:
    table = {"name": "x", "devices": [{"plugin": "vfio"}], "compare": {"models": ["poll", "poll:2+receiver"]}}
    assert parse_scenario(table, "f.toml").compare.models == ["poll", "poll:2+receiver"]


def test_closing_leaves_no_descriptor() -> None:
    before = {entry.name for entry in Path("/proc/self/fd").iterdir()}
    poller: Poller[str] = Poller(CancelSwitch(), print, lambda *_: None)
    poller.end()
    poller.run()
    assert {entry.name for entry in Path("/proc/self/fd").iterdir()} == before


def test_credit_without_a_thread_calls_back_once_when_it_comes_or_when_the_switch_is_thrown() -> None:
    switch = CancelSwitch()
    called: list[object] = []
    gates = Gates(Machine("m", [Scripted(0), Scripted(1)]).slots, switch, credited=True)
    first, second = gates.of[0], gates.of[1]

    def ready(brought: object = None, /) -> None:
        called.append(brought)

    first.open(2)
    assert first.passed_or_call(1, ready) == 2
    assert first.passed_or_call(2, ready) is None
    assert gates.waiting() == "device-0, chunk 2"
    first.open(2)  # nothing new
    assert called == []
    first.open(3)
    assert called == [3], "who waited is told how far the grant reaches"
    assert gates.waiting() == ""
    first.open(4)
    assert second.passed_or_call(0, ready) is None
    switch.cancel()
    assert called == [3, None]
    with pytest.raises(Cancelled):
        second.passed_or_call(0, ready)
