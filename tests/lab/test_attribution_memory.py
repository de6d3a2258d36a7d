"""The memory's last round, on the critical path and in the replay, in migrations of which all is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.analysis.whatif.resources import replays
from migpool.lab.analysis.why import budget_use, reason
from tests.support.attribution.made_downtimes import MANY, Made, Rules, alike
from tests.support.attribution.made_memory import EARLIER, Pages, downtime, made
from tests.support.attribution.waited import waited_behind

NEAR = 0.03

ONE = Rules((), channels=1)
FEW = alike(2, chunks=4)
QUIET = alike(1, chunks=4, write=0.1, config=0.1)
SLOW = Pages(packets=100, jobs=2)
BUSY = Pages(packets=100, jobs=4, scan=4.0)

QUICK = Pages(jobs=1, receive=0.2)

PARTS = {
    "one job": (ONE, QUICK, {"scan": 4 + 60 * 1.0, "send": 60 * 2.0, "sync": 0.5}),
    "the last packet is behind the SYNC": (
        ONE,
        Pages(jobs=1),
        {"scan": 4 + 60 * 1.0, "send": 60 * 2.0, "network": 0.7},
    ),
    # Of the last packet: all the time in which it lay in the socket behind the others.
    "a slow reader": (
        ONE,
        Pages(jobs=1, receive=5.0),
        {"scan": 4 + 60 * 1.0, "send": 60 * 2.0, "network": 3.0 + 60 * 5.0 - 60 * 3.0},
    ),
    # Each job waits for two others' packets before each of its own.
    "one channel for three jobs": (ONE, Pages(), {"scan": 4 + 20 * 1.0, "send": 20 * 2.0, "channel": 61.0}),
    "three channels": (Rules((), channels=3), Pages(receive=0.2), {"scan": 24.0, "send": 20 * 2.0, "sync": 0.5}),
    "one worker for three jobs": (Rules((), workers=1), Pages(), {"scan": 4 + 60 * 1.0, "send": 60 * 2.0}),
    "a worker for a device too": (Rules(QUIET, workers=1), Pages(), {"queued": 60 * 3.0}),
    "before the devices": (
        Rules(QUIET),
        Pages(jobs=1, alone=True),
        {"scan": 4 + 60 * 1.0, "send": 60 * 2.0 + 4 * 0.5, "device read": 20.0},
    ),
}


@pytest.mark.parametrize("case", PARTS)
def test_each_part_of_the_path_is_what_is_true(case: str) -> None:
    rules, pages, parts = PARTS[case]
    source, destination = made(rules, pages)
    whole = attribute(source, destination)
    assert sum(whole.nanoseconds.values()) == destination.running - source.stopped
    for kind, milliseconds in parts.items():
        near = max(NEAR * milliseconds, 0.02 * whole.downtime / 1e6 if milliseconds < 1 else 0.0)
        assert whole.kinds[kind] == pytest.approx(milliseconds, abs=near), kind
    assert not {"other", "starved"} & whole.kinds.keys()


def test_a_link_of_the_memory_names_the_packet_the_thread_and_whom_it_waited_for() -> None:
    rules, pages, _ = PARTS["one channel for three jobs"]
    whole = attribute(*made(rules, pages))
    links = [link for link in whole.links if link.kind in ("scan", "send", "channel", "network", "sync")]
    assert {link.device for link in links} == {"ram"}
    assert waited_behind(whole, "channel") == {"ram": pytest.approx(whole.kinds["channel"])}
    last = [link for link in links if link.kind == "network"][-1]
    assert (last.side, last.thread, last.index) == ("destination", "channel-0", EARLIER + 59)
    sent = [link for link in links if link.kind == "send"][-1]
    assert (sent.side, sent.index, sent.thread[:7]) == ("source", EARLIER + 59, "source-")


FREED = {
    "one channel": (Rules(FEW, channels=1), BUSY, Rules(FEW, channels=MANY), BUSY, "channels", ""),
    "one channel, in turn": (
        Rules(FEW, channels=1),
        BUSY.but(alone=True),
        Rules(FEW, channels=MANY),
        BUSY.but(alone=True),
        "channels",
        "",
    ),
    "one worker": (Rules(FEW, workers=1), SLOW, Rules(FEW, workers=MANY), SLOW, "workers", ""),
    "one worker, in turn": (
        Rules(FEW, workers=1),
        SLOW.but(alone=True),
        Rules(FEW, workers=MANY),
        SLOW.but(alone=True),
        "workers",
        "",
    ),
    "two workers": (
        Rules(FEW, workers=2),
        SLOW.but(jobs=4),
        Rules(FEW, workers=MANY),
        SLOW.but(jobs=4),
        "workers",
        "source",
    ),
    "the link": (Rules(FEW, channels=4), SLOW, Rules(FEW, channels=4, link=False), SLOW, "link", ""),
    "the link, in turn": (
        Rules(FEW, channels=4),
        SLOW.but(alone=True),
        Rules(FEW, channels=4, link=False),
        SLOW.but(alone=True),
        "link",
        "",
    ),
    "a slow reader": (
        Rules((), channels=2),
        SLOW.but(receive=6.0),
        Rules((), channels=MANY),
        SLOW.but(receive=6.0),
        "channels",
        "",
    ),
    "the big lock": (
        Rules(alike(4, chunks=4, config=60.0)),
        SLOW,
        Rules(alike(4, chunks=4, config=60.0), big_lock=False),
        SLOW,
        "big lock",
        "",
    ),
}


@pytest.mark.parametrize("case", FREED)
def test_the_replay_comes_to_what_is_true(case: str) -> None:
    rules, pages, free_rules, free_pages, resource, side = FREED[case]
    measured, truth = downtime(rules, pages), downtime(free_rules, free_pages)
    assert truth < 0.95 * measured  # else the case shows nothing
    found = replays(*made(rules, pages))
    assert found is not None
    assert found.downtime / 1e6 == pytest.approx(measured)
    assert found.replayed / 1e6 == pytest.approx(measured, rel=NEAR)
    (one,) = [one for one in found.freed if (one.resource, one.side) == (resource, side)]
    assert (found.replayed - one.shorter) / 1e6 == pytest.approx(truth, rel=NEAR)
    named = reason(found.freed)
    assert named is not None
    assert named.resource == resource


def test_room_for_chunks_is_nothing_that_pages_wait_for() -> None:
    found = replays(*made(Rules(()), SLOW))
    assert found is not None
    assert {one.resource: one.shorter for one in found.freed if one.resource == "memory budget"} == {"memory budget": 0}


def test_pages_take_nothing_of_the_budget() -> None:
    _, destination = made(Rules((Made(chunks=2),)), SLOW)
    chunks = [span for span in destination.spans if span.slot == 0]
    assert budget_use(destination, 1, 0) == budget_use(replace(destination, spans=tuple(chunks)), 1, 0)


def test_what_is_received_of_a_round_from_before_the_stop_is_no_work_of_this_one() -> None:
    source, destination = made(Rules(FEW), SLOW)
    late = source.stopped + 3_000_000
    sync = next(span for span in destination.spans if span.wait.name == "SYNC" and span.thread == "main")
    before = replace(sync, begin=source.stopped - 5_000_000, end=late)
    page = next(span for span in destination.spans if span.wait.name == "RECEIVE" and span.slot == sync.slot)
    earlier = replace(page, index=7, begin=source.stopped - 1_000_000, end=late)
    both = replace(destination, spans=tuple(sorted((*destination.spans, before, earlier), key=lambda span: span.begin)))
    alone, found = replays(source, destination), replays(source, both)
    assert alone is not None
    assert found is not None
    assert found.replayed == pytest.approx(alone.replayed, rel=NEAR)
    assert attribute(source, both).kinds == pytest.approx(attribute(source, destination).kinds)


def test_packets_that_went_together_are_received_together() -> None:
    source, destination = made(Rules(FEW), SLOW)
    memory = len(source.devices) - 1

    def spread(span: Span) -> Span:
        """Every packet's number is that of the first of four."""
        known = span.slot == memory and span.wait in (Wait.SEND, Wait.RECEIVE)
        return replace(span, index=4 * span.index) if known else span

    def parted(span: Span) -> list[Span]:
        """What was received as one comes as four packets, one after the other."""
        if span.slot != memory or span.wait is not Wait.RECEIVE:
            return [span]
        cuts = [span.begin + span.duration * part // 4 for part in range(5)]
        return [replace(span, index=4 * span.index + part, begin=cuts[part], end=cuts[part + 1]) for part in range(4)]

    together = replace(source, spans=tuple(map(spread, source.spans)))
    parts = replace(destination, spans=tuple(each for span in destination.spans for each in parted(span)))
    assert attribute(together, parts).kinds == attribute(source, destination).kinds
    alone, found = replays(source, destination), replays(together, parts)
    assert alone is not None
    assert found is not None
    assert (found.replayed, found.freed) == (alone.replayed, alone.freed)
