"""A machine moves, whole and in order, under every pair of threading models and every kind of device."""

from __future__ import annotations

import gc
import itertools
import os
import threading
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from migpool.core.effects import Wait
from migpool.core.machine import Machine
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from tests.support import LONG
from tests.support.rig import KIB, OneAtATime, Pair, Scripted, contents, migrate
from tests.support.tampering import Line

MODELS: dict[str, type[Scheduler]] = {point.name: point.load() for point in entry_points(group="migpool.schedulers")}
MANY, FEW = (200, 50) if LONG else (40, 10)
"""Devices at once; a third of how many migrations come after each other."""
PAIRS = [
    pytest.param(saves, loads, id=f"{saves}+{loads}")
    for saves, loads in itertools.product(sorted(MODELS), repeat=2)
    if "source" in MODELS[saves].sides and "destination" in MODELS[loads].sides
]


def devices(count: int, size: int) -> tuple[list[Scripted], list[Scripted]]:
    source = [Scripted(number, contents(size + number * 100, number)) for number in range(count)]
    source += [Scripted(number, None, name="plain") for number in range(3)]
    destination = [Scripted(number) for number in range(count)]
    destination += [Scripted(number, None, name="plain") for number in range(3)]
    return source, destination


def check(source: list[Scripted], destination: list[Scripted]) -> None:
    for sent, got in zip(source, destination, strict=True):
        assert got.got == sent.state, sent.idstr
        assert got.got_config == sent.config, sent.idstr
        assert not sent.running
        loads = [call for call in got.calls if call in ("load_state", "load_config", "wake", "start")]
        assert loads[-3:] == ["load_config", "wake", "start"]


@pytest.mark.parametrize(("saves", "loads"), PAIRS)
def test_under_every_pair_of_models(tmp_path: Path, saves: str, loads: str) -> None:
    source, destination = devices(5, 200 * KIB)
    budget = Settings(channels=3, chunk=16 * KIB, budget=160 * KIB, peer_limit=10)
    sent, got = migrate(tmp_path, source, destination, models=(MODELS[saves], MODELS[loads]), settings=budget)
    assert (sent.error, got.error) == ("", "")
    assert sent.outcome is got.outcome is State.COMPLETED
    assert sent.verified
    check(source, destination)
    assert 0 < got.high_water <= got.budget <= 160 * KIB, "less than one device's state"


@pytest.mark.parametrize(
    ("saves", "loads"), [("pool", "pool"), ("poll", "poll"), ("blocking-aware", "receiver"), ("inline", "elastic")]
)
@pytest.mark.parametrize("workers", [1, 2])
def test_many_devices_whatever_the_number_of_workers(tmp_path: Path, saves: str, loads: str, workers: int) -> None:
    source, destination = devices(MANY, 20 * KIB)
    few = tuple(workers if MODELS[name].takes_workers else None for name in (saves, loads))
    settings = Settings(channels=2, chunk=16 * KIB, budget=10 * MANY * KIB, peer_limit=15)
    sent, got = migrate(
        tmp_path, source, destination, models=(MODELS[saves], MODELS[loads]), workers=few, settings=settings
    )
    assert (sent.error, got.error) == ("", "")
    check(source, destination)


def test_a_budget_below_a_chunk_a_device_makes_chunks_shorter(tmp_path: Path) -> None:
    source, destination = devices(8, 64 * KIB)
    settings = Settings(channels=2, chunk=1024 * KIB, budget=64 * KIB, peer_limit=10)
    sent, got = migrate(tmp_path, source, destination, settings=settings)
    assert (sent.error, got.error) == ("", "")
    assert got.high_water <= 64 * KIB
    check(source, destination)


@pytest.mark.parametrize("piece", [1, 999, 16 * KIB - 1])
def test_short_reads_are_chunks_like_others(tmp_path: Path, piece: int) -> None:
    source = [Scripted(0, contents(min(40 * KIB, piece * 300)), piece)]
    destination = [Scripted(0)]
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.error == ""
    check(source, destination)


@pytest.mark.parametrize("size", [0, 1, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1])
def test_states_of_every_length_about_a_chunk(tmp_path: Path, size: int) -> None:
    source, destination = [Scripted(0, contents(size))], [Scripted(0)]
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.error == ""
    check(source, destination)


def test_a_machine_without_iterable_devices(tmp_path: Path) -> None:
    source, destination = devices(0, 0)
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.error == ""
    check(source, destination)


def test_setup_data_and_precopy_come_before_the_stop(tmp_path: Path) -> None:
    source, destination = [Scripted(0, contents(50 * KIB, 1))], [Scripted(0)]
    source[0].setup = b"what the destination needs"
    source[0].precopy = contents(40 * KIB, 2)
    early = bytes(source[0].precopy)
    sent, _ = migrate(tmp_path, source, destination)
    assert destination[0].setup == b"what the destination needs"
    assert destination[0].got == early + source[0].state
    order = [call for call in source[0].calls if call in ("iterate", "stop", "save_state")]
    assert order.index("stop") > max(i for i, call in enumerate(order) if call == "iterate")
    assert sent.outcome in (State.COMPLETED, State.UNCONFIRMED)


