"""The small parts that everything stands on: buffers, spans, the switch, the states, the threads, addresses."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from migpool.core.buffers import BufferPool
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Wait
from migpool.core.threads import ThreadGroup
from migpool.core.trace import Tracer, pack_span
from migpool.errors import Cancelled, MemoryLimitExceeded, TimeLimitExceeded, UsageError
from migpool.migration.states import FINAL, TRANSITIONS, Event, State, StateMachine
from migpool.transport.address import Address
from migpool.workers.pool import WorkerPool

# ---------------------------------------------------------------------- memory


def test_buffers_are_page_aligned_and_used_again() -> None:
    pool = BufferPool(8192, 3)
    first = pool.take()
    assert ctypes.addressof(ctypes.c_char.from_buffer(first.buffer)) % 4096 == 0
    pool.give_back(first)
    assert pool.take() is first
    pool.give_back(first)
    pool.close()


def test_a_pool_gives_no_more_than_its_limit_and_remembers_the_most() -> None:
    pool = BufferPool(4096, 2)
    held = [pool.take(), pool.take()]
    with pytest.raises(MemoryLimitExceeded, match="all 2 buffers of 4096 bytes are in use"):
        pool.take()
    for chunk in held:
        pool.give_back(chunk)
    assert pool.take() is held[1]
    assert pool.high_water == 8192
    pool.close()


def test_a_payload_is_the_buffer_itself_when_it_is_full() -> None:
    pool = BufferPool(4096, 1)
    chunk = pool.take()
    chunk.length = 4096
    assert chunk.payload is chunk.buffer
    chunk.begin, chunk.length = 8, 10
    assert len(chunk.payload) == 10
    pool.give_back(chunk)
    assert (chunk.begin, chunk.length) == (0, 0)
    pool.close()


def test_a_buffer_given_back_after_close_is_unmapped() -> None:
    pool = BufferPool(4096, 1)
    chunk = pool.take()
    pool.close()
    pool.give_back(chunk)
    with pytest.raises(ValueError, match="released"):
        len(chunk.buffer)


# ---------------------------------------------------------------------- trace


def test_spans_of_all_threads_come_out_in_the_order_of_their_begins() -> None:
    tracer = Tracer()

    def work(offset: int) -> None:
        record = tracer.recorder()
        for at in range(50):
            record(pack_span(Wait.READ, 1, at, 10 * at + offset, 10 * at + offset + 3))

    threads = [threading.Thread(target=work, args=(number,), name=f"worker-{number}") for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = tracer.spans()
    assert len(spans) == 150
    assert [span.begin for span in spans] == sorted(span.begin for span in spans)
    assert {span.thread for span in spans} == {"worker-0", "worker-1", "worker-2"}
    assert all(span.duration == 3 for span in spans)


def test_spans_can_be_read_while_others_are_recorded() -> None:
    tracer = Tracer()
    reading = threading.Event()

    def work() -> None:
        record = tracer.recorder()
        reading.wait()
        for at in range(20_000):
            record(pack_span(Wait.READ, 7, at, at, at + 3))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    reading.set()
    seen = 0
    while any(thread.is_alive() for thread in threads):
        spans = tracer.spans()
        assert len(spans) >= seen
        assert all((span.wait, span.slot, span.begin) == (Wait.READ, 7, span.index) for span in spans)
        seen = len(spans)
    assert len(tracer.spans()) == 40_000


def test_threads_of_one_name_have_tracks_of_their_own() -> None:
    tracer = Tracer()
    for _ in range(2):
        thread = threading.Thread(target=lambda: tracer.record(Wait.READ, 0, 0, 1, 2), name="same")
        thread.start()
        thread.join()
    assert {span.thread for span in tracer.spans()} == {"same", "same (2)"}


def test_a_span_outside_the_data_path_ends_now() -> None:
    tracer = Tracer()
    begin = time.monotonic_ns()
    tracer.record(Wait.STOP, 4, -1, begin)
    (span,) = tracer.spans()
    assert (span.wait, span.slot, span.index, span.begin) == (Wait.STOP, 4, -1, begin)
    assert begin <= span.end <= time.monotonic_ns()


# ---------------------------------------------------------------------- the switch


def test_the_first_reason_stays_and_every_hook_runs_once() -> None:
    switch = CancelSwitch()
    calls: list[str] = []
    switch.on_cancel(lambda: calls.append("early"))
    switch.on_cancel(lambda: calls.append(str(1 / 0)))
    switch.on_cancel(lambda: calls.append("after one that failed"))
    switch.check()
    assert switch.cancel(UsageError("first"))
    assert not switch.cancel(UsageError("second"))
    switch.on_cancel(lambda: calls.append("late"))
    assert calls == ["early", "after one that failed", "late"]
    assert str(switch.reason) == "first"
    with pytest.raises(Cancelled) as error:
        switch.check()
    assert error.value.__cause__ is switch.reason


# ---------------------------------------------------------------------- the states


def test_every_way_through_the_table_ends() -> None:
    def ends(state: State, seen: tuple[State, ...]) -> None:
        assert state not in seen, f"{state} is reached again"
        for after in TRANSITIONS[state].values():
            ends(after, (*seen, state))

    ends(State.NONE, ())
    assert set(TRANSITIONS) == set(State)
    assert {State.COMPLETED, State.FAILED, State.CANCELLED, State.UNCONFIRMED} == FINAL


def test_once_the_machine_may_run_there_it_never_fails_or_is_cancelled_unless_it_was_refused() -> None:
    for state in (State.SENT, State.RUNNING):
        assert {TRANSITIONS[state][event] for event in (Event.FAIL, Event.CANCEL)} == {State.UNCONFIRMED}
    assert [state for state, events in TRANSITIONS.items() if State.REFUSED in events.values()] == [State.SENT]


def test_an_event_that_cannot_happen_is_refused_in_words() -> None:
    seen: list[State] = []
    machine = StateMachine(seen.append)
    machine.happen(Event.BEGIN)
    with pytest.raises(UsageError, match="a migration that is setup cannot switch over"):
        machine.happen(Event.SWITCH_OVER)
    assert machine.state is State.SETUP
    assert seen == [State.SETUP]


# ---------------------------------------------------------------------- threads


def wait_at(gate: threading.Event) -> Callable[[], None]:
    def wait() -> None:
        assert gate.wait(10)

    return wait


def test_a_group_joins_its_threads_and_knows_the_most_there_were() -> None:
    group = ThreadGroup(limit=10)
    gate = threading.Event()
    for number in range(3):
        group.start(f"one-{number}", wait_at(gate))
    gate.set()
    group.close()
    assert group.peak == 3
    with pytest.raises(UsageError, match="the migration is over"):
        group.start("late", lambda: None)


def test_a_thread_that_does_not_end_is_named() -> None:
    group = ThreadGroup(limit=0.05)
    gate = threading.Event()
    thread = group.start("stubborn", wait_at(gate))
    with pytest.raises(TimeLimitExceeded, match="stubborn"):
        group.close()
    gate.set()
    thread.join(10)


def test_a_part_counts_in_the_whole_which_does_not_wait_for_what_the_part_has_told_of() -> None:
    group = ThreadGroup(limit=60)
    part = group.part()
    gate = threading.Event()
    thread = part.start("held", lambda: gate.wait(10))
    group.start("other", lambda: None)
    assert group.alive >= part.alive == 1
    with pytest.raises(TimeLimitExceeded, match="after 0 s these threads still run: held"):
        part.close(0)
    group.close()  # at once, or the test's own limit ends it
    gate.set()
    thread.join(10)
    part.close()
    assert (group.alive, part.alive) == (0, 0)
    with pytest.raises(UsageError, match="the migration is over"):
        part.start("late", lambda: None)


def test_the_workers_of_a_pool_can_be_a_groups_threads() -> None:
    group = ThreadGroup(limit=10)
    gate = threading.Event()
    pool = WorkerPool(2, "worker", thread=group.thread)
    held = pool.submit(gate.wait, 10)
    assert pool.submit(lambda: threading.current_thread().name).result(10) == "worker_1"
    assert (group.alive, group.peak) == (2, 2)
    pool.shutdown(wait=True)
    assert not held.done(), "whoever owns the threads waits for them"
    gate.set()
    group.close()
    assert held.done()
    assert group.alive == 0


# ---------------------------------------------------------------------- addresses


@pytest.mark.parametrize("text", ["tcp:127.0.0.1:4444", "tcp:[::1]:0", "tcp:host.example:65535", "unix:/tmp/a:b"])
def test_an_address_is_read_and_written(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["", "4444", "tcp:host", "tcp::1", "tcp:a:65536", "unix:", "udp:host:1", "tcp:a:-1"])
def test_what_is_no_address_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="write tcp:HOST:PORT or unix:PATH"):
        Address.parse(text)


def test_a_unix_path_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="longer than 107 bytes"):
        Address.parse("unix:/" + "x" * 120)


def test_without_memory_in_it_a_migration_loads_no_numpy() -> None:
    """It takes a while, and keeps a thread of its own in the process that spins before it sleeps."""
    code = (
        "import sys, migpool.migration.source, migpool.migration.destination; "
        "import migpool.scenario.model_syntax, migpool.wire; "
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
