"""Real migrations of devices that take known times: what must be on the critical path is there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from migpool.lab.analysis.bound import lower_bound
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.analysis.why import analyse
from migpool.lab.report.table import device_times
from migpool.migration.settings import ConfigLoad, Settings
from migpool.schedulers.base import Scheduler
from migpool.schedulers.elastic import ElasticScheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from tests.support.attribution.attribution_machine import Slow, migrate
from tests.support.attribution.waited import on_path, waited_behind
from tests.support.thinned import every_pair, every_value

pytestmark = pytest.mark.alone  # what is measured is compared with what was waited for

SAVING: tuple[type[Scheduler], ...] = (InlineScheduler, PerDeviceScheduler, PoolScheduler, ElasticScheduler)
LOADING: tuple[type[Scheduler], ...] = (*SAVING, ReceiverScheduler)


@pytest.mark.parametrize(
    ("saving", "loading", "config_load"), every_pair(SAVING, LOADING, ["as-loaded", "after-iterables"])
)
def test_the_parts_of_every_model_add_up(
    saving: type[Scheduler], loading: type[Scheduler], config_load: ConfigLoad, tmp_path: Path
) -> None:
    def machine() -> list[Slow]:
        calls = {"save_state": 0.001, "load_state": 0.001, "load_config": 0.002, "stop": 0.001}
        return [*(Slow(f"large-{n}", 5, calls) for n in range(3)), *(Slow(f"small-{n}", 0, calls) for n in range(2))]

    settings = Settings(channels=4, chunk=65536, budget=1 << 20, peer_limit=20, config_load=config_load)
    source, destination = migrate(machine(), machine(), saving(), loading(), tmp_path, settings=settings)
    whole = attribute(source, destination)
    assert whole.links[0].begin == source.stopped
    assert whole.links[-1].end == destination.running == source.running
    assert all(one.end == next_.begin for one, next_ in zip(whole.links, whole.links[1:], strict=False))
    assert sum(whole.nanoseconds.values()) == source.running - source.stopped
    assert whole.kinds["device stop"] >= 5.0  # five devices, one after the other, whatever the model is
    assert not {"other", "starved"} & whole.kinds.keys()


KINDS = {
    "quiesce": "device stop",
    "stop": "device stop",
    "save_state": "device read",
    "save_config": "save config",
    "load_state": "device write",
    "load_config": "load config",
    "wake": "start",
    "start": "start",
}


@pytest.mark.parametrize(("call", "loading"), every_value(list(KINDS), [PerDeviceScheduler, ReceiverScheduler]))
def test_what_takes_long_in_a_lone_device_is_what_the_downtime_goes_into(
    call: str, loading: type[Scheduler], tmp_path: Path
) -> None:
    slow = {call: 0.1}
    source, destination = migrate(
        [Slow("device", 1, slow)], [Slow("device", 1, slow)], PerDeviceScheduler(), loading(), tmp_path
    )
    whole = attribute(source, destination)
    assert whole.kinds[KINDS[call]] >= 100.0
    assert on_path(whole)["device"] >= 100.0


@pytest.mark.parametrize(("call", "kind"), [("save_config", "save config"), ("load_config", "load config")])
def test_a_slow_section_is_found_on_the_main_channel(call: str, kind: str, tmp_path: Path) -> None:
    def machine() -> list[Slow]:
        return [Slow("section", 0, {call: 0.1}), Slow("other section", 0, {})]

    source, destination = migrate(machine(), machine(), PerDeviceScheduler(), PerDeviceScheduler(), tmp_path)
    whole = attribute(source, destination)
    assert whole.kinds[kind] >= 100.0
    assert on_path(whole)["section"] >= 100.0


def test_devices_that_come_to_their_configs_together_wait_for_the_lock(tmp_path: Path) -> None:
    together = threading.Barrier(3)
    names = ["first", "second", "third"]
    source, destination = migrate(
        [Slow(name, 1, {}) for name in names],
        [Slow(name, 1, {"load_config": 0.08}, together) for name in names],
        PerDeviceScheduler(),
        PerDeviceScheduler(),
        tmp_path,
    )
    whole = attribute(source, destination)
    assert whole.kinds["lock"] >= 80.0  # of the two others' configs, the second lies wholly inside the wait
    waiter = next(link.device for link in whole.links if link.kind == "lock")
    assert set(waited_behind(whole, "lock")) == set(names) - {waiter}
    found = analyse(source, destination, 65536)
    assert found is not None
    times = device_times(found, source.devices)
    held = {name: times[name].held for name in names if times[name].held}
    assert held == {name: {waiter: pytest.approx(spent)} for name, spent in waited_behind(whole, "lock").items()}


@pytest.mark.parametrize("loading", LOADING)
def test_configs_that_wait_for_the_slowest_device_are_put_down_to_it(loading: type[Scheduler], tmp_path: Path) -> None:
    def machine() -> list[Slow]:
        return [Slow("quick", 2, {"load_config": 0.03}), Slow("slow", 4, {"load_state": 0.04, "load_config": 0.03})]

    source, destination = migrate(
        machine(),
        machine(),
        PerDeviceScheduler(),
        loading(),
        tmp_path,
        settings=Settings(channels=2, chunk=65536, budget=1 << 20, peer_limit=20, config_load="after-iterables"),
    )
    whole = attribute(source, destination)
    assert whole.kinds["device write"] >= 160.0, "the four writes come before either config"
    assert on_path(whole)["slow"] >= 160.0
    configs = whole.kinds["load config"] + whole.kinds.get("lock", 0.0) + whole.kinds.get("queued", 0.0)
    # Two of 30 ms each; what a thread takes to begin the second is another kind.
    assert configs >= 55.0, "both configs come after them, one after the other"
    assert sum(whole.nanoseconds.values()) == source.running - source.stopped
    assert not {"other", "starved"} & whole.kinds.keys()
    assert lower_bound([(source, destination)], config_load="after-iterables").milliseconds >= 160.0 + 60.0


def test_one_worker_for_three_devices_is_named_by_the_queue(tmp_path: Path) -> None:
    slow = {"save_state": 0.06}
    names = ["first", "second", "third"]
    source, destination = migrate(
        [Slow(name, 1, slow) for name in names],
        [Slow(name, 1, {}) for name in names],
        PoolScheduler(),
        PerDeviceScheduler(),
        tmp_path,
        workers=1,
    )
    whole = attribute(source, destination)
    behind = waited_behind(whole, "queued")
    assert {"first", "second"} <= behind.keys()
    assert sum(behind.values()) >= 60.0  # the second's read at least was queued for from its begin to its end
    assert {link.device for link in whole.links if link.kind == "device read"} == {"third"}


def test_a_slow_destination_with_little_room_is_not_taken_for_a_slow_source(tmp_path: Path) -> None:
    source, destination = migrate(
        [Slow("device", 10, {})],
        [Slow("device", 10, {"load_state": 0.02})],
        PerDeviceScheduler(),
        PerDeviceScheduler(),
        tmp_path,
        settings=Settings(channels=2, chunk=65536, budget=65536, peer_limit=20),
    )
    whole = attribute(source, destination)
    assert whole.kinds["device write"] >= 200.0  # each of the ten writes is waited for, by the credit it gives back
