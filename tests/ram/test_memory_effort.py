"""What a round sent, and which part of its jobs' time went into pages of zeros, by a clock that the test moves."""

from __future__ import annotations

import pytest

from migpool.core.effects import SendPages, TakePages
from migpool.core.interpreter import Handlers
from migpool.core.machine import Machine, Slot
from migpool.precopy.rounds import Crossed
from migpool.ram.page_effort import PageEffort
from migpool.wire.rampacket import PagePacket
from tests.support.paper import Paper

PAGE = 4096


class Jobs:
    """Looks at packets and sends them, for as long as the test says."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self.now = 0
        self._packets: list[PagePacket] | None = None
        self._took = 0
        self._handlers = Handlers()
        self._handlers.on(TakePages, self._take)
        self._handlers.on(SendPages, self._send)
        self.effort = PageEffort(lambda: self.now)
        self.effort.watch(self._handlers)

    def packet(self, normal: int, zero: int, look: int, send: int) -> None:
        packets = [PagePacket(0, b"", normal, zero, [], normal * PAGE)]
        self._packets, self._took = packets, look
        assert self._handlers[TakePages](TakePages(self._slot)) is packets
        self._took = send
        self._handlers[SendPages](SendPages(self._slot, 0, packets))

    def _take(self, _: TakePages) -> list[PagePacket] | None:
        self.now += self._took
        return self._packets

    def _send(self, _: SendPages) -> None:
        self.now += self._took

    def end(self) -> None:
        self._packets = None
        assert self._handlers[TakePages](TakePages(self._slot)) is None


@pytest.fixture
def jobs() -> Jobs:
    memory = Machine("m", [Paper(1)]).memory
    assert memory is not None
    return Jobs(memory)


def test_without_pages_of_zeros_all_of_the_time_counts(jobs: Jobs) -> None:
    for _ in range(3):
        jobs.packet(128, 0, look=10, send=90)
    jobs.end()
    assert jobs.effort.since() == Crossed(3 * 128 * PAGE, 1.0)


def test_a_packet_of_zeros_counts_for_nothing(jobs: Jobs) -> None:
    jobs.packet(128, 0, look=10, send=90)
    jobs.packet(0, 128, look=250, send=50)
    assert jobs.effort.since() == Crossed(128 * PAGE, 0.25)


def test_of_a_packet_with_both_the_look_is_shared_out_by_pages(jobs: Jobs) -> None:
    jobs.packet(32, 96, look=40, send=60)
    assert jobs.effort.since() == Crossed(32 * PAGE, 0.7)


def test_each_round_counts_for_itself(jobs: Jobs) -> None:
    jobs.packet(0, 128, look=100, send=0)
    assert jobs.effort.since() == Crossed(0, 0.0)
    jobs.packet(1, 0, look=1, send=1)
    assert jobs.effort.since() == Crossed(PAGE, 1.0)
    assert jobs.effort.since() == Crossed(0, 1.0)
