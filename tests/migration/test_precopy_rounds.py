"""Pre-copy goes on while it is worth it, and says of each round what it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from migpool.core.machine import Machine, Slot
from migpool.device import Device, DeviceError, Pending
from migpool.migration.settings import Settings
from migpool.precopy.rounds import Decision, Precopy, PrecopyLimits, Round, RoundMeasure, Saved, decide
from tests.support.rig import KIB, Pair, Scripted, contents

LIMITS = PrecopyLimits(downtime=0.3, rounds=30)
MB = 1_000_000


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        pytest.param(RoundMeasure(Pending(0, 900 * MB)), Decision.SWITCH_OVER, id="nothing to save while it runs"),
        pytest.param(RoundMeasure(Pending(1, 0)), Decision.GO_ON, id="no rate is known yet"),
        pytest.param(RoundMeasure(Pending(1, 0), 3, 0, 1.0), Decision.GO_ON, id="nothing has moved"),
        pytest.param(
            RoundMeasure(Pending(20 * MB, 10 * MB), 1, 100 * MB, 1.0), Decision.SWITCH_OVER, id="fits exactly"
        ),
        pytest.param(RoundMeasure(Pending(20 * MB, 11 * MB), 1, 100 * MB, 1.0), Decision.GO_ON, id="a little too much"),
        pytest.param(RoundMeasure(Pending(900 * MB, 0), 29, 1 * MB, 1.0), Decision.GO_ON, id="one round is left"),
        pytest.param(RoundMeasure(Pending(900 * MB, 0), 30, 1 * MB, 1.0), Decision.SWITCH_OVER, id="enough rounds"),
        pytest.param(
            RoundMeasure(Pending(5, 0, 5), 99, 100 * MB, 1.0, stalled=15.0), Decision.GO_ON, id="initial data is left"
        ),
        pytest.param(
            RoundMeasure(Pending(5, 0, 5), 1, 100 * MB, 1.0, stalled=15.1), Decision.GIVE_UP, id="no headway with it"
        ),
        pytest.param(
            RoundMeasure(Pending(5, 0, 0), 1, 100 * MB, 1.0, stalled=99.0), Decision.SWITCH_OVER, id="none left"
        ),
        pytest.param(RoundMeasure(Pending(5), 1, idle=15.0), Decision.GO_ON, id="nothing moves just now"),
        pytest.param(RoundMeasure(Pending(5), 1, idle=15.1), Decision.SWITCH_OVER, id="nothing moves at all"),
    ],
)
def test_the_decision_rests_on_what_was_measured_alone(measured: RoundMeasure, verdict: Decision) -> None:
    assert decide(measured, LIMITS) is verdict


def test_what_is_left_gives_the_expected_downtime() -> None:
    assert RoundMeasure(Pending(30 * MB, 20 * MB), 2, 100 * MB, 2.0).expected_downtime == 1.0
    assert RoundMeasure(Pending(30 * MB, 20 * MB)).expected_downtime is None


def test_a_device_that_gives_more_than_it_said_has_dirtied_what_is_left() -> None:
    assert Round(1, 500, 1.0, Pending(100), RoundMeasure(Pending(40), 1, 500, 1.0), 500).dirtied == 40


def test_a_round_says_how_much_was_dirtied_in_it() -> None:
    done = Round(2, 100 * MB, 0.5, Pending(110 * MB, 0), RoundMeasure(Pending(60 * MB, 0), 2, 300 * MB, 2.0), 100 * MB)
    assert (done.rate, done.dirtied, done.dirty_rate) == (200 * MB, 50 * MB, 100 * MB)


class Dirtied(Scripted):
    """Has something to save again after each round, less each time."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__(0)
        self.sizes = sizes

    def pending(self) -> Pending:
        return Pending(self.sizes[0] if self.sizes else 0)


class Told:
    """Turns that only note what they are asked for."""

    at_once = False

    def __init__(self, save: Callable[[Slot, int], int | Saved]) -> None:
        self._save = save
        self.said: list[str] = []
        self.pauses = 0

    def pending(self, slot: Slot, /) -> Pending:
        return slot.device.pending()

    def save(self, wanted: Sequence[tuple[Slot, int]], /) -> Sequence[Saved]:
        done = [self._save(slot, precopy) for slot, precopy in wanted]
        return [one if isinstance(one, Saved) else Saved(one, one) for one in done]

    def initial_sent(self, slot: Slot, /) -> None:
        self.said.append(slot.name)

    def pause(self, seconds: float, /) -> None:
        assert 0 < seconds < 1
        self.pauses += 1


def slots(*devices: Device) -> tuple[Slot, ...]:
    return Machine("m", devices).iterable


