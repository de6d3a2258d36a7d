"""Runs between two clocks: how they stand to each other, and that the downtime is right by one of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.lab.result_of_sides import run_result
from migpool.lab.run.clocks import on_one_clock, relate
from migpool.lab.run.process_pair import ProcessPair
from migpool.migration.report import Exchange
from migpool.scenario.schema import load_scenario
from tests.support.lab_reports import report
from tests.support.time_namespace import OFFSET, HostAhead, possible

SECOND = 10**9


@given(
    st.integers(-(10**12), 10**12),
    st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)), min_size=1, max_size=20),
)
def test_the_truth_lies_within_what_is_said(offset: int, ways: list[tuple[int, int]]) -> None:
    source, destination, now = [], [], 10**13
    for value, (there, back) in enumerate(ways):
        source.append(Exchange(value, now, now + there + back))
        destination.append(Exchange(value, now + there + offset, now + there + offset))
        now += there + back + 1
    found = relate(source, destination)
    assert found is not None
    assert abs(found.ahead - offset) <= found.uncertainty
    assert found.uncertainty <= min(there + back for there, back in ways) // 2 + 1
    assert found.exchanges == len(ways)


def test_clocks_that_drift_are_related_by_the_quickest_answer() -> None:
    source = [Exchange(1, 0, 10), Exchange(2, 1000, 1100)]
    destination = [Exchange(1, 505, 505), Exchange(2, 2000, 2000)]
    found = relate(source, destination)
    assert found is not None
    assert (found.ahead, found.uncertainty) == (500, 5)


def test_nothing_is_said_of_clocks_that_nothing_relates() -> None:
    assert relate([Exchange(1, 0, 10)], [Exchange(2, 5, 5)]) is None
    assert relate([], []) is None


def test_all_that_the_destination_says_is_moved_to_the_source_s_clock() -> None:
    answered = Exchange(1, 4 * SECOND + 1, 4 * SECOND + 1)
    span = Span(Wait.WRITE, 0, 0, 6 * SECOND, 7 * SECOND, "a")
    there = replace(report("destination"), running=7 * SECOND, spans=(span,), exchanges=(answered,))
    here = replace(report("source"), stopped=SECOND, running=4 * SECOND + 9, clock="return-path")
    here = replace(here, exchanges=(Exchange(1, SECOND, SECOND + 2),))
    source, destination, clocks = on_one_clock(here, there)
    assert clocks is not None
    assert str(clocks).startswith(
        "the destination's is 3000 ms ahead of the source's, at most 0.00 ms off, by 1 message"
    )
    assert (source.running, source.clock) == (4 * SECOND, "exchanges")
    assert (destination.spans[0].begin, destination.spans[0].end) == (3 * SECOND, 4 * SECOND)
    assert destination.stopped == there.stopped == 0
    # One clock is left alone, whatever was exchanged.
    same = replace(here, clock="monotonic")
    assert on_one_clock(same, there) == (same, there, None)


@pytest.mark.skipif(not possible(), reason="needs root: time namespaces")
def test_the_downtime_between_two_clocks_is_that_of_the_one_clock_behind_both() -> None:
    pair = ProcessPair(load_scenario("small"), "pool", 1, "small", HostAhead()).run(lambda _: None, lambda: False)
    assert pair.both is not None, pair.error
    assert pair.clocks is not None
    off = pair.clocks.ahead - OFFSET * SECOND
    assert abs(off) <= pair.clocks.uncertainty
    assert abs(off) < 2_000_000
    source, destination = (side.report for side in pair.both)
    # What the kernel's one clock says of the destination's start is off from what is told by just that.
    assert source.stopped < destination.running == source.running < source.ended
    found = run_result("pool", 1, 1, pair)
    assert (found.outcome, found.verified, found.clock) == ("completed", True, "exchanges")
    assert found.downtime_ms == pytest.approx((source.running - source.stopped) / 1e6)
    assert sum(found.attribution.values()) == pytest.approx(found.downtime_ms)
