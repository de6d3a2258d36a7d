"""What a resource costs, in made-up migrations of which that is known: the replay comes to the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from migpool.lab.analysis.whatif.resources import Freed, Replays, replays
from migpool.lab.analysis.why import reason
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


def test_a_migration_without_a_downtime_is_not_replayed() -> None:
    source, destination = made(Rules(FOUR))
    assert replays(replace(source, stopped=0), destination) is None
    assert replays(source, replace(destination, running=0)) is None
