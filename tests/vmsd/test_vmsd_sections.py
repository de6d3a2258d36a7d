"""What a description says of a device's section: whether there is one, in which order, and when."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from migpool.core.machine import Machine
from migpool.device import Device, DeviceError, Priority
from migpool.errors import UsageError
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.inline import InlineScheduler
from migpool.streams.file.file import StreamFile
from migpool.streams.snapshot import SnapshotDestination, SnapshotSource
from migpool.vmsd.fields import u8
from migpool_plugins.vmsd import DescribedDevice, Description
from tests.support.inspections import inspect_file
from tests.support.paper import Paper
from tests.support.rig import MODELS, Models, Scripted, contents, migrate

SETTINGS = Settings(channels=2, peer_limit=20)


def device(name: str, value: int = 0, *, after: Sequence[str] = (), **says: Any) -> DescribedDevice:
    """A device with one byte of state that notes what happens to it."""

    class Made(DescribedDevice):
        description = Description(name, fields=[u8("value")], **says)

        def __init__(self) -> None:
            self.value = value
            self.calls: list[str] = []
            self.after = after

        def stop(self) -> None:
            self.calls.append("stop")

        def save_config(self) -> bytes:
            self.calls.append("save")
            return super().save_config()

        def load_config(self, data: bytes) -> None:
            self.calls.append("load")
            super().load_config(data)

    return Made()


def moved(source: list[Device], path: Path, destination: list[Device]) -> list[str]:
    """A snapshot from one end to the other; the names of its sections in their order, which is that of its JSON."""
    with StreamFile(path) as file:
        SnapshotSource(Machine("m", source), Settings(), InlineScheduler(), file).save()
    SnapshotDestination(Machine("m", destination), Settings(), InlineScheduler()).load(path)
    summary = inspect_file(path)
    assert summary.problem is None
    sections = [section.idstr for section in summary.sections if section.kind in ("FULL", "START")]
    described = [each["name"] for each in json.loads(summary.described or "")["devices"]]
    assert described == [name for name in sections if name in described]
    return sections


def optional(value: int, here: Callable[[DescribedDevice], object] = lambda it: vars(it)["value"]) -> DescribedDevice:
    return device("maybe", value, needed=here)


@pytest.mark.parametrize(("value", "names"), [(0, ["first", "last"]), (7, ["first", "maybe", "last"])])
def test_a_section_that_is_not_needed_is_left_out(tmp_path: Path, value: int, names: list[str]) -> None:
    destination = [device("first"), optional(5), device("last", after=["maybe"])]
    source: list[Device] = [device("first", 1), optional(value), device("last", 2, after=["maybe"])]
    assert moved(source, tmp_path / "m.mig", [*destination]) == names
    assert [vars(each)["value"] for each in destination] == [1, value or 5, 2]


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("vmsd", ["main-channel", "multifd"])
@pytest.mark.parametrize("models", MODELS)
def test_nobody_waits_for_a_section_that_is_left_out(tmp_path: Path, models: Models, vmsd: str, value: int) -> None:
    """Whether the others are sections or jobs, and with a job of its own for its config."""

    def machine(value: int, last: int) -> list[Device]:
        maybe = optional(value)
        maybe.config_job = vmsd == "main-channel"
        return [Scripted(0, contents(9000)), maybe, device("last", last, after=["maybe"]), device("other", 3)]

    source, destination = machine(value, 2), machine(5, 0)
    settings = replace(SETTINGS, vmsd=vmsd)  # type: ignore[arg-type]
    sent, got = migrate(tmp_path, source, destination, settings=settings, models=models)
    assert (sent.error, got.error, sent.outcome) == ("", "", State.COMPLETED)
    assert vars(destination[1])["value"] == (value or 5)
    assert vars(destination[2])["value"] == 2


def test_what_goes_wrong_in_needed_is_told(tmp_path: Path) -> None:
    source: list[Device] = [optional(1, lambda _: 1 // 0)]
    with (
        pytest.raises(DeviceError, match=r"maybe: field needed\(\): ZeroDivisionError"),
        StreamFile(tmp_path / "x") as f,
    ):
        SnapshotSource(Machine("m", source), Settings(), InlineScheduler(), f).save()


def test_sections_stand_by_priority_and_then_as_in_the_machine(tmp_path: Path) -> None:
    def machine(value: int) -> list[Device]:
        return [
            device("late", value, priority=Priority.LOW),
            device("plain", value),
            device("bus", value, priority=Priority.PCI_BUS),
            device("also plain", value),
            device("iommu", value, priority=Priority.IOMMU),
            device("gic", value, priority=Priority.GICV3, after=["plain"]),
        ]

    destination = machine(0)
    names = moved(machine(1), tmp_path / "m.mig", destination)
    assert names == ["bus", "iommu", "plain", "gic", "also plain", "late"]
    assert [vars(each)["value"] for each in destination] == [1] * 6


def test_an_early_section_comes_before_the_memory_and_while_the_machine_runs(tmp_path: Path) -> None:
    def machine(value: int) -> list[Device]:
        early = device("early", value, early=True)
        return [
            device("plain", value),
            Paper(3),
            device("first", value, early=True, priority=Priority.VIRTIO_MEM),
            early,
        ]

    source, destination = machine(1), machine(0)
    assert moved(source, tmp_path / "m.mig", destination) == ["first", "early", "ram", "plain"]
    assert vars(source[3])["calls"] == ["save", "stop"]
    assert vars(source[0])["calls"] == ["stop", "save"]
    assert [vars(destination[at])["value"] for at in (0, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize("models", MODELS)
def test_an_early_section_crosses_in_a_live_migration(tmp_path: Path, models: Models) -> None:
    source = [
        Scripted(0, contents(9000)),
        device("early", 4, early=True, needed=lambda it: it.value),
        device("plain", 2),
    ]
    destination = [Scripted(0), device("early", early=True, needed=lambda it: it.value), device("plain")]
    sent, got = migrate(tmp_path, source, destination, settings=replace(SETTINGS, vmsd="multifd"), models=models)
    assert (sent.error, got.error, sent.outcome) == ("", "", State.COMPLETED)
    assert [vars(each)["value"] for each in destination[1:]] == [4, 2]
    assert [(each.bytes, each.bytes_before_stop) for each in sent.devices[1:]] == [(1, 1), (1 + 4, 0)]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda: [channel("multifd", early=True)],
            "d is early, which only a device with a section on the main channel",
        ),
        (lambda: [channel("multifd", needed=bool)], "d is optional, which only a device with a section on the main"),
        (lambda: [iterable()], "device-0 is optional, which only a device with a section"),
        (
            lambda: [device("d", early=True, after=["e"]), device("e")],
            "d is early, but to be loaded after e, which is not",
        ),
        (lambda: [Paper(1), device("d", early=True, after=["ram"])], "d is early, but to be loaded after ram"),
    ],
)
def test_a_machine_in_which_that_cannot_be_is_refused(made: Callable[[], list[Device]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Machine("m", made())


def channel(name: str, **says: Any) -> Device:
    made = device("d", **says)
    made.config_channel = name  # type: ignore[assignment]
    return made


def iterable() -> Device:
    made = Scripted(0, b"")
    made.optional = True
    return made
