"""A guest that is closed gives its memory back at once, not when the collector comes by."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.migration.states import State
from migpool.schedulers.inline import InlineScheduler
from migpool.streams.file.file import StreamFile
from migpool.streams.snapshot import SnapshotDestination, SnapshotSource
from tests.support.guest_cancelling import Cancelling, migrate
from tests.support.guests import SETTINGS, ends_for, group_of, need


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=["kvm", "unicorn"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need(name)
    return name


def place_of(machine: Machine) -> tuple[int, int]:
    """Where the guest's memory lies: its first address, and one past the last."""
    memory = group_of([slot.device for slot in machine]).memory
    return memory.address, memory.address + len(memory)


def mapped(place: tuple[int, int]) -> bool:
    for line in Path("/proc/self/maps").read_text("ascii").splitlines():
        begin, end = (int(word, 16) for word in line.split()[0].split("-"))
        if begin <= place[0] and place[1] <= end:
            return True
    return False


@pytest.mark.parametrize("cancelled_at", [0, 12], ids=["completed", "cancelled"])
def test_after_a_migration(tmp_path: Path, backend: str, cancelled_at: int) -> None:
    with ends_for("source", backend) as here, ends_for("destination", backend) as there:
        places = [place_of(here), place_of(there)]
        assert [mapped(place) for place in places] == [True, True]
        sent, received = migrate(here, there, tmp_path / "socket", Cancelling(cancelled_at))
    expected = State.CANCELLED if cancelled_at else State.COMPLETED
    assert sent.outcome is expected
    assert (received.outcome is State.COMPLETED) == (not cancelled_at)
    assert [mapped(place) for place in places] == [False, False]


def test_after_a_snapshot_and_its_load(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "guest.mig"
    with ends_for("source", backend) as machine:
        saved = place_of(machine)
        with StreamFile(path) as file:
            SnapshotSource(machine, SETTINGS, InlineScheduler(), file).save()
    with ends_for("destination", backend) as machine:
        loaded = place_of(machine)
        SnapshotDestination(machine, SETTINGS, InlineScheduler()).load(path)
    assert [mapped(place) for place in (saved, loaded)] == [False, False]
