"""A link in virtual time: windows that grow, losses, and what of that a threading model feels."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.sim.simulate import downtime
from migpool.sim.tcp import HEADERS, Channel, goodput, lateness
from migpool.sim.world import Profile, World

MTU = 1500
SEGMENT = MTU - HEADERS
FAST = 1e15


def world(**more: object) -> World:
    """One device of 1 MiB in chunks of 64 KiB, over one channel of a link that is 10 ms long."""
    usual: dict[str, object] = {
        "devices": (Profile(size=1 << 20),),
        "savers": 1,
        "loaders": 1,
        "channels": 1,
        "channel_rate": FAST,
        "link_rate": FAST,
        "chunk": 1 << 16,
        "rooms": 99,
        "latency": 0.01,
        "mtu": MTU,
    }
    return World(**{**usual, **more})  # type: ignore[arg-type]


def test_a_connection_begins_with_ten_segments_and_doubles() -> None:
    # 10, 20, 40 ... segments: with the seventh window 1270 have gone, and 1 MiB is 725: six round trips and one way.
    # The room that the config needs is granted when the chunk has come: that is another round trip.
    assert downtime(world(chunk=1 << 20)) == pytest.approx(6 * 0.02 + 0.01 + 0.02, rel=0.01)


def test_many_connections_begin_with_as_many_windows() -> None:
    # Each has a window of its own: with the third 64 KiB are through on all of them.
    found = downtime(world(devices=(Profile(size=1 << 16),) * 16, channels=16, savers=16, loaders=16))
    assert found == pytest.approx(2 * 0.02 + 0.01 + 0.02, rel=0.01)


def test_a_link_that_is_full_needs_its_rate_and_one_delay() -> None:
    slow = world(link_rate=1e6)
    assert downtime(slow) == pytest.approx((1 << 20) / goodput(slow) + 0.01, rel=0.06)
    assert goodput(slow) == pytest.approx(1e6 * SEGMENT / (MTU + 14))


def test_without_a_delay_a_link_is_what_it_was() -> None:
    assert downtime(world(latency=0.0, mtu=0, link_rate=1 << 20)) == pytest.approx(1.0)


@given(st.floats(1e-4, 0.1), st.floats(1e-6, 0.3), st.integers(1, 1 << 20))
def test_losses_and_jitter_only_make_it_slower(latency: float, loss: float, size: int) -> None:
    clean = world(latency=latency)
    lossy, jittery = replace(clean, loss=loss), replace(clean, jitter=latency / 2)
    assert latency == lateness(clean, size) <= lateness(lossy, size) <= 3 * latency
    assert latency <= lateness(jittery, size) <= 1.5 * latency
    assert downtime(lossy) >= downtime(clean) * (1 - 1e-9)


@given(st.floats(1e-4, 0.1), st.floats(0.0, 0.3), st.lists(st.integers(1, 1 << 18), min_size=1, max_size=30))
def test_no_channel_has_more_than_a_window_under_way(latency: float, loss: float, sizes: list[int]) -> None:
    channel = Channel(FAST, world(latency=latency, loss=loss))
    now = 0.0
    sent: list[tuple[float, int]] = []
    for size in sizes:
        left = size
        while left:
            room, until = channel.room(now)
            if not room:
                assert until > now
                now = until
                continue
            part = min(left, room)
            channel.send(part)
            sent.append((now, part))
            left -= part
    for begin, _ in sent:
        under_way = sum(part for at, part in sent if begin <= at < begin + 2 * latency * 0.999)
        assert under_way <= 2 * (4 << 20)
    rounds = now / (2 * latency)
    assert sum(sizes) <= 10 * SEGMENT * 2 ** (rounds + 1.5)
