"""Scenarios in virtual time: what a plug-in, a model and a scenario say is what is simulated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from migpool.errors import ScenarioError, UsageError
from migpool.scenario.model_syntax import parse_model
from migpool.scenario.schema import Scenario, parse_scenario
from migpool.schedulers.base import Scheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.sim.scenarios import Host, world_of
from migpool.sim.simulate import Profile, World, downtime

FREE = Host(channel_rate=1e15, link_rate=1e15, step=0.0, base=0.0, call=0.0, config=0.0)
MIB = 1 << 20


def scenario(count: int = 2, *, more: dict[str, Any] | None = None, **options: Any) -> Scenario:
    given = {"size": "4MiB", "read_rate": "4MiB/s", "write_rate": 0, "stop_time": 0, "load_config_time": "500ms"}
    given |= {"read_latency": 0, "write_latency": 0, **options}
    table = {"name": "made", "devices": [{"plugin": "vfio", "count": count, "options": given}]}
    return parse_scenario({**table, "memory": {"budget": "64MiB"}, **(more or {})}, "made")


def time_of(made: Scenario, model: str, host: Host = FREE) -> float:
    return downtime(world_of(made, parse_model(model), host, "made"))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("inline", 2 * 1.0 + 0.5),  # the first device's config is loaded while the second one is read
        ("pool:1", 2 * 1.0 + 0.5),
        ("pool", 1.0 + 2 * 0.5),
        ("per-device", 1.0 + 2 * 0.5),
        ("elastic", 1.0 + 2 * 0.5),
        ("blocking-aware", 1.0 + 2 * 0.5),
        ("pool+receiver", 1.0 + 2 * 0.5),
        ("poll", 1.0 + 2 * 0.5),
    ],
)
def test_each_model_has_its_own_time(model: str, expected: float) -> None:
    # These devices read ahead, from their own stop on: only what is read in turn takes longer under one worker.
    made = scenario()
    ahead = 0.25 if model in ("inline", "pool:1") else 0.0
    assert time_of(made, model) == pytest.approx(expected - ahead, abs=0.003)


def test_a_device_reads_ahead_while_others_stop() -> None:
    slow = scenario(count=3, stop_time="500ms", load_config_time=0)
    # The last one has just been stopped, the others have had their first chunk ready for long.
    assert time_of(slow, "per-device") == pytest.approx(1.5 + 1.0, abs=0.003)
    assert time_of(scenario(count=1, load_config_time=0), "pool") == pytest.approx(1.0, abs=0.003)


def test_who_comes_late_for_a_chunk_delays_the_one_after() -> None:
    ahead = Profile(size=2, read=2.0, read_slack=0.0)
    world = World((ahead,), 1, 1, channels=1, channel_rate=0.2, link_rate=1e9, chunk=1, rooms=9)
    # Read at 1, sent until 6, when the second has been ready for long; without reading ahead it takes a second more.
    assert downtime(world) == pytest.approx(1 + 5 + 5)
    assert downtime(replace(world, devices=(replace(ahead, read_slack=None),))) == pytest.approx(1 + 5 + 1 + 5)


def test_what_is_made_at_once_is_late_as_a_whole() -> None:
    # Two pieces are made at once, in 8 seconds; each is sent for 5. The next two are begun when the second is sent.
    world = World((Profile(size=4, read=16.0, chunk=2, read_slack=0.0),), 1, 1, 1, 0.2, 1e9, chunk=1, rooms=9)
    assert downtime(world) == pytest.approx(8 + 5 + 8 + 5 + 5)


@pytest.mark.parametrize(("chunk", "writes"), [("1MiB", 4), ("256KiB", 16)])
def test_each_write_has_its_latency_however_much_the_device_makes_at_once(chunk: str, writes: int) -> None:
    small = {"memory": {"budget": "64MiB", "chunk": chunk}}
    times = {"read_rate": 0, "load_config_time": 0}
    assert time_of(scenario(1, more=small, **times, write_latency="10ms"), "pool") == pytest.approx(writes * 0.01)
    # Of what it reads ahead, the first of four is there after the first latency.
    assert time_of(scenario(1, more=small, **times, read_latency="10ms"), "pool") == pytest.approx(4 * 0.01)


def test_threads_that_copy_wait_for_a_processor() -> None:
    world = World((Profile(size=1),) * 2, 2, 2, channels=2, channel_rate=1.0, link_rate=1e9, chunk=1, rooms=9)
    assert downtime(world) == pytest.approx(1.0)
    # One puts a chunk into its channel, another takes it out meanwhile, if there is a processor for both.
    assert downtime(replace(world, copying=4)) == pytest.approx(1.0)
    assert downtime(replace(world, copying=2)) == pytest.approx(2.0)
    assert downtime(replace(world, copying=1)) == pytest.approx(4.0)
    assert downtime(replace(world, copying=4, copy_rate=2.0)) == pytest.approx(0.5 + 1.0 + 0.5)
    assert downtime(replace(world, copying=1, copy_rate=2.0)) == pytest.approx(2 * (0.5 + 2 * 1.0 + 0.5))


def test_what_a_device_takes_goes_on_while_it_is_written_to() -> None:
    world = World((Profile(size=2, write=8.0),), 1, 1, channels=1, channel_rate=1e9, link_rate=1e9, chunk=1, rooms=9)
    assert downtime(replace(world, copy_rate=0.5)) == pytest.approx(2.0 + 2 * 4.0)
    assert downtime(replace(world, copy_rate=0.2)) == pytest.approx(5.0 + 2 * 5.0)
    locked = replace(world, devices=(Profile(size=1, write=4.0, shared="writes"),) * 2, savers=2, loaders=2)
    assert downtime(replace(locked, copy_rate=0.5)) == pytest.approx(2.0 + 2 * 4.0)


def test_a_processor_that_sleeps_must_be_woken() -> None:
    world = World((Profile(size=1, write=9.0),), 1, 1, channels=1, channel_rate=1e9, link_rate=1e9, chunk=1, rooms=9)
    # The device to be read, who reads it, the receiver, who loads it; to be written to it wakes in its own time. Then
    # who has room for the config, the receiver, who loads it.
    assert downtime(replace(world, copying=2, wake=1.0)) == pytest.approx(4 * 1.0 + 9.0 + 3 * 1.0)
    busy = World((Profile(size=1),) * 2, 2, 2, channels=2, channel_rate=1.0, link_rate=1e9, chunk=1, rooms=9)
    # Two devices on one processor sleep less than one after the other.
    apart = downtime(replace(busy, devices=busy.devices[:1], copying=1, wake=1.0))
    assert downtime(replace(busy, copying=1, wake=1.0)) < 2 * apart


@pytest.mark.parametrize("lock", ["", "read"])
def test_a_device_reads_ahead_from_its_own_stop_on_whatever_lock_it_has_to_hold(lock: str) -> None:
    made = scenario(count=3, stop_time="1s", load_config_time=0, size="1MiB", shared_lock=lock)
    # A quarter of a second each: the last one is read after its stop, the others before.
    assert time_of(made, "per-device") == pytest.approx(3.0 + 0.25, abs=0.003)


@pytest.mark.parametrize("model", ["inline", "pool"])
def test_a_last_chunk_that_is_short_takes_as_long_as_it_is(model: str) -> None:
    times: dict[str, Any] = {"read_rate": "1MiB/s", "read_latency": "100ms", "load_config_time": 0}
    whole, part = scenario(1, **times, size="2MiB"), scenario(1, **times, size="1.25MiB", write_rate="1MiB/s")
    assert time_of(whole, model) == pytest.approx(2 * 1.1, abs=0.003)
    # Written for a second while the quarter is read, and then that.
    assert time_of(part, model) == pytest.approx(1.1 + 1.0 + 0.25, abs=0.003)


def test_a_receiver_that_writes_reads_nothing_meanwhile() -> None:
    slow, quick = Profile(size=1, write=10.0), Profile(size=1, write=1.0)
    world = World((slow, quick), 2, 2, 1, channel_rate=1e9, link_rate=1e9, chunk=1, rooms=9, load_taking="receive")
    assert downtime(world) == pytest.approx(10.0 + 1.0)
    assert downtime(replace(world, channels=2)) == pytest.approx(10.0)
    assert downtime(replace(world, load_taking="apart")) == pytest.approx(10.0)


def test_a_link_that_takes_time_is_waited_for_once_if_there_is_room() -> None:
    world = World((Profile(size=8, read=8.0),), 1, 1, channels=4, channel_rate=1e9, link_rate=1e9, chunk=1, rooms=99)
    # Until the first chunk has come there is room for one alone: that costs a round trip, once.
    assert 8 + 2.0 < downtime(replace(world, latency=2.0)) < 8 + 2.0 + 4.1
    # With room for one chunk each goes only when the one before has been loaded and said so.
    tight = replace(world, rooms=1, latency=2.0)
    assert downtime(tight) > 8 * 2 * 2.0


def test_a_lock_is_shared_by_the_devices_of_one_entry_alone() -> None:
    one = {"plugin": "vfio", "options": {"size": "4MiB", "read_rate": "4MiB/s", "stop_time": 0, "shared_lock": "read"}}
    other = {**one, "options": {**one["options"], "bus": 9}}  # type: ignore[dict-item]
    apart = parse_scenario({"name": "made", "devices": [one, other]}, "made")
    together = parse_scenario({"name": "made", "devices": [{**one, "count": 2}]}, "made")
    assert time_of(together, "per-device") > time_of(apart, "per-device") + 0.9


def test_configs_that_wait_for_all_state_are_loaded_last() -> None:
    with_rest = {"migration": {"config_load": "after-iterables"}}
    assert time_of(scenario(more=with_rest), "inline") == pytest.approx(1.75 + 2 * 0.5, abs=0.003)


def test_described_devices_cross_as_the_scenario_says() -> None:
    entry = {"plugin": "vmsd", "options": {"machine": "q35-rich", "config_time": "10ms", "config_lock": "none"}}
    made = parse_scenario({"name": "made", "devices": [entry]}, "made")
    jobs = parse_scenario({"name": "made", "devices": [entry], "migration": {"vmsd": "multifd"}}, "made")
    assert time_of(jobs, "pool") < 0.7 * time_of(made, "pool")


def test_what_cannot_be_simulated_is_said() -> None:
    guest = parse_scenario({"name": "made", "devices": [{"plugin": "guest"}]}, "made")
    with pytest.raises(ScenarioError, match=r"made: devices\[0\]: .*'guest' does not say what its devices take"):
        time_of(guest, "pool")
    with pytest.raises(ScenarioError, match=r"backend: what a device that is not emulated takes nobody knows"):
        time_of(scenario(backend="kernel"), "pool")


def test_a_model_that_says_nothing_cannot_be_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PoolScheduler, "staffing", Scheduler.staffing)
    with pytest.raises(UsageError, match="model 'pool:3': pool does not say how it takes jobs"):
        time_of(scenario(), "pool:3")