def test_rounds_are_run_and_told_one_after_the_other() -> None:
    device = Dirtied([400, 200, 100])
    told: list[Round] = []

    def save(slot: Slot, precopy: int) -> int:
        assert slot.device is device
        device.sizes.pop(0)
        return precopy

    turns = Told(save)
    measured = Precopy(slots(device), turns, PrecopyLimits(0.0, 30), told.append).run()
    assert [(done.number, done.bytes, done.after.left.precopy) for done in told] == [
        (1, 400, 200),
        (2, 200, 100),
        (3, 100, 0),
    ]
    assert measured == told[-1].after
    assert (measured.rounds, measured.bytes) == (3, 700)
    assert (turns.said, turns.pauses) == ([], 0)


def test_the_rate_is_that_of_what_crossed_in_the_time_that_it_took() -> None:
    device = Dirtied([1000 * MB, 30 * MB])
    told: list[Round] = []

    def save(_: Slot, precopy: int) -> Saved:
        device.sizes.pop(0)
        return Saved(precopy, 10 * MB, share=0.25)

    measured = Precopy(slots(device), Told(save), PrecopyLimits(30.0, 30), told.append).run()
    (done,) = told
    assert (done.bytes, done.sent, done.dirtied) == (1000 * MB, 10 * MB, 30 * MB)
    assert measured.bytes == 10 * MB
    assert 0 < measured.seconds <= done.seconds / 4
    assert measured.expected_downtime == pytest.approx(3 * measured.seconds)


def test_there_are_no_more_rounds_than_the_limit() -> None:
    device = Dirtied([1] * 10)
    measured = Precopy(slots(device), Told(lambda *_: device.sizes.pop(0)), PrecopyLimits(0.0, 4)).run()
    assert (measured.rounds, len(device.sizes)) == (4, 6)


def test_a_device_that_gives_nothing_of_what_it_has_costs_a_pause_a_round() -> None:
    turns = Told(lambda *_: 0)
    measured = Precopy(slots(Dirtied([4096])), turns, PrecopyLimits(0.3, 30)).run()
    assert (measured.rounds, measured.bytes, turns.pauses) == (30, 0, 30)


def test_a_device_that_gives_nothing_does_not_keep_the_machine_for_as_many_rounds_as_there_may_be() -> None:
    measured = Precopy(slots(Dirtied([4096])), Told(lambda *_: 0), PrecopyLimits(0.3, 1 << 60, headway=0.02)).run()
    assert measured.idle > 0.02


def test_a_device_that_cannot_say_what_is_left_is_named() -> None:
    class Silent(Scripted):
        def pending(self) -> Pending:
            raise OSError(5, "gone")

    with pytest.raises(DeviceError, match="device-3: OSError in its pending"):
        Precopy(slots(Silent(3)), Told(lambda *_: 0), PrecopyLimits(0.3, 30)).run()


# ---------------------------------------------------------------------- initial data


class Initial(Scripted):
    """Shows one after the other how much initial data is left; the last amount stays."""

    def __init__(self, number: int, *left: int) -> None:
        super().__init__(number)
        self.left = list(left)

    def pending(self) -> Pending:
        left = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return Pending(precopy=left, initial=left)


def test_initial_data_is_sent_whatever_the_limits_say_and_said_once_a_device() -> None:
    turns = Told(lambda *_: 1 << 40)
    devices = Initial(0, 30, 20, 10, 0, 5, 0), Initial(1, 2, 0, 0, 0, 0, 0), Initial(2, 0)
    precopy = Precopy(slots(*devices), turns, PrecopyLimits(downtime=60.0, rounds=1))
    assert precopy.run().rounds == 3
    assert turns.said == ["device-2", "device-1", "device-0"]
    assert precopy.with_initial == ("device-0", "device-1")
    assert precopy.run().rounds == 4, "some came back, and was saved"
    assert turns.said == ["device-2", "device-1", "device-0"]


def test_a_device_that_makes_no_headway_with_its_initial_data_is_given_up_by_name() -> None:
    device = Initial(1, 9, 7)
    turns = Told(lambda *turn: 0 if turn[0].number else 512)
    with pytest.raises(DeviceError, match="device-1: 7 bytes of its initial data are left, and have not become less"):
        Precopy(slots(Initial(0, 1, 0), device), turns, PrecopyLimits(60.0, 1, headway=0.01)).run()
    assert turns.said == ["device-0"]


def test_a_migration_tells_its_rounds_while_it_runs(tmp_path: Path) -> None:
    source, destination = [Scripted(0, contents(50 * KIB, 1))], [Scripted(0)]
    source[0].precopy = contents(40 * KIB, 2)
    told: list[tuple[int, bool]] = []
    pair = Pair(source, destination, settings=Settings(chunk=16 * KIB, budget=256 * KIB, downtime_limit=0.0))
    pair.progress = lambda done: told.append((done.bytes, source[0].running))
    pair.run(tmp_path)
    assert told == [(40 * KIB, True)]
