"""When the configs of iterable devices are loaded: each with its own device's state, or after the states of all."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from migpool.device import DeviceError
from migpool.migration.settings import ConfigLoad, Settings
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.pool import PoolScheduler
from tests.support import LONG
from tests.support.rig import KIB, OneAtATime, Pair, Scripted, contents, migrate

MODELS: dict[str, type[Scheduler]] = {point.name: point.load() for point in entry_points(group="migpool.schedulers")}
LOADING = sorted(name for name, model in MODELS.items() if "destination" in model.sides)
SAVING = sorted(name for name, model in MODELS.items() if "source" in model.sides)
# Each two of model, model and number of workers together; all three in the long profile.
CASES = [
    pytest.param(saves, loads, workers, id=f"{saves}-{loads}-{workers or 'any number of'} workers")
    for at, saves in enumerate(SAVING)
    for place, loads in enumerate(LOADING)
    for workers in ((None, 1) if LONG else ((None, 1)[(at + place) % 2],))
]


def settings(config_load: ConfigLoad) -> Settings:
    return Settings(channels=2, chunk=16 * KIB, budget=128 * KIB, peer_limit=10, config_load=config_load)


def machines(count: int = 5) -> tuple[list[Scripted], list[Scripted], list[tuple[str, str]]]:
    """Devices of very different sizes, a section between them; and what is loaded at the destination, in order."""
    source = [Scripted(number, contents((10 + 60 * (number % 3)) * KIB, number)) for number in range(count)]
    destination = [Scripted(number) for number in range(count)]
    source.insert(1, Scripted(9, None, name="plain"))
    destination.insert(1, Scripted(9, None, name="plain"))
    order: list[tuple[str, str]] = []
    for device in destination:
        device.before["load_state"] = noting(order, device, "state")
        device.before["load_config"] = noting(order, device, "config")
    return source, destination, order


def noting(order: list[tuple[str, str]], device: Scripted, what: str) -> Callable[[], None]:
    return lambda: order.append((what, device.idstr))


@pytest.mark.parametrize(("saves", "loads", "workers"), CASES)
def test_after_the_states_of_all_under_every_model(tmp_path: Path, saves: str, loads: str, workers: int | None) -> None:
    source, destination, order = machines()
    few = tuple(workers if MODELS[name].takes_workers else None for name in (saves, loads))
    sent, got = migrate(
        tmp_path,
        source,
        destination,
        models=(MODELS[saves], MODELS[loads]),
        workers=few,
        settings=settings("after-iterables"),
    )
    assert (sent.error, got.error) == ("", "")
    assert sent.verified
    iterable = [one for one in order if one[1].startswith("device")]
    configs = [one for one in iterable if one[0] == "config"]
    assert iterable[-5:] == configs, "no state comes after a config"
    assert sorted(configs) == [("config", f"device-{number}") for number in range(5)]
    assert [device.got_config for device in destination] == [device.config for device in source]


def test_with_its_own_state_unless_told_otherwise(tmp_path: Path) -> None:
    source, destination, order = machines()
    sent, _ = migrate(
        tmp_path,
        source,
        destination,
        models=(PoolScheduler, PoolScheduler),
        workers=(1, 1),
        settings=settings("as-loaded"),
    )
    assert sent.error == ""
    first = order.index(("config", "device-0"))
    assert first < order.index(("state", "device-1")), "one worker finishes a device before it takes up the next"
    assert Settings().config_load == "as-loaded"


@pytest.mark.parametrize("loads", LOADING)
def test_under_the_big_lock_configs_are_loaded_one_at_a_time(tmp_path: Path, loads: str) -> None:
    source, destination, _ = machines()
    pair = Pair(source, destination, models=(PerDeviceScheduler, MODELS[loads]), settings=settings("after-iterables"))
    loading = OneAtATime()
    for device in destination:
        device.before["load_config"] = loading
    sent, got = pair.run(tmp_path)
    assert (sent.error, got.error) == ("", "")
    assert loading.alone == [True] * 6


@pytest.mark.parametrize("loads", LOADING)
@pytest.mark.parametrize("call", ["load_state", "load_config"])
def test_a_failure_ends_the_migration_and_names_the_device(tmp_path: Path, loads: str, call: str) -> None:
    source, destination, order = machines()
    destination[3].fail_in(call, DeviceError("it does not take it"))
    sent, got = migrate(
        tmp_path,
        source,
        destination,
        models=(PerDeviceScheduler, MODELS[loads]),
        settings=settings("after-iterables"),
    )
    assert sent.outcome is got.outcome is State.FAILED
    assert got.error.startswith("device-2")
    assert got.error.endswith("it does not take it")
    assert all(device.running for device in source)
    if call == "load_state":
        assert not [one for one in order if one[0] == "config" and one[1].startswith("device")]


@pytest.mark.parametrize("loads", LOADING)
def test_a_machine_without_iterable_devices(tmp_path: Path, loads: str) -> None:
    source, destination = [Scripted(0, None)], [Scripted(0, None)]
    sent, got = migrate(
        tmp_path,
        source,
        destination,
        models=(PerDeviceScheduler, MODELS[loads]),
        settings=settings("after-iterables"),
    )
    assert (sent.error, got.error) == ("", "")
