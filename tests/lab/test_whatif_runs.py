"""Real migrations with a fault that nobody tells of: it is what the downtime is said to be so long for."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from migpool.device import ConfigLock
from migpool.lab.analysis.bound import lower_bound
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.analysis.device_costs import device_costs
from migpool.lab.analysis.whatif.resources import replays
from migpool.lab.analysis.why import analyse
from migpool.lab.run.result import AnalysisResult
from migpool.migration.report import SideReport
from migpool.migration.settings import ConfigLoad, Settings
from migpool.schedulers.base import Scheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler as Own
from migpool.schedulers.poll import PollScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from tests.support.attribution.attribution_machine import LIMIT, Slow, migrate
from tests.support.measured import undisturbed
from tests.support.thinned import every_pair

pytestmark = pytest.mark.alone  # what is measured is compared with what is reckoned from it

NAMES = ["first", "second", "third"]


class InTurn(Slow):
    """A device whose driver has a lock: its reads, or its writes, wait for those of the others."""

    def __init__(self, name: str, chunks: int, call: str, seconds: float, lock: threading.Lock) -> None:
        super().__init__(name, chunks, {})
        self._lock = lock
        self._call = call
        self._each = seconds

    def _take_time(self, call: str) -> None:
        if call == self._call:
            with self._lock:
                time.sleep(self._each)


def in_turn(call: str) -> list[Slow]:
    lock = threading.Lock()
    return [InTurn(name, 12, call, 0.006, lock) for name in NAMES]


def machine(*reads: float, write: float = 0.0, chunks: int = 8) -> list[Slow]:
    return [
        Slow(name, chunks, {"save_state": read, "load_state": write}) for name, read in zip(NAMES, reads, strict=False)
    ]


def looked_into(reports: Sequence[SideReport]) -> AnalysisResult:
    source, destination = reports
    found = analyse(source, destination, 65536)
    assert found is not None
    return found


def test_a_lock_within_the_devices_is_named_that_no_span_shows(tmp_path: Path) -> None:
    def check(place: Path) -> None:
        found = looked_into(migrate(in_turn("save_state"), machine(0, 0, 0), Own(), Own(), place))
        assert found.why.startswith("the reads of first, second and third never run at the same time")
        assert found.resources[0].shorter_ms > 48  # of three devices' 72 ms each, two devices' are for waiting

    undisturbed(check, tmp_path)


def test_so_is_one_at_the_destination(tmp_path: Path) -> None:
    def check(place: Path) -> None:
        found = looked_into(migrate(machine(0, 0, 0, chunks=12), in_turn("load_state"), Own(), Own(), place))
        assert found.why.startswith("the writes of first, second and third never run at the same time")
        assert found.resources[0].shorter_ms > 48

    undisturbed(check, tmp_path)


def test_devices_without_one_are_not_accused(tmp_path: Path) -> None:
    def check(place: Path) -> None:
        reads = (0.006, 0.0075, 0.009)
        found = looked_into(migrate(machine(*reads, chunks=12), machine(0, 0, 0), Own(), Own(), place))
        assert "never run at the same time" not in found.why

    undisturbed(check, tmp_path)


def test_one_slow_device_is_named(tmp_path: Path) -> None:
    def check(place: Path) -> None:
        found = looked_into(migrate(machine(0.002, 0.02, 0.002), machine(0, 0, 0), Own(), Own(), place))
        assert found.why.startswith("second is slow: it takes ")

    undisturbed(check, tmp_path)


def test_one_worker_is_named(tmp_path: Path) -> None:
    def check(place: Path) -> None:
        reads = (0.01, 0.01, 0.01)
        found = looked_into(migrate(machine(*reads), machine(0, 0, 0), PoolScheduler(), Own(), place, workers=1))
        assert found.why.startswith("there are too few threads at the source")
        assert found.resources[0].shorter_ms > 120  # three times 80 ms of reads, one after the other

    undisturbed(check, tmp_path)


def test_one_channel_whose_thread_also_loads_is_named(tmp_path: Path) -> None:
    def check(place: Path) -> None:
        settings = Settings(channels=1, chunk=65536, budget=1 << 20, peer_limit=LIMIT)
        found = looked_into(
            migrate(
                machine(0, 0, 0),
                machine(0, 0, 0, write=0.008),
                Own(),
                ReceiverScheduler(),
                place,
                settings=settings,
            )
        )
        assert found.why.startswith("there are too few channels")

    undisturbed(check, tmp_path)


def test_the_big_lock_is_named(tmp_path: Path) -> None:
    slow = [Slow(name, 2, {"load_config": 0.05}) for name in NAMES]
    fast = [Slow(name, 2, {}) for name in NAMES]
    found = looked_into(migrate(fast, slow, Own(), Own(), tmp_path))
    assert found.why.startswith("the devices' configs load one after the other under the big lock")


def test_the_replay_of_a_real_run_is_near_it_and_the_path_is_told_whole(tmp_path: Path) -> None:
    def check(place: Path) -> None:
        source, destination = migrate(
            machine(0.005, 0.006, 0.007),
            machine(0, 0, 0, write=0.004),
            Own(),
            Own(),
            place,
        )
        found, whole = looked_into((source, destination)), attribute(source, destination)
        assert found.replayed_ms == pytest.approx(whole.downtime / 1e6, rel=0.25)
        assert sum(link.end_ms - link.begin_ms for link in found.path) == pytest.approx(whole.downtime / 1e6)
        assert found.path[0].begin_ms == 0
        assert all(one.end_ms == next_.begin_ms for one, next_ in zip(found.path, found.path[1:], strict=False))
        again = replays(source, destination)
        assert again is not None
        assert [one.shorter_ms for one in found.resources] == [one.shorter / 1e6 for one in again.freed]

    undisturbed(check, tmp_path)


def test_the_budget_in_use_over_time_peaks_at_the_high_water_mark(tmp_path: Path) -> None:
    source, destination = migrate(machine(0, 0, 0), machine(0, 0, 0, write=0.004), Own(), Own(), tmp_path)
    used = [count for _, count in looked_into((source, destination)).memory]
    assert used[-1] == 0
    # A buffer is taken a moment before its span begins, and another may be given back within that moment.
    assert abs(max(used) - destination.high_water) <= 2 * 65536


@pytest.mark.parametrize(
    ("saving", "loading", "config_load"),
    every_pair(
        [Own, PoolScheduler, PollScheduler, InlineScheduler],
        [Own, PoolScheduler, ReceiverScheduler, InlineScheduler],
        ["as-loaded", "after-iterables"],
    ),
)
def test_the_replay_is_near_under_every_way_of_using_threads(
    saving: type[Scheduler], loading: type[Scheduler], config_load: ConfigLoad, tmp_path: Path
) -> None:
    settings = Settings(channels=2, chunk=65536, budget=1 << 20, peer_limit=LIMIT, config_load=config_load)

    def check(place: Path) -> None:
        reports = migrate(
            machine(0.004, 0.005, 0.006),
            [Slow(name, 8, {"load_state": 0.003, "load_config": 0.01}) for name in NAMES],
            saving(),
            loading(),
            place,
            settings=settings,
        )
        found = replays(*reports)
        assert found is not None
        assert found.replayed == pytest.approx(found.downtime, rel=0.25)

    undisturbed(check, tmp_path)


def described(count: int, lock: ConfigLock, seconds: float) -> list[Slow]:
    """Devices that are not iterable, every other one of which is loaded after the one before."""
    made = [Slow(f"s{number}", 0, {"save_config": seconds, "load_config": seconds}) for number in range(count)]
    for number, device in enumerate(made):
        device.iterable = False
        device.save_lock = device.load_lock = lock
        device.after = [made[number - 1].idstr] if number % 2 else []
    return made


@pytest.mark.parametrize("lock", ["big", "own", "none"])
@pytest.mark.parametrize("saving", [Own, PoolScheduler, PollScheduler])
def test_the_replay_knows_jobs_of_configs_their_locks_and_several_jobs_of_a_device(
    saving: type[Scheduler], lock: ConfigLock, tmp_path: Path
) -> None:
    settings = Settings(channels=2, chunk=65536, budget=1 << 20, peer_limit=LIMIT, vmsd="multifd", in_flight=2)

    def check(place: Path) -> None:
        reports = migrate(
            [*described(6, lock, 0.004), *machine(0.004, 0.005)],
            [*described(6, lock, 0.008), *machine(0, 0, write=0.006)],
            saving(),
            Own(),
            place,
            settings=settings,
        )
        assert [report.error for report in reports] == ["", ""]
        found, whole = replays(*reports), attribute(*reports)
        assert found is not None
        assert found.replayed == pytest.approx(found.downtime, rel=0.25)
        assert sum(link.end - link.begin for link in whole.links) == whole.downtime
        bound = lower_bound([reports])
        assert 0 < bound.milliseconds * 1e6 <= whole.downtime
        assert [one.load_locked for one in device_costs([reports])] == [*[lock == "big"] * 6, True, True]

    undisturbed(check, tmp_path)
