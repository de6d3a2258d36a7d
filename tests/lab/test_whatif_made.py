"""What a resource costs, in made-up migrations of which that is known: the replay comes to the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from migpool.device import StateCosts
from migpool.lab.analysis.whatif.resources import Freed, Replays, replays, too_few_processors
from migpool.lab.analysis.why import because, named, reason
from migpool.lab.run.result import ResourceResult
from migpool.migration.report import SideReport
from tests.support.attribution.made_downtimes import MANY, Made, Rules, alike, downtime, made, names

NEAR = 0.03

FOUR = alike(4)

CASES: dict[str, tuple[Rules, Mapping[str, object], str, str]] = {
    "one lock for all reads": (Rules(FOUR, read_lock=True), {"read_lock": False}, "shared by reads", "source"),
    "one lock for all writes": (
        Rules(alike(3, read=2.0, write=5.0), write_lock=True),
        {"write_lock": False},
        "shared by writes",
        "destination",
    ),
    "one slow device": (
        Rules((*FOUR[:3], Made(read=15.0))),
        {"devices": (*FOUR[:3], Made(read=15.0 * (FOUR[2].read + FOUR[2].write) / 19, write=4.0 * 9 / 19))},
        "slow device",
        "",
    ),
    "one channel": (Rules(alike(4, send=4.0), channels=1), {"channels": MANY}, "channels", ""),
    "one worker": (Rules(FOUR, workers=1), {"workers": MANY}, "workers", ""),
    "two workers": (Rules(alike(5), workers=2), {"workers": MANY}, "workers", ""),
    "the big lock": (Rules(alike(4, config=30.0)), {"big_lock": False}, "big lock", ""),
    "the link": (Rules(alike(2, send=9.0)), {"link": False}, "link", ""),
}


def of(found: Replays, resource: str, side: str) -> Freed:
    (one,) = [one for one in found.freed if (one.resource, one.side) == (resource, side)]
    return one


@pytest.mark.parametrize("case", CASES)
def test_the_replay_comes_to_what_is_true(case: str) -> None:
    rules, without, resource, side = CASES[case]
    truth = downtime(rules.but(**without))
    measured = downtime(rules)
    found = replays(*made(rules))
    assert found is not None
    assert found.downtime / 1e6 == pytest.approx(measured)
    assert found.replayed / 1e6 == pytest.approx(measured, rel=NEAR)
    assert truth < 0.95 * measured  # else the case shows nothing
    shorter = of(found, resource, side).shorter
    assert (found.replayed - shorter) / 1e6 == pytest.approx(truth, rel=NEAR)
    named = reason(found.freed)
    assert named is not None
    assert (named.resource, named.side) == (resource, side)


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_devices_that_are_read_in_turn_are_named_without_being_told(count: int) -> None:
    devices = alike(count)
    found = replays(*made(Rules(devices, read_lock=True)))
    assert found is not None
    assert of(found, "shared by reads", "source").devices == names(devices)
    assert of(found, "shared by reads", "source").turn / 1e6 == pytest.approx(5.0, rel=0.1)


def test_those_that_do_not_share_the_lock_are_not_among_them() -> None:
    shared, alone = made(Rules(alike(3), read_lock=True)), made(Rules((Made(read=7.3, chunks=16),)))
    both = []
    for ours, other in zip(shared, alone, strict=True):
        spans = [replace(span, slot=3, thread=f"x{span.thread}") for span in other.spans if span.slot == 0]
        everything = sorted((*ours.spans, *spans), key=lambda span: (span.begin, span.end))
        named = replace(other.devices[0], name="d3")
        both.append(replace(ours, devices=(*ours.devices, named), spans=tuple(everything)))
    found = replays(both[0], both[1])
    assert found is not None
    assert of(found, "shared by reads", "source").devices == ("d0", "d1", "d2")


@pytest.mark.parametrize(
    "rules",
    [
        Rules(FOUR),
        Rules(FOUR, workers=1),
        Rules(alike(4, send=2.0, read=6.0), channels=1),
        Rules((Made(read=5.0), Made(read=3.1))),
        Rules(alike(2)),
        Rules(tuple(Made(read=4 + n, chunks=20) for n in range(5))),
    ],
    ids=["four", "one worker", "one channel", "two unlike", "two alike", "five unlike"],
)
def test_devices_that_share_nothing_are_not_said_to(rules: Rules) -> None:
    found = replays(*made(rules))
    assert found is not None
    assert not [one for one in found.freed if one.resource.startswith("shared")]


def slowed(times: float) -> tuple[SideReport, SideReport, list[StateCosts], float]:
    """A migration whose devices' reads and writes took so many times as long as they declare, and the truth without."""
    devices = tuple(replace(one, read=one.read * times, write=one.write * times) for one in FOUR)
    costs = [
        StateCosts(
            read=one.read * one.chunks / 1e3,
            write=one.write * one.chunks / 1e3,
            save_config=one.config / 1e3,
            load_config=one.config / 1e3,
        )
        for one in FOUR
    ]
    source, destination = made(Rules(devices))
    return replace(source, clock="monotonic"), destination, costs, downtime(Rules(FOUR))


