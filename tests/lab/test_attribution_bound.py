"""The lower bound is below all that can be reached, is reached where nothing is in the way, and says what limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.core.effects import Wait
from migpool.device import Device, DeviceContext, OptionValue, StateCosts
from migpool.errors import UsageError
from migpool.lab.analysis.bound import bound_of, lower_bound
from migpool.lab.analysis.device_costs import DeviceCosts
from migpool.migration.report import SideReport
from migpool.migration.settings import ConfigLoad, Settings
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from migpool_plugins.vfio import devices
from tests.support.attribution.attribution_machine import Slow, migrate
from tests.support.attribution.attribution_spans import Row, side_report
from tests.support.thinned import every_pair

NETWORK_FUNCTION = DeviceCosts(
    "nic", stop=0.005, read=0.25, write=0.25, write_last=0.0025, load_config=0.07, bytes=100 << 20
)


def four(device: DeviceCosts) -> list[DeviceCosts]:
    return [replace(device, name=f"nic-{n}") for n in range(4)]


# ---------------------------------------------------------------- known answers


def test_one_device_is_its_own_chain() -> None:
    bound = bound_of([NETWORK_FUNCTION])
    assert bound.milliseconds == pytest.approx(5 + 250 + 2.5 + 70)
    assert bound.limited_by == "nic: stops 5.00 ms, read 250 ms, last write 2.50 ms, config load 70.0 ms"


def test_four_devices_are_limited_by_their_configs_under_the_big_lock() -> None:
    bound = bound_of(four(NETWORK_FUNCTION))
    # The first device reads while the others stop, but its writes begin when all have; then come all configs.
    assert bound.milliseconds == pytest.approx(20 + 250 + 4 * 70)
    assert bound.limited_by == "big lock: 4 config loads of 70.0 ms"
    assert bound.parts["longest chain"] == pytest.approx(20 + 250 + 2.5 + 70)
    assert list(bound.parts.values()) == sorted(bound.parts.values(), reverse=True)


def test_saves_under_the_big_lock_limit_too() -> None:
    bound = bound_of(four(replace(NETWORK_FUNCTION, save_config=0.2, load_config=0.01)))
    assert bound.milliseconds == pytest.approx(5 + 250 + 4 * 200 + 10)
    assert bound.limited_by == "big lock: 4 config saves of 200 ms"


def test_the_config_is_saved_while_the_last_chunk_is_on_its_way() -> None:
    bound = bound_of([replace(NETWORK_FUNCTION, save_config=0.002)])
    assert bound.milliseconds == pytest.approx(5 + 250 + 2.5 + 70)


def test_writes_that_are_slower_than_the_reads_limit_a_chain() -> None:
    bound = bound_of([replace(NETWORK_FUNCTION, write=0.5)])
    assert bound.milliseconds == pytest.approx(5 + 500 + 70)
    assert bound.limited_by == "nic: stops 5.00 ms, writes 500 ms, config load 70.0 ms"


def test_starts_follow_everything() -> None:
    assert bound_of(four(replace(NETWORK_FUNCTION, start=0.01))).milliseconds == pytest.approx(270 + 4 * 70 + 40)


QUICK_CONFIG = replace(NETWORK_FUNCTION, load_config=0.001)


def test_a_lock_that_devices_share() -> None:
    bound = bound_of(four(replace(QUICK_CONFIG, read_lock="driver")))
    assert bound.milliseconds == pytest.approx(5 + 4 * 250 + 2.5 + 1)
    assert bound.limited_by == "lock driver: reads of 4 devices, 1000 ms together"


def test_a_lock_that_nobody_else_has_is_none() -> None:
    alone = [replace(NETWORK_FUNCTION, read_lock="a"), replace(NETWORK_FUNCTION, read_lock="b")]
    assert bound_of(alone).parts.keys() == {"longest chain", "big lock, saving", "big lock, loading"}


def test_the_bytes_cross_the_link_at_its_rate() -> None:
    bound = bound_of(four(NETWORK_FUNCTION), link_rate=200 << 20)
    assert bound.milliseconds == pytest.approx(20 + 2000 + 70)
    assert bound.limited_by == "link: 400 MiB at its rate"
    with pytest.raises(UsageError, match="must be over 0"):
        bound_of([NETWORK_FUNCTION], link_rate=0)


def test_a_little_more_than_the_longest_chain_is_still_the_chain() -> None:
    sections = [DeviceCosts(f"small-{n}", save_config=1e-5, load_config=1e-5) for n in range(10)]
    assert bound_of([NETWORK_FUNCTION, *sections]).limited_by.startswith("nic: ")


def test_efficiency_is_the_bound_over_the_downtime() -> None:
    bound = bound_of([NETWORK_FUNCTION])
    assert bound.efficiency(655.0) == pytest.approx(0.5)
    assert bound.efficiency(0.0) == 0.0


# ---------------------------------------------------------------- never above what can be reached


@dataclass(frozen=True)
class Chunked:
    """A device, chunk by chunk, in whole ms."""

    quiesce: int
    stop: int
    reads: list[int]
    writes: list[int]
    save: int
    load: int
    start: int

    def costs(self, number: int, read_lock: str) -> DeviceCosts:
        return DeviceCosts(
            name=f"device-{number}",
            bytes=len(self.reads) * 1000,
            iterable=bool(self.reads),
            quiesce=self.quiesce / 1e3,
            stop=self.stop / 1e3,
            read=sum(self.reads) / 1e3,
            write=sum(self.writes) / 1e3,
            write_last=self.writes[-1] / 1e3 if self.writes else 0.0,
            save_config=self.save / 1e3,
            load_config=self.load / 1e3,
            start=self.start / 1e3,
            read_lock=read_lock,
        )


def in_turns(members: Sequence[int], pieces: Sequence[Sequence[int]], ready: list[list[int]], order: int) -> None:
    """Have one lock pass over all pieces, a device's in order: ``ready`` becomes when each piece is done."""
    free = 0
    left = {member: list(range(len(pieces[member]))) for member in members}
    while any(left.values()):
        waiting = [member for member in members if left[member]]
        member = waiting[order % len(waiting)]
        order = order * 7 + 3
        piece = left[member].pop(0)
        before = ready[member][piece - 1] if piece else 0
        free = max(free, before, ready[member][piece]) + pieces[member][piece]
        ready[member][piece] = free


