"""No device is spoken to by a peer that still runs after it has stopped: all are quiet before any stops, all awake
before any runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.migration.destination import Destination
from migpool.migration.endpoint import Endpoint
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.migration.states import State
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.transport.address import Address
from tests.support.rig import KIB, Scripted, contents, migrate

Log = list[tuple[str, str]]


def machines() -> tuple[list[Scripted], list[Scripted], Log, Log]:
    """Three devices a side, and the calls of both steps in the order in which they came."""
    logs: tuple[Log, Log] = ([], [])
    sides = (
        [Scripted(0, contents(20 * KIB)), Scripted(1, None), Scripted(2, contents(20 * KIB, 2))],
        [Scripted(0), Scripted(1, None), Scripted(2)],
    )
    for devices, log in zip(sides, logs, strict=True):
        for device in devices:
            for call in ("quiesce", "stop", "wake", "resume", "start"):
                device.before[call] = noting(log, call, device.idstr)
    return *sides, *logs


def noting(log: Log, call: str, name: str) -> Callable[[], None]:
    return lambda: log.append((call, name))


def calls(call: str, *numbers: int) -> Log:
    return [(call, f"device-{number}") for number in numbers]


def test_all_are_quiet_before_any_stops_and_all_awake_before_any_starts(tmp_path: Path) -> None:
    source, destination, here, there = machines()
    sent, got = migrate(tmp_path, source, destination)
    assert (sent.error, got.error) == ("", "")
    assert here == calls("quiesce", 0, 1, 2) + calls("stop", 0, 1, 2)
    assert there == calls("wake", 2, 1, 0) + calls("start", 2, 1, 0)


def test_after_a_failure_all_are_awake_before_any_is_resumed(tmp_path: Path) -> None:
    source, destination, here, there = machines()
    destination[1].fail_in("load_config")
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.outcome is State.FAILED
    assert here[6:] == calls("wake", 0, 1, 2) + calls("resume", 0, 1, 2)
    assert there == []


def test_all_are_resumed_whichever_cannot_wake(tmp_path: Path) -> None:
    source, destination, _, _ = machines()
    source[0].fail_in("quiesce")
    source[1].fail_in("wake")
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.error == "device-0: told to fail in quiesce; and then: device-1: told to fail in wake"
    assert all(device.running for device in source)
    assert [device.calls[-1] for device in source] == ["resume"] * 3


def test_none_stops_if_one_cannot_be_quiet(tmp_path: Path) -> None:
    source, destination, here, _ = machines()
    source[2].fail_in("quiesce")
    migrate(tmp_path, source, destination)
    assert "stop" not in dict(here)


def test_none_starts_if_one_cannot_wake(tmp_path: Path) -> None:
    source, destination, _, there = machines()
    destination[0].fail_in("wake")
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.error == "the destination failed: device-0: told to fail in wake"
    assert there == calls("wake", 2, 1)


# ---------------------------------------------------------------------- machines that cannot


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_device_that_could_reach_into_a_stopped_one_is_refused_before_anything_is_sent(
    tmp_path: Path, side: str
) -> None:
    source, destination, _, _ = machines()
    for device, quiet in zip(source if side == "source" else destination, (False, None, True), strict=True):
        device.peer_to_peer = quiet
    address = Address(path=str(tmp_path / "nobody"))
    if side == "source":
        end: Endpoint = Source(Machine("machine", source), Settings(), PerDeviceScheduler())
    else:

        def listening(_: Address) -> None:
            pytest.fail("it listened")

        end = Destination(Machine("machine", destination), Settings(), PerDeviceScheduler(), listening=listening)
    report = end.run(address)
    assert report.outcome is State.FAILED
    assert report.error == (
        "device-0 cannot be quiet before stopping, and so could still reach into one of the 2 devices with "
        "peer-to-peer access that has stopped already: migrate with one such device alone, or with drivers that all "
        "support a peer-to-peer state; VFIO devices that reach no other have the option peer_to_peer = false"
    )
    assert all("setup" not in call for device in (*source, *destination) for call in device.calls)


@pytest.mark.parametrize(
    "quiet", [(False, None, None), (True, None, True), (None, None, None)], ids=["one alone", "all can", "none reaches"]
)
def test_other_machines_are_not_refused(tmp_path: Path, quiet: tuple[bool | None, ...]) -> None:
    source, destination, _, _ = machines()
    for devices in (source, destination):
        for device, can in zip(devices, quiet, strict=True):
            device.peer_to_peer = can
    sent, got = migrate(tmp_path, source, destination)
    assert (sent.error, got.error) == ("", "")