def test_too_few_processors_are_the_reason_where_the_kernel_says_that_threads_had_none() -> None:
    source, destination, costs, truth = slowed(2.0)
    measured = (destination.running - source.stopped) / 1e6
    found = replays(replace(source, processors_short=destination.running - source.stopped), destination, costs)
    assert found is not None
    short = of(found, "processors", "")
    assert measured - short.shorter / 1e6 == pytest.approx(truth, rel=NEAR)
    assert reason(found.freed) == short
    assert named(short).startswith("there are too few processors: for ")


@pytest.mark.parametrize(("worth", "told"), [(49.0, True), (20.0, False)])
def test_processors_are_told_beside_a_greater_reason_where_they_are_worth_it(worth: float, told: bool) -> None:
    freed = [("big lock", "destination", 183.0, "configs load in turn"), ("processors", "", worth, "there are too few")]
    resources = [
        ResourceResult(resource=name, side=side, devices=[], shorter_ms=shorter, says=says)  # type: ignore[arg-type]
        for name, side, shorter, says in freed
    ]
    why = because(resources, 600.0, 600.0, {"lock": 200.0})
    besides = " Besides, there are too few. Without that: 551 ms instead of 600 ms." if told else ""
    assert why == f"configs load in turn. Without that: 417 ms instead of 600 ms.{besides}"


def test_no_more_is_gained_by_processors_than_they_were_short() -> None:
    source, destination, costs, _ = slowed(2.0)
    found = replays(replace(source, processors_short=3_000_000), replace(destination, processors_short=9), costs)
    assert found is not None
    assert of(found, "processors", "").shorter == 3_000_000


@pytest.mark.parametrize("short", [None, 0])
def test_devices_that_are_slower_than_they_say_are_no_matter_of_processors_that_nobody_waited_for(
    short: int | None,
) -> None:
    source, destination, costs, _ = slowed(2.0)
    found = replays(replace(source, processors_short=short), destination, costs)
    assert found is not None
    assert not [one for one in found.freed if one.resource == "processors"]


def test_of_two_hosts_either_may_have_too_few_processors() -> None:
    source, destination, _, _ = slowed(1.0)
    ours, theirs = replace(source, processors_short=5), replace(destination, processors_short=7)
    assert too_few_processors(ours, theirs) == 5  # one host, which both tell of
    assert too_few_processors(replace(ours, clock="return-path"), theirs) == 12
    assert too_few_processors(replace(ours, clock="exchanges", processors_short=None), theirs) == 7


def test_a_migration_without_a_downtime_is_not_replayed() -> None:
    source, destination = made(Rules(FOUR))
    assert replays(replace(source, stopped=0), destination) is None
    assert replays(source, replace(destination, running=0)) is None
