"""How a config crosses from one job to another."""

from __future__ import annotations

import threading

import pytest

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import KeepConfig, TakeConfig
from migpool.core.machine import Machine
from migpool.errors import Cancelled
from migpool.migration.kept_configs import KeptConfigs
from tests.support.rig import LIMIT, Scripted


def test_the_last_config_that_is_expected_completes_them_once_and_then_nobody_waits() -> None:
    machine = Machine("m", [Scripted(0), Scripted(1)])
    first, second = machine
    completed: list[list[bytes | None]] = []

    def complete() -> None:
        # In the job that keeps the last one: what is asked for here is there, or this would not come back.
        completed.append([kept.take(TakeConfig(slot)) for slot in machine])

    kept = KeptConfigs(CancelSwitch(), machine, complete)
    kept.keep(KeepConfig(second, b"second", 3))
    assert completed == []
    kept.keep(KeepConfig(first, b"first", 5))
    assert completed == [[b"first", b"second"]]
    kept.keep(KeepConfig(first, b"again", 5))
    assert len(completed) == 1


def test_who_takes_a_config_learns_the_chunk_that_it_came_in() -> None:
    (slot,) = Machine("m", [Scripted(0)])
    kept = KeptConfigs(CancelSwitch())
    kept.keep(KeepConfig(slot, b"config", 7))
    take = TakeConfig(slot)
    assert kept.take(take) == b"config"
    assert take.index == 7


def test_who_asks_too_early_waits_until_it_is_kept_or_the_switch_is_thrown() -> None:
    first, second = Machine("m", [Scripted(0), Scripted(1)])
    switch = CancelSwitch()
    kept = KeptConfigs(switch)
    taken: list[bytes | None] = []

    def take() -> None:
        taken.append(kept.take(TakeConfig(first)))
        with pytest.raises(Cancelled):
            kept.take(TakeConfig(second))
        taken.append(b"cancelled")

    taker = threading.Thread(target=take)
    taker.start()
    kept.keep(KeepConfig(first, b"config"))
    switch.cancel()
    taker.join(LIMIT)
    assert taken == [b"config", b"cancelled"]
