"""Many devices at once over vfio-user, one of which fails somewhere: it is named, and every server's device runs on."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from migpool.device import Device, DeviceContext, OptionValue, Side
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.schedulers.elastic import ElasticScheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from migpool_plugins.vfio import devices
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vfio.migration import MigrationState
from migpool_plugins.vfio.vfiouser.port import ServedDevices
from tests.support import LONG, PROFILE
from tests.support.rig import KIB, Pair
from tests.support.vfio.vfiouser_rig import RawClient

MANY, SOME = 64 if LONG else 24, 8
"""Devices; with many of them only one model for each ending in the short profile."""
RUNNING = MigrationState.RUNNING
SIZE = 16 * KIB
MODELS = [
    pytest.param((InlineScheduler, InlineScheduler), id="inline"),
    pytest.param((PerDeviceScheduler, PerDeviceScheduler), id="per-device"),
    pytest.param((PoolScheduler, PoolScheduler), id="pool"),
    pytest.param((ElasticScheduler, ElasticScheduler), id="elastic"),
    pytest.param((PoolScheduler, ReceiverScheduler), id="pool+receiver"),
]

ENDINGS = ("source", "destination", "")
"""Where a device fails, if one does."""


CASES = [
    pytest.param(ending, *model.values, MANY if LONG or turn == at + 2 else SOME, id=f"{ending or 'none'}-{model.id}")
    for at, ending in enumerate(ENDINGS)
    for turn, model in enumerate(MODELS)
]

Models = tuple[type[Scheduler], type[Scheduler]]
Fault = dict[str, OptionValue] | None


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def serve(directory: Path, side: Side, fault: Fault, count: int, **more: OptionValue) -> ServedDevices:
    options: dict[str, OptionValue] = {"profile": "tiny", "size": SIZE, "chunk": 4 * KIB, **more}
    if fault:
        options["fault"] = fault
    return ServedDevices(options, count, 1, str(directory / side), lambda _: None)


def run(directory: Path, models: Models, count: int, **more: OptionValue) -> tuple[State, State, str, str]:
    def opened(side: Side) -> list[Device]:
        options = {"backend": "vfio-user", "socket": str(directory / side), **more}
        return list(devices(DeviceContext(side, options, count)))

    source, destination = opened("source"), opened("destination")
    try:
        settings = Settings(channels=4, chunk=4 * KIB, budget=1024 * KIB, peer_limit=20)
        sent, got = Pair(source, destination, settings=settings, models=models).run(directory)
        runs = source if sent.outcome is State.FAILED else destination
        # Asked before anything is closed, since a close would reset a device that was left elsewhere.
        assert all(isinstance(device, VfioDevice) and device.backend.state() is RUNNING for device in runs)
    finally:
        for device in (*source, *destination):
            device.close()
    return sent.outcome, got.outcome, sent.error, got.error


@pytest.mark.parametrize(("failing", "models", "count"), CASES)
def test_one_of_many_devices_fails_and_all_run_on(failing: str, models: Models, count: int, directory: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32) if PROFILE == "search" else 18
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails, to run it again
    chosen = random.Random(seed)
    device, at = chosen.randrange(count), chosen.randrange(SIZE)
    fault: Fault = {"device": device, "side": failing, "at": at, "kind": "error"} if failing else None
    servers = [serve(directory, "source", fault, count), serve(directory, "destination", fault, count)]
    try:
        for server in servers:
            server.start()
        sent, got, sent_error, got_error = run(directory, models, count)
        if failing:
            assert (sent, got) == (State.FAILED, State.FAILED)
            said = sent_error if failing == "source" else got_error
            assert f"0000:{device + 1:02x}:00.0/vfio, chunk {at // (4 * KIB)}: " in said
            assert "was refused: Input/output error (EIO); the device was in " in said
        else:
            assert (sent, got, sent_error, got_error) == (State.COMPLETED, State.COMPLETED, "", "")
        for server in servers:
            for where in server.paths:
                client = RawClient(where)
                assert client.state == "RUNNING"
                client.close()
    finally:
        for server in servers:
            server.stop()


@pytest.mark.parametrize("failing", ENDINGS)
@pytest.mark.parametrize("models", MODELS)
def test_devices_with_engines_move_part_by_part_and_one_that_fails_is_named(
    models: Models, failing: str, directory: Path
) -> None:
    fault: Fault = {"device": 1, "side": failing, "at": 9 * KIB, "kind": "error"} if failing else None
    servers = [serve(directory, "source", fault, 3, engines=3), serve(directory, "destination", fault, 3, engines=2)]
    try:
        for server in servers:
            server.start()
        sent, got, sent_error, got_error = run(directory, models, 3, engines=4)
        if failing:
            assert (sent, got) == (State.FAILED, State.FAILED)
            said = sent_error if failing == "source" else got_error
            assert "0000:02:00.0/vfio" in said
            assert "was refused: Input/output error (EIO); the device was in " in said
        else:
            assert (sent, got, sent_error, got_error) == (State.COMPLETED, State.COMPLETED, "", "")
    finally:
        for server in servers:
            server.stop()
