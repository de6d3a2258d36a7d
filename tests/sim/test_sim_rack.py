"""Hosts that empty, in virtual time: what leaves, in which time, within which bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import UsageError
from migpool.sim.rack import Rack, empty
from migpool.sim.simulate import downtime
from migpool.sim.world import Profile, World

MACHINE = World(
    devices=(Profile(size=4, read=4.0),) * 2,
    savers=2,
    loaders=2,
    channels=8,
    channel_rate=1e15,
    link_rate=1e15,
    chunk=1,
    rooms=8,
)
RACK = Rack(MACHINE, machines=6, at_once=1, threads=2, shared=False, rooms=64)


def test_one_after_the_other_is_as_each_by_itself() -> None:
    found = empty(RACK)
    alone = downtime(MACHINE)
    assert found.downtimes == pytest.approx([alone] * 6)
    assert found.total == pytest.approx(6 * alone)


def test_threads_that_are_divided_are_slower_for_all_and_shared_ones_for_none_but_the_last() -> None:
    # Two machines of two devices and two threads: one thread each, or two for whoever comes first.
    divided = empty(replace(RACK, machines=2, at_once=2))
    shared = empty(replace(RACK, machines=2, at_once=2, shared=True))
    assert divided.downtimes == pytest.approx([8.0, 8.0], rel=1e-3)
    assert sorted(shared.downtimes) == pytest.approx([4.0, 8.0], rel=1e-3)


def test_the_link_is_one_and_memory_crosses_it_first() -> None:
    machine = replace(MACHINE, link_rate=10.0)
    found = empty(replace(RACK, machine=machine, memory=100, machines=2))
    assert found.total == pytest.approx(2 * (10.0 + downtime(machine)))


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 8), st.booleans(), st.integers(1, 3), st.integers(0, 50))
def test_every_machine_leaves_and_no_time_is_made_up(
    machines: int, at_once: int, threads: int, shared: bool, hosts: int, memory: int
) -> None:
    rack = Rack(replace(MACHINE, link_rate=20.0), machines, at_once, threads, shared, 64, hosts, memory)
    if not shared and threads < at_once:
        with pytest.raises(UsageError, match="migrate fewer at once"):
            empty(rack)
        return
    found = empty(rack)
    assert found == empty(rack)
    assert len(found.downtimes) == machines
    assert found.typical <= found.worst <= found.total + 1e-9
    assert min(found.downtimes) >= 4.0 - 1e-9  # a device by itself
    assert found.total >= machines * (memory + 8) / 20.0 - 1e-9  # all that must cross the one link
    reads = 8.0 * -(-machines // hosts) / (min(threads, 2 * at_once))
    assert found.total >= reads - 1e-9  # all that a host's threads must read
