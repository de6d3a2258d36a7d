"""What a round sent, and which part of its jobs' time went into pages of zeros."""

from __future__ import annotations

import pytest

from migpool.ram.source import PageEffort
from migpool.wire.rampacket import PagePacket

PAGE = 4096


@pytest.fixture
def effort() -> PageEffort:
    return PageEffort()


def packet(effort: PageEffort, normal: int, zero: int, look: int, send: int) -> None:
    """A packet is looked at and sent, for as long as the test says."""
    packets = [PagePacket(0, b"", normal, zero, [], normal * PAGE)]
    effort.looked(packets, look)
    effort.sent(packets, send)


def test_without_pages_of_zeros_all_of_the_time_counts(effort: PageEffort) -> None:
    for _ in range(3):
        packet(effort, 128, 0, look=10, send=90)
    assert effort.since() == (3 * 128 * PAGE, 1.0)


def test_a_packet_of_zeros_counts_for_nothing(effort: PageEffort) -> None:
    packet(effort, 128, 0, look=10, send=90)
    packet(effort, 0, 128, look=250, send=50)
    assert effort.since() == (128 * PAGE, 0.25)


def test_of_a_packet_with_both_the_look_is_shared_out_by_pages(effort: PageEffort) -> None:
    packet(effort, 32, 96, look=40, send=60)
    assert effort.since() == (32 * PAGE, 0.7)


def test_each_round_counts_for_itself(effort: PageEffort) -> None:
    packet(effort, 0, 128, look=100, send=0)
    assert effort.since() == (0, 0.0)
    packet(effort, 1, 0, look=1, send=1)
    assert effort.since() == (PAGE, 1.0)
    assert effort.since() == (0, 1.0)
    assert effort.bytes == PAGE
