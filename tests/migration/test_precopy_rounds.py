"""Pre-copy goes on while it is worth it, and says of each round what it did."""

from __future__ import annotations

from pathlib import Path

import pytest
from rig import KIB, Pair, Scripted, contents

from migpool.device import Pending
from migpool.machine import Machine, Slot
from migpool.precopy import Limits, Measured, Precopy, Round, Verdict, decide
from migpool.settings import Settings

LIMITS = Limits(downtime=0.3, rounds=30)
MB = 1_000_000


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        pytest.param(Measured(Pending(0, 900 * MB)), Verdict.SWITCH_OVER, id="nothing to save while it runs"),
        pytest.param(Measured(Pending(1, 0)), Verdict.GO_ON, id="no rate is known yet"),
        pytest.param(Measured(Pending(1, 0), 3, 0, 1.0), Verdict.GO_ON, id="nothing has moved"),
        pytest.param(Measured(Pending(20 * MB, 10 * MB), 1, 100 * MB, 1.0), Verdict.SWITCH_OVER, id="fits exactly"),
        pytest.param(Measured(Pending(20 * MB, 11 * MB), 1, 100 * MB, 1.0), Verdict.GO_ON, id="a little too much"),
        pytest.param(Measured(Pending(900 * MB, 0), 29, 1 * MB, 1.0), Verdict.GO_ON, id="one round is left"),
        pytest.param(Measured(Pending(900 * MB, 0), 30, 1 * MB, 1.0), Verdict.SWITCH_OVER, id="enough rounds"),
    ],
)
def test_the_decision_rests_on_what_was_measured_alone(measured: Measured, verdict: Verdict) -> None:
    assert decide(measured, LIMITS) is verdict


def test_what_is_left_gives_the_expected_downtime() -> None:
    assert Measured(Pending(30 * MB, 20 * MB), 2, 100 * MB, 2.0).expected_downtime == 1.0
    assert Measured(Pending(30 * MB, 20 * MB)).expected_downtime is None


def test_a_round_says_how_much_was_dirtied_in_it() -> None:
    done = Round(2, 100 * MB, 0.5, Pending(110 * MB, 0), Measured(Pending(60 * MB, 0), 2, 300 * MB, 2.0))
    assert (done.rate, done.dirtied, done.dirty_rate) == (200 * MB, 50 * MB, 100 * MB)


class Dirtied(Scripted):
    """Has something to save again after each round, less each time."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__(0)
        self.sizes = sizes

    def pending(self) -> Pending:
        return Pending(self.sizes[0] if self.sizes else 0)


def test_rounds_are_run_and_told_one_after_the_other() -> None:
    device = Dirtied([400, 200, 100])
    told: list[Round] = []

    def save(slot: Slot, precopy: int) -> int:
        assert slot.device is device
        device.sizes.pop(0)
        return precopy

    measured = Precopy(Machine("m", [device]).iterable, save, Limits(0.0, 30), told.append).run()
    assert [(done.number, done.bytes, done.after.left.precopy) for done in told] == [
        (1, 400, 200),
        (2, 200, 100),
        (3, 100, 0),
    ]
    assert measured == told[-1].after
    assert (measured.rounds, measured.bytes) == (3, 700)


def test_there_are_no_more_rounds_than_the_limit() -> None:
    device = Dirtied([1] * 10)
    measured = Precopy(Machine("m", [device]).iterable, lambda *_: device.sizes.pop(0), Limits(0.0, 4)).run()
    assert (measured.rounds, len(device.sizes)) == (4, 6)


def test_a_migration_tells_its_rounds_while_it_runs(tmp_path: Path) -> None:
    source, destination = [Scripted(0, contents(50 * KIB, 1))], [Scripted(0)]
    source[0].precopy = contents(40 * KIB, 2)
    told: list[tuple[int, bool]] = []
    pair = Pair(source, destination, settings=Settings(chunk=16 * KIB, budget=256 * KIB, downtime_limit=0.0))
    pair.progress = lambda done: told.append((done.bytes, source[0].running))
    pair.run(tmp_path)
    assert told == [(40 * KIB, True)]
