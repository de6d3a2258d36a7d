"""Devices whose parts have tags: any order, several at once, at both ends and under every model."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.device import DeviceError, Part
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.per_device import PerDeviceScheduler
from tests.support.rig import KIB, LIMIT, MODELS, Models, Pair, Scripted, contents, migrate
from tests.support.tagging import PIECE, Tagged

SETTINGS = Settings(channels=2, chunk=4 * KIB, budget=64 * KIB, peer_limit=LIMIT)


@pytest.mark.parametrize("workers", [(None, None), (1, 1), (4, 2)])
@pytest.mark.parametrize("models", MODELS)
def test_every_part_arrives_once_beside_devices_without_tags(
    tmp_path: Path, models: Models, workers: tuple[int | None, int | None]
) -> None:
    sizes = [0, 1, PIECE, 70 * KIB]
    source = [Tagged(number, contents(size, number), engines=number + 1) for number, size in enumerate(sizes)]
    destination = [Tagged(number, engines=4 - number) for number in range(len(sizes))]
    plain, there = Scripted(9, contents(40 * KIB, 9)), Scripted(9)
    sent, got = migrate(
        tmp_path, [*source, plain], [*destination, there], settings=SETTINGS, models=models, workers=workers
    )
    assert not sent.error, sent.error
    assert not got.error, got.error
    assert sent.outcome is State.COMPLETED
    assert [device.whole() for device in destination] == [device.state for device in source]
    assert [device.config for device in destination] == [f"config of tagged-{n}".encode() for n in range(len(sizes))]
    assert all(device.order[-1] == "config" for device in destination), "the config is loaded last"
    assert there.got == plain.state
    assert got.high_water <= 64 * KIB
    assert [report.bytes - report.config for report in sent.devices[:4]] == sizes


def test_parts_are_saved_and_loaded_several_at_once(tmp_path: Path) -> None:
    source, destination = Tagged(0, contents(60 * KIB), engines=4), Tagged(0, engines=4)
    source.takes = destination.takes = 0.02
    models = (PerDeviceScheduler, PerDeviceScheduler)
    sent, _ = migrate(tmp_path, [source], [destination], settings=replace(SETTINGS, channels=4), models=models)
    assert not sent.error, sent.error
    assert 1 < source.most <= 4
    assert 1 < destination.most <= 4


def test_one_part_that_takes_long_keeps_no_other_waiting(tmp_path: Path) -> None:
    """All others can be loaded before it, with no more room than for two parts."""
    source, destination = Tagged(0, contents(60 * KIB), engines=2), Tagged(0, engines=2)
    others = threading.Event()

    def first_waits(tag: int) -> None:
        if tag == 10:
            assert others.wait(LIMIT)
        elif len(destination.got) == 18:
            others.set()

    source.left.sort()
    destination.before = first_waits
    settings = replace(SETTINGS, budget=8 * KIB)
    sent, _ = migrate(
        tmp_path, [source], [destination], settings=settings, models=(PerDeviceScheduler, PerDeviceScheduler)
    )
    assert not sent.error, sent.error
    assert destination.whole() == source.state


@pytest.mark.parametrize("models", MODELS)
def test_a_tag_that_a_device_gives_twice_is_named(tmp_path: Path, models: Models) -> None:
    source = Tagged(0, contents(30 * KIB), tag_of=lambda at: at % 7)
    sent, got = migrate(tmp_path, [source], [Tagged(0)], settings=SETTINGS, models=models)
    assert "tagged-0, chunk" in sent.error
    assert "has returned the tag" in sent.error
    assert got.error
    assert source.running


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Part(1, 0), "Part(tag=1, length=0)"),
        (Part(1, 4 * KIB + 1), "a length of 1 to 4096 bytes"),
        (Part(-1, 5), "a tag of 32 bits"),
        (Part(1 << 32, 5), "a tag of 32 bits"),
    ],
)
def test_a_part_that_cannot_be_is_named(tmp_path: Path, part: Part, words: str) -> None:
    class Wrong(Tagged):
        def save_part(self, buffer: memoryview) -> Part | None:
            del buffer
            return part

    source = Wrong(0, b"x")
    sent, _ = migrate(tmp_path, [source], [Tagged(0)], settings=SETTINGS)
    assert words in sent.error
    assert sent.error.startswith("tagged-0")
    assert source.running


@pytest.mark.parametrize("models", MODELS)
def test_a_part_that_cannot_be_loaded_is_named_and_undone(tmp_path: Path, models: Models) -> None:
    source, destination = Tagged(0, contents(40 * KIB)), Tagged(0)

    def fifth(tag: int) -> None:
        if tag == 5:
            raise DeviceError("told to fail")

    destination.before = fifth
    sent, got = migrate(tmp_path, [source], [destination], settings=SETTINGS, models=models)
    assert sent.error == "the destination failed: tagged-0, chunk 5: told to fail"
    assert got.error == "tagged-0, chunk 5: told to fail"
    assert source.running


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("models", MODELS)
def test_a_cancel_ends_every_caller(tmp_path: Path, models: Models, side: str) -> None:
    source, destination = Tagged(0, contents(40 * KIB)), Tagged(0)
    reached = threading.Event()
    blocked = source if side == "source" else destination

    def block(_: int) -> None:
        reached.set()
        assert blocked.aborted.wait(LIMIT)
        raise DeviceError("aborted")

    blocked.before = block
    sent, _ = Pair([source], [destination], settings=SETTINGS, models=models).cancelled_at(tmp_path, reached)
    assert sent.outcome is State.CANCELLED
    assert source.running
