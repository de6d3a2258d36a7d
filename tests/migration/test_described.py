"""Devices that are not iterable as jobs over the multifd channels: order, rooms, locks, failures, under every model."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.core.effects import Wait
from migpool.core.machine import Machine
from migpool.device import ConfigChannel, ConfigLock, Priority
from migpool.errors import UsageError
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.pool import PoolScheduler
from tests.support.rig import KIB, MODELS, Models, Pair, Scripted, contents, migrate

SETTINGS = Settings(channels=2, chunk=4 * KIB, budget=32 * KIB, peer_limit=5, vmsd="multifd")


def plain(count: int, sizes: Callable[[int], int] = lambda _: 40, at: int = 100) -> list[Scripted]:
    """Devices that are not iterable, with configs of these sizes."""
    made = [Scripted(at + number, None, name="plain") for number in range(count)]
    for number, device in enumerate(made):
        device.config = contents(sizes(number), number)
    return made


def iterables(count: int, size: int = 50 * KIB) -> list[Scripted]:
    return [Scripted(number, contents(size, number)) for number in range(count)]


def loaded(sent: SideReport, got: SideReport, source: list[Scripted], destination: list[Scripted]) -> None:
    assert not sent.error, sent.error
    assert not got.error, got.error
    assert sent.outcome is State.COMPLETED
    for before, after in zip(source, destination, strict=True):
        assert after.got_config == before.config
        assert after.got == before.state
        assert "verify" in after.calls


@pytest.mark.parametrize("workers", [(None, None), (1, 1), (3, 1)])
@pytest.mark.parametrize("models", MODELS)
def test_configs_of_any_length_cross_beside_devices_with_state(
    tmp_path: Path, models: Models, workers: tuple[int | None, int | None]
) -> None:
    """From nothing at all to several chunks, with less room than there are devices."""
    lengths = [0, 1, 4 * KIB - 5, 4 * KIB - 4, 4 * KIB - 3, 8 * KIB, 20 * KIB, *([40] * 20)]
    source = [*plain(len(lengths), lengths.__getitem__), *iterables(3)]
    destination = [*plain(len(lengths)), *(Scripted(number) for number in range(3))]
    sent, got = migrate(tmp_path, source, destination, settings=SETTINGS, models=models, workers=workers)
    loaded(sent, got, source, destination)
    assert not [span for span in sent.spans if span.wait is Wait.SECTION]
    assert got.high_water <= 32 * KIB


def test_without_credits_they_cross_as_well(tmp_path: Path) -> None:
    source, destination = [*plain(9), *iterables(2)], [*plain(9), Scripted(0), Scripted(1)]
    sent, got = migrate(tmp_path, source, destination, settings=replace(SETTINGS, credits=False, budget=512 * KIB))
    loaded(sent, got, source, destination)


def test_two_hundred_devices_need_no_more_room_than_a_few(tmp_path: Path) -> None:
    source, destination = plain(200), plain(200)
    settings = replace(SETTINGS, budget=8 * KIB)
    sent, got = migrate(tmp_path, source, destination, settings=settings, models=(PoolScheduler, PoolScheduler))
    loaded(sent, got, source, destination)
    assert got.high_water <= 8 * KIB


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("models", MODELS)
def test_a_device_is_loaded_after_those_that_it_names(tmp_path: Path, models: Models, seed: int) -> None:
    """Some of them stay on the main channel, some are iterable, and one worker is enough."""
    dice = random.Random(seed)
    order: list[str] = []
    writing = threading.Lock()

    def machine() -> list[Scripted]:
        made = [*plain(12), *iterables(2, 9 * KIB)]
        for number, device in enumerate(made):
            if not device.iterable:
                before = dice.sample(made[:number] + made[-2:], min(number, dice.randint(0, 3)))
                device.after = [one.idstr for one in before]
                if dice.random() < 0.3:
                    device.config_channel = "main-channel"
        dice.shuffle(made)
        return made

    source = machine()
    destination = [
        Scripted(int(one.idstr.split("-")[1]), b"" if one.iterable else None, name=one.idstr.split("-")[0])
        for one in source
    ]
    for there, here in zip(destination, source, strict=True):
        there.after, there.config_channel = here.after, here.config_channel

        def note(name: str = there.idstr) -> None:
            with writing:
                order.append(name)

        there.before["load_config"] = note
    workers = 1 if seed % 2 else None
    sent, got = migrate(tmp_path, source, destination, settings=SETTINGS, models=models, workers=(workers, workers))
    loaded(sent, got, source, destination)
    assert sorted(order) == sorted(one.idstr for one in source)
    for device in destination:
        for name in device.after:
            assert order.index(name) < order.index(device.idstr), (device.idstr, name, order)


def test_devices_that_wait_for_each_other_are_refused_by_name() -> None:
    one, two, three = plain(3)
    one.after, two.after, three.after = ["plain-102"], ["plain-100", "nobody-7"], ["plain-101"]
    with pytest.raises(UsageError, match="plain-100 after plain-102 after plain-101 after plain-100"):
        Machine("m", [one, two, three])


def test_an_iterable_device_waits_for_nobody() -> None:
    device = Scripted(0)
    device.after = ["plain-100"]
    with pytest.raises(UsageError, match="device-0 is to be loaded after others"):
        Machine("m", [device, *plain(1)])


def test_who_waits_for_a_section_is_one_itself() -> None:
    bus, card, clock = plain(3)
    bus.config_channel, card.after = "main-channel", [bus.idstr]
    crossing = Machine("m", [card, bus, clock]).crossing("multifd")
    assert [slot.name for slot in crossing.sections] == [bus.idstr, card.idstr]
    assert [slot.name for slot in crossing.jobs] == [clock.idstr]


def test_one_iterable_device_comes_before_those_that_are_not() -> None:
    made = [*plain(3), *iterables(3)]
    made[1].priority = Priority.IOMMU
    made[0].after = [made[4].idstr]
    names = [slot.name for slot in Machine("m", made).crossing("multifd").jobs]
    assert names == ["device-0", "plain-101", "plain-102", "device-1", "plain-100", "device-2"]
    assert [slot.name for slot in Machine("m", made[1:4]).crossing("multifd").jobs][-1] == "device-0"


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("call", ["save_config", "check_version", "load_config"])
def test_one_of_many_that_fails_is_named_and_all_others_are_undone(tmp_path: Path, models: Models, call: str) -> None:
    source, destination = [*plain(20), *iterables(2)], [*plain(20), Scripted(0), Scripted(1)]
    (source if call == "save_config" else destination)[11].fail_in(call)
    sent, got = migrate(tmp_path, source, destination, settings=SETTINGS, models=models)
    assert f"plain-111{'' if call == 'save_config' else ', chunk 0'}: told to fail in {call}" in sent.error
    assert sent.outcome is State.FAILED
    assert got.error
    assert all(device.running for device in source)
    assert not any("start" in device.calls for device in destination)


@pytest.mark.parametrize("models", MODELS)
def test_a_cancel_ends_who_waits_for_a_device_that_is_not_loaded(tmp_path: Path, models: Models) -> None:
    source, destination = [*plain(6), *iterables(1)], [*plain(6), Scripted(0)]
    reached = threading.Event()
    destination[0].block_in("load_config", reached)
    for devices in (source, destination):
        for device in devices[1:6]:
            device.after = [devices[0].idstr]
    sent, got = Pair(source, destination, settings=SETTINGS, models=models).cancelled_at(tmp_path, reached)
    assert sent.outcome is State.CANCELLED
    assert got.error
    assert all(device.running for device in source)


@pytest.mark.parametrize("here", ["main-channel", "multifd"])
def test_ends_that_do_not_agree_where_devices_cross_say_so(tmp_path: Path, here: ConfigChannel) -> None:
    settings = replace(SETTINGS, vmsd=here)
    other = replace(SETTINGS, vmsd="multifd" if here == "main-channel" else "main-channel")
    source = plain(3)
    sent, got = migrate(tmp_path, source, plain(3), settings=settings, destination_settings=other)
    assert "found that they are on the" in sent.error
    assert "start both ends with the same scenario" in got.error
    assert all(device.running for device in source)


@pytest.mark.parametrize(("lock", "together"), [("big", False), ("own", True), ("none", True)])
@pytest.mark.parametrize("side", ["save", "load"])
def test_configs_are_handled_at_once_where_devices_need_no_big_lock(
    tmp_path: Path, lock: ConfigLock, together: bool, side: str
) -> None:
    source, destination = plain(2), plain(2)
    both = threading.Barrier(2)
    met: list[bool] = []

    def meet() -> None:
        try:
            both.wait(20 if together else 0.3)
        except threading.BrokenBarrierError:
            met.append(False)
        else:
            met.append(True)

    for device in (*source, *destination):
        device.save_lock = device.load_lock = lock
    for device in source if side == "save" else destination:
        device.before[f"{side}_config"] = meet
    models = (PerDeviceScheduler, PerDeviceScheduler)
    sent, got = migrate(tmp_path, source, destination, settings=SETTINGS, models=models)
    loaded(sent, got, source, destination)
    assert met == [together, together]
