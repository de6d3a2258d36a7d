"""Chunks that have come: who waits for one after a cancel is refused, or called, and never left."""

from __future__ import annotations

import pytest

from migpool.core.buffers import Chunk
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import NextChunk, NextPart
from migpool.core.machine import Machine
from migpool.errors import Cancelled
from migpool.flow.window import Grant, Windows
from migpool.migration.chunk_queue import ChunkQueues
from tests.support.pool_gates import Caller, until_blocked
from tests.support.rig import Scripted
from tests.support.tagging import Tagged


def test_after_a_cancel_nobody_is_left_to_be_called() -> None:
    switch, machine = CancelSwitch(), Machine("m", [Scripted(0)])
    arrivals = ChunkQueues(machine.slots, lambda _: None, switch, lambda _: None)
    called: list[str] = []

    def before(brought: object = None, /) -> None:
        assert brought is None
        called.append("before")

    def after(brought: object = None, /) -> None:
        del brought
        called.append("after")

    following = NextChunk(machine.slots[0], 0)
    assert arrivals.take_or_call(following, before, leave=False) is None
    switch.cancel()
    assert called == ["before"]
    with pytest.raises(Cancelled):
        arrivals.take_or_call(following, after, leave=False)
    with pytest.raises(Cancelled):
        arrivals.take(following)
    assert called == ["before"]


@pytest.mark.parametrize("tagged", [False, True], ids=["in order", "with tags"])
def test_a_grant_that_cannot_be_made_known_costs_nobody_what_came(tagged: bool) -> None:
    """Nobody else would call whoever was left until then: the job would wait for ever."""
    devices = [Tagged(number) if tagged else Scripted(number) for number in range(2)]
    machine = Machine("m", devices)
    reached = True

    def grant(_: Grant) -> None:
        if not reached:
            raise Cancelled("there is nobody left to grant to")

    arrivals = ChunkQueues(machine.slots, grant, CancelSwitch(), lambda _: None)
    windows = Windows(devices=2, rooms=64)
    arrivals.use_credits(windows)
    reached = False
    slot = machine.slots[0]
    brought: list[object] = []

    def ready(chunk: object = None, /) -> None:
        brought.append(chunk)

    failed = 0
    for index in range(40):
        left = (
            arrivals.part_or_call(NextPart(slot), ready, leave=False)
            if tagged
            else arrivals.take_or_call(NextChunk(slot, index), ready, leave=False)
        )
        assert left is None
        chunk = Chunk(4096)
        chunk.index, chunk.length, chunk.last = index, 1, False
        try:
            arrivals.deliver(arrivals.by_slot[slot.number], chunk)
        except Cancelled:
            failed += 1
        assert brought.pop() is chunk
        windows.loaded(0)
    assert failed


def test_a_part_may_come_behind_those_that_were_granted_after_it() -> None:
    """Another channel's thread may be quicker: what was granted meanwhile counts, not what was when the part came."""
    machine = Machine("m", [Tagged(0)])
    arrivals = ChunkQueues(machine.slots, lambda _: None, CancelSwitch(), lambda _: None)
    windows = Windows(devices=1, rooms=8)
    arrivals.use_credits(windows)
    queue = arrivals.by_slot[0]
    assert queue.parts is not None

    def part(tag: int) -> Chunk:
        chunk = Chunk(4096)
        chunk.index, chunk.length, chunk.last = tag, 1, False
        return chunk

    assert windows.limit(0) == 1
    with queue.lock:
        slow = Caller(lambda: arrivals.deliver(queue, part(0)))
        until_blocked(slow)
        windows.loaded(0)
        queue.parts.parts.put(1, part(1), False, windows.limit(0))
    slow.outcome()
    assert queue.parts.parts.received == 2