def test_the_calls_come_in_the_documented_order(tmp_path: Path) -> None:
    source, destination = [Scripted(0, contents(40 * KIB))], [Scripted(0)]
    migrate(tmp_path, source, destination)
    assert list(dict.fromkeys(source[0].calls)) == [
        "save_setup",
        "quiesce",
        "stop",
        "save_state",
        "save_config",
        "fingerprint",
    ]
    assert list(dict.fromkeys(destination[0].calls)) == [
        "check_version",
        "load_setup",
        "load_state",
        "load_config",
        "wake",
        "start",
        "verify",
        "fingerprint",
    ]


def test_under_the_big_lock_configs_are_saved_and_loaded_one_at_a_time(tmp_path: Path) -> None:
    source, destination = devices(4, 20 * KIB)
    saving, loading = OneAtATime(), OneAtATime()
    for device in source:
        device.before["save_config"] = saving
    for device in destination:
        device.before["load_config"] = loading
    sent, got = migrate(tmp_path, source, destination, models=(PerDeviceScheduler, PerDeviceScheduler))
    assert (sent.error, got.error) == ("", "")
    assert saving.alone == loading.alone == [True] * 7


def test_the_last_device_has_every_channel_for_itself(tmp_path: Path) -> None:
    passed: list[tuple[str, int]] = []

    def note(idstr: str, _index: int, payload: bytes) -> bytes:
        passed.append((idstr, threading.get_ident()))  # a thread a channel
        return payload

    line = Line(tmp_path / "line", note)
    source, destination = devices(2, 0)
    source[1] = Scripted(1, contents(1600 * KIB))
    try:
        sent, got = Pair(source, destination, through=line).run(tmp_path)
    finally:
        line.close()
    assert (sent.error, got.error) == ("", "")
    check(source, destination)
    of_the_last = [channel for idstr, channel in passed if idstr == "device-1"]
    assert min(of_the_last.count(channel) for channel in set(of_the_last)) > len(of_the_last) // 4
    assert len(set(of_the_last)) == 2


def test_a_device_of_its_own_format_is_measured_and_described(tmp_path: Path) -> None:
    class Exact(Scripted):
        def exact_config(self) -> bool:
            return True

        def measure_config(self, data: memoryview) -> int | None:
            return 1 + data[0] if len(data) else None

        def describe_config(self) -> dict[str, object]:
            return {"vmsd_name": "exact", "version": 1, "fields": []}

    source, destination = [Exact(0, None), Scripted(1, None)], [Exact(0, None), Scripted(1, None)]
    # The footer of its own section stands in the config, and what looks like another section.
    source[0].config = bytes([20]) + b"\x7e\x00\x00\x00\x00" + b"\x04\x00\x00\x00\x09\x03abc" + bytes(6)
    assert len(source[0].config) == 21 + 3 or source[0].config
    source[0].config = bytes([len(source[0].config) - 1]) + source[0].config[1:]
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.error == ""
    assert destination[0].got_config == source[0].config


def test_the_downtime_and_its_spans_are_reported(tmp_path: Path) -> None:
    source, destination = devices(2, 60 * KIB)
    sent, got = migrate(tmp_path, source, destination)
    assert sent.clock == "monotonic"
    assert sent.began < sent.stopped < sent.running == got.running < sent.ended
    at_source = {span.wait for span in sent.spans}
    at_destination = {span.wait for span in got.spans}
    assert {
        Wait.QUIESCE,
        Wait.STOP,
        Wait.READ,
        Wait.CREDIT,
        Wait.SEND,
        Wait.SAVE_CONFIG,
        Wait.LOCK,
        Wait.SECTION,
    } <= at_source
    assert {
        Wait.RECEIVE,
        Wait.STARVED,
        Wait.WRITE,
        Wait.LOADED,
        Wait.LOAD_CONFIG,
        Wait.WAKE,
        Wait.START,
    } <= at_destination
    reads = [span.index for span in sent.spans if span.wait is Wait.READ and span.slot == 0]
    assert reads == [0, 1, 2, 3, 4]


def test_many_migrations_in_a_row_leave_nothing_behind(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def resident() -> int:
        gc.collect()  # without the interpreter lock it waits for a quarter of what lives, so for what other tests keep
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before: tuple[int, int] | None = None
    for number in range(3 * FEW):
        source, destination = devices(2, 20 * KIB)
        sent, _ = migrate(tmp_path, source, destination)
        assert sent.error == ""
        if number == FEW:
            before = descriptors(), resident()
    assert before is not None
    assert descriptors() == before[0]
    assert resident() - before[1] < 160 * FEW * KIB
    assert not list(tmp_path.iterdir())


def test_a_machine_may_be_migrated_again_after_a_failure(tmp_path: Path) -> None:
    source, destination = devices(2, 60 * KIB)
    source[1].fail_in("save_state")
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.outcome is State.FAILED
    source[1].before.clear()
    fresh = devices(2, 60 * KIB)[1]
    again, _ = migrate(tmp_path, source, fresh)
    assert again.error == ""
    check(source, fresh)


def test_a_machine_names_its_devices() -> None:
    machine = Machine("m", [Scripted(0), Scripted(1, None)])
    assert [slot.name for slot in machine] == ["device-0", "device-1"]
    assert [slot.name for slot in machine.iterable] == ["device-0"]