def one_after_the_other(pieces: Sequence[int], ready: list[int]) -> None:
    done = 0
    for at, piece in enumerate(pieces):
        done = max(done, ready[at]) + piece
        ready[at] = done


def simulate(machine: Sequence[Chunked], read_shared: bool, orders: list[int], config_load: ConfigLoad) -> int:
    """One schedule that unlimited threads and an infinitely fast link could reach, in ms; locks go in any order."""
    everyone = range(len(machine))
    stopped = sum(device.quiesce for device in machine)
    ready: list[list[int]] = []
    for device in machine:
        stopped += device.stop
        ready.append([stopped] * len(device.reads))
    if read_shared:
        in_turns(everyone, [device.reads for device in machine], ready, orders[0])
    else:
        for at in everyone:
            one_after_the_other(machine[at].reads, ready[at])
    arrived = [[max(time, stopped) for time in times] for times in ready]
    saved = [[max([stopped, *times])] for times in arrived]
    in_turns(everyone, [[device.save] for device in machine], saved, orders[1])
    for at in everyone:
        one_after_the_other(machine[at].writes, arrived[at])
    written = [max([stopped, *times]) for times in arrived]
    if config_load == "after-iterables":
        last = max((written[at] for at in everyone if machine[at].reads), default=0)
        written = [last if machine[at].reads else written[at] for at in everyone]
    loaded = [[max(saved[at][0], written[at])] for at in everyone]
    in_turns(everyone, [[device.load] for device in machine], loaded, orders[2])
    return max(max(times) for times in loaded) + sum(device.start for device in machine)


@st.composite
def machines(draw: st.DrawFn) -> list[Chunked]:
    small = st.integers(0, 12)
    machine = []
    for _ in range(draw(st.integers(1, 5))):
        chunks = draw(st.integers(0, 4))
        pieces = st.lists(small, min_size=chunks, max_size=chunks)
        machine.append(
            Chunked(draw(small), draw(small), draw(pieces), draw(pieces), draw(small), draw(small), draw(small))
        )
    return machine


