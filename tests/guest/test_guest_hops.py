"""A guest that never ends moves again and again, under every model, while it writes as fast as it can be followed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from migpool.device import Device, OptionValue
from migpool.migration.states import State
from migpool.scenario.model_syntax import parse_model
from tests.support.guests import guest, steps
from tests.support.rig import Pair

MODELS = ("inline", "per-device", "pool:2", "elastic", "pool+receiver")
GUEST: dict[str, OptionValue] = {"pattern": "hot", "hot": "1MiB", "rate": 20000}


def hop(made: list[Device], there: list[Device], model: str, together: bool, folder: Path) -> None:
    folder.mkdir()
    chosen = parse_model(model)
    source, destination = chosen.part("source"), chosen.part("destination")
    pair = Pair(made, there, workers=(source.workers, destination.workers))
    pair.models = (source.scheduler, destination.scheduler)
    # As little room as there can be, and several rounds.
    pair.settings = replace(pair.settings, budget=64 * 1024, downtime_limit=0.02, rounds=200, together=together)
    sent, received = pair.run(folder)
    assert (sent.error, received.error) == ("", ""), f"{model} in {folder.name}"
    assert received.outcome is State.COMPLETED


def hops(count: int, folder: Path) -> None:
    place = guest("source", "kvm", **GUEST)
    made = place.__enter__()
    try:
        before = steps(made)
        for number in range(count):
            after = guest("destination", "kvm", **GUEST)
            there = after.__enter__()
            try:
                hop(made, there, MODELS[number % len(MODELS)], bool(number % 2), folder / str(number))
            finally:
                place.__exit__(None, None, None)
                place, made = after, there
            now = steps(made)
            assert all(later > earlier for earlier, later in zip(before, now, strict=True))
            before = now
    finally:
        place.__exit__(None, None, None)


def test_a_guest_hops_under_every_model(tmp_path: Path) -> None:
    hops(len(MODELS), tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_guest_hops_two_hundred_times(tmp_path: Path) -> None:
    hops(200, tmp_path)
