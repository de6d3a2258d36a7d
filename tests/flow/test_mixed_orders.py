"""No deadlock, whatever the order: devices with tags, described ones that wait for others, and ones with two jobs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from migpool.errors import DeviceError
from tests.support import LONG
from tests.support.explorer import DeadlockError, EveryOrder
from tests.support.mixed_world import Kind, MixedWorld

ORDERS = 4_000 if LONG else 60
"""How many orders of a migration are tried at the most."""

SMALL = [
    pytest.param([Kind("tagged", 2, 2)], {"rooms": 1}, id="tags, one room"),
    pytest.param([Kind("tagged", 2, 2)], {"rooms": 3, "channels": 2}, id="tags, three rooms"),
    pytest.param([Kind("tagged", 0, 2)], {"rooms": 1}, id="tags, no state"),
    pytest.param(
        [Kind("tagged", 1, 2), Kind("tagged", 1, 2)], {"rooms": 2, "savers": 1, "loaders": 1}, id="two in turn"
    ),
    pytest.param([Kind("plain", 2, 2)], {"rooms": 1}, id="two jobs, one room"),
    pytest.param([Kind("plain", 2, 2)], {"rooms": 2, "channels": 2}, id="two jobs, two rooms"),
    pytest.param([Kind("plain", 1, 2), Kind("plain", 1)], {"rooms": 2, "savers": 1, "loaders": 1}, id="one saver"),
    pytest.param([Kind("described", 2)], {"rooms": 1}, id="described"),
    pytest.param([Kind("described", 1), Kind("described", 1, after=[0])], {"rooms": 1}, id="one after the other"),
    pytest.param(
        [Kind("described", 1, after=[1]), Kind("described", 1)], {"rooms": 1, "loaders": 1}, id="the second first"
    ),
    pytest.param(
        [Kind("tagged", 1, 2), Kind("described", 1, after=[0])],
        {"rooms": 2, "savers": 1, "loaders": 1},
        id="behind one with tags",
    ),
]


def world(kinds: list[Kind], given: dict[str, Any], *, hold: bool = False) -> MixedWorld:
    return MixedWorld(kinds, **{"channels": 1, "savers": 2, "loaders": 2, "hold": hold, **given})


@pytest.mark.parametrize(("kinds", "given"), SMALL)
@pytest.mark.parametrize("hold", [False, True], ids=["configs as loaded", "configs after all states"])
def test_every_order_of_a_small_migration_ends_with_everything_loaded(
    kinds: list[Kind], given: dict[str, Any], hold: bool
) -> None:
    if hold and any(kind.after for kind in kinds):
        hold = all(kinds[number].name == "described" for kind in kinds for number in kind.after)
    order = EveryOrder()
    for _ in range(ORDERS):
        small = world(kinds, given, hold=hold)
        small.run(order)
        small.check()
        if not order.another():
            break


@pytest.mark.parametrize(("kinds", "given"), SMALL)
def test_random_orders_of_a_small_migration_reach_what_the_first_ones_do_not(
    kinds: list[Kind], given: dict[str, Any]
) -> None:
    dice = random.Random(len(kinds))
    for _ in range(100 if LONG else 25):
        small = world(kinds, given)
        small.run(dice.randrange)
        small.check()


@pytest.mark.parametrize("seed", range(20))
def test_random_orders_of_larger_migrations_end_with_everything_loaded(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(5):
        iterable = [
            Kind(dice.choice(["tagged", "plain"]), dice.randint(0, 7), dice.randint(1, 4))
            for _ in range(dice.randint(1, 4))
        ]
        described = [
            Kind(
                "described",
                dice.randint(1, 3),
                after=sorted(dice.sample(range(len(iterable) + at), dice.randint(0, min(2, len(iterable) + at)))),
            )
            for at in range(dice.randint(0, 4))
        ]
        kinds = [*iterable, *described]
        large = MixedWorld(
            kinds,
            rooms=len(kinds) + dice.randint(1, 6),
            channels=dice.randint(1, 4),
            savers=dice.randint(1, 6),
            loaders=dice.randint(1, 6),
        )
        large.run(dice.randrange)
        large.check()
        assert 0 < large.most_held <= large.rooms


@pytest.mark.parametrize("kind", [Kind("tagged", 3, 2), Kind("plain", 3, 2), Kind("described", 3)])
def test_a_destination_that_gives_no_credit_is_seen_as_a_deadlock(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = world([kind], {"rooms": 1})
    monkeypatch.setattr(stuck.windows, "loaded", lambda _: [])
    with pytest.raises(DeadlockError, match="Credit"):
        stuck.run(lambda _: 0)


def test_a_device_that_is_never_said_to_be_loaded_is_seen_as_a_deadlock() -> None:
    stuck = world([Kind("described", 1), Kind("described", 1, after=[0])], {"rooms": 1})
    stuck.machine.slots[0].awaited = False  # nobody is told
    with pytest.raises(DeadlockError, match="AfterOthers"):
        stuck.run(lambda _: 0)


def test_a_part_that_comes_twice_is_seen() -> None:
    twice = world([Kind("tagged", 3, 1)], {"rooms": 3})
    device: Any = twice.machine.slots[0].device
    device.tags = [7, 7]
    with pytest.raises(DeviceError, match="has returned the tag 7 twice"):
        twice.run(lambda _: 0)