@given(
    machines(),
    st.booleans(),
    st.lists(st.integers(0, 99), min_size=3, max_size=3),
    st.sampled_from(["as-loaded", "after-iterables"]),
)
def test_no_schedule_goes_below_the_bound(
    machine: list[Chunked], reads: bool, orders: list[int], config_load: ConfigLoad
) -> None:
    costs = [device.costs(number, "r" if reads else "") for number, device in enumerate(machine)]
    bound = bound_of(costs, config_load=config_load)
    assert bound.milliseconds <= simulate(machine, reads, orders, config_load) + 1e-9


def test_configs_that_wait_for_every_iterable_device_wait_for_the_slowest() -> None:
    section = DeviceCosts("section", iterable=False, load_config=0.001)
    quick = replace(NETWORK_FUNCTION, name="quick", read=0.01, write=0.01, load_config=0.2)
    machine = [section, quick, replace(NETWORK_FUNCTION, load_config=0.0)]
    bound = bound_of(machine, config_load="after-iterables")
    assert bound.milliseconds == pytest.approx(10 + 250 + 2.5 + 200)
    assert bound.limited_by == "nic: stops 10.0 ms, read 250 ms, last write 2.50 ms, config load of quick 200 ms"
    assert bound_of(machine).milliseconds == pytest.approx(10 + 250 + 2.5)


def test_all_are_quiet_before_the_first_stops() -> None:
    assert bound_of(four(replace(NETWORK_FUNCTION, quiesce=0.01))).milliseconds == pytest.approx(310 + 4 * 70)


BIG_LOCK: dict[str, OptionValue] = {"size": "4MiB", "load_config_time": "10ms"}
SHARED_LOCK: dict[str, OptionValue] = {
    "size": "3MiB",
    "shared_lock": "both",
    "write_rate": "200MiB",
    "load_config_time": "1ms",
}


@pytest.mark.parametrize(
    ("loading", "config_load", "options"),
    every_pair(
        [InlineScheduler, PerDeviceScheduler, ReceiverScheduler],
        ["as-loaded", "after-iterables"],
        [BIG_LOCK, SHARED_LOCK],
    ),
)
def test_no_run_of_emulated_devices_goes_below_the_bound(
    loading: type[Scheduler], config_load: ConfigLoad, options: dict[str, OptionValue], tmp_path: Path
) -> None:
    ours, theirs = (
        devices(DeviceContext(side, {"profile": "network-function", **options}, 3, 5))
        for side in ("source", "destination")
    )
    try:
        how = Settings(channels=3, config_load=config_load)
        run = migrate(ours, theirs, PerDeviceScheduler(), loading(), tmp_path, settings=how)
        declared = [device.costs() for device in ours]
        bound = lower_bound([run], declared, config_load=config_load)
    finally:
        for device in (*ours, *theirs):
            device.close()
    downtime = (run[0].running - run[0].stopped) / 1e6
    assert 0.0 < bound.efficiency(downtime) <= 1.0
    assert bound.milliseconds > 15.0 + 3 * (10.0 if "10ms" in options.values() else 1.0)


def test_no_run_of_devices_that_declare_nothing_goes_below_the_bound(tmp_path: Path) -> None:
    calls = {"stop": 0.002, "save_state": 0.003, "load_state": 0.002, "load_config": 0.01, "start": 0.001}

    def machine() -> list[Device]:
        return [*(Slow(f"large-{n}", 4, calls) for n in range(3)), Slow("small", 0, calls)]

    runs = []
    pairs: list[tuple[Scheduler, Scheduler]] = [
        (InlineScheduler(), InlineScheduler()),
        (PerDeviceScheduler(), PerDeviceScheduler()),
        (PoolScheduler(), ReceiverScheduler()),
    ]
    for number, (saving, loading) in enumerate(pairs):
        where = tmp_path / str(number)
        where.mkdir()
        runs.append(migrate(machine(), machine(), saving, loading, where))
    bound = lower_bound(runs)
    assert bound.milliseconds >= 4 * 2 + 4 * 3 + 2 + 3 * 10 + 4 * 1
    for source, _ in runs:
        assert bound.efficiency((source.running - source.stopped) / 1e6) <= 1.0


