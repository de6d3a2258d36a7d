"""Chunks that have come: who waits for one after a cancel is refused, or called, and never left."""

from __future__ import annotations

import pytest

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import NextChunk
from migpool.core.machine import Machine
from migpool.errors import Cancelled
from migpool.migration.chunk_queue import ChunkQueues
from tests.support.rig import Scripted


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