# ---------------------------------------------------------------- costs from runs


def run_of(read: float, write: float, load: float, last: float = 1.0) -> tuple[SideReport, SideReport]:
    source: list[Row] = [
        (Wait.STOP, 0, -1, 0, 2, "main"),
        (Wait.READ, 0, 0, 10, 10 + read, "x"),
        (Wait.READ, 0, 1, 60, 60 + read, "x"),
    ]
    destination: list[Row] = [
        (Wait.RECEIVE, 0, 0, 1, 9, "channel-0"),
        (Wait.RECEIVE, 0, 1, 11, 11 + last, "channel-0"),
        (Wait.RECEIVE, 0, 2, 21, 29, "channel-0"),
        (Wait.WRITE, 0, 0, 10, 10 + 3 * write, "y"),
        (Wait.WRITE, 0, 1, 60, 60 + write, "y"),
        (Wait.LOAD_CONFIG, 0, 2, 100, 100 + load, "y"),
    ]
    return (
        side_report("source", source, stopped=0, running=200, sizes=1000),
        side_report("destination", destination, running=200),
    )


def test_the_least_of_all_runs_counts() -> None:
    bound = lower_bound([run_of(10, 5, 20), run_of(20, 2, 30)])
    assert bound.milliseconds == pytest.approx(2 + 2 * 10 + 1 + 2 + 20)
    assert bound.limited_by == "a: stops 2.00 ms, read 20.0 ms, last write 2.00 ms, config load 20.0 ms"


def test_what_a_device_declares_counts_instead() -> None:
    costs = StateCosts(stop=0.001, read=0.004, write=0.005, write_chunk=0.002, save_config=0.0, load_config=0.05)
    bound = lower_bound([run_of(10, 5, 20)], [costs, None, None, None, None])
    # The last of three writes is the short one: 5 - 2 * 2 ms.
    assert bound.milliseconds == pytest.approx(1 + 4 + 1 + 1 + 50)


def test_a_last_chunk_that_was_shorter_than_declared_counts_as_it_was() -> None:
    costs = StateCosts(read=0.004, write=0.02, write_chunk=0.01)
    bound = lower_bound([run_of(30, 5, 20)], [replace(costs, read=0.05), None, None, None, None])
    assert bound.milliseconds == pytest.approx(50 + 1 + 5)


def test_runs_that_failed_do_not_count() -> None:
    failed = replace(run_of(1, 1, 1)[0], outcome=State.FAILED), run_of(1, 1, 1)[1]
    assert lower_bound([run_of(10, 5, 20), failed]) == lower_bound([run_of(10, 5, 20)])
    with pytest.raises(UsageError, match="rests on runs that completed, and there is none"):
        lower_bound([failed])


def test_runs_and_costs_must_be_of_one_machine() -> None:
    run = run_of(10, 5, 20)
    other = replace(run[0], devices=run[0].devices[1:]), run[1]
    with pytest.raises(UsageError, match="the runs are of different machines"):
        lower_bound([run, other])
    with pytest.raises(UsageError, match="costs of 1 device, but the machine has 5"):
        lower_bound([run], [None])


def test_a_device_that_has_saved_some_before_the_stop_is_not_told_to_have_done_it_after() -> None:
    source, destination = run_of(10, 5, 20)
    early = replace(
        source, devices=tuple(replace(device, bytes=1000, bytes_before_stop=900) for device in source.devices)
    )
    costs: list[StateCosts | None] = [StateCosts(read=0.9, write=0.8, write_chunk=0.01), None, None, None, None]
    bound = lower_bound([(early, destination)], costs, link_rate=1000.0)
    assert bound.milliseconds < lower_bound([(source, destination)], costs).milliseconds
    downtime = (destination.running - source.stopped) / 1e6
    assert bound.parts["longest chain"] <= downtime
    assert bound.parts["link"] == pytest.approx(500.0, rel=0.2), "five times a tenth of the bytes"
