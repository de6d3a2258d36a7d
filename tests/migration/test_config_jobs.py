"""The configs of devices that are not iterable can be saved as jobs of the threading model; the order stays."""

from __future__ import annotations

import threading
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.schedulers.elastic import ElasticScheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.pool import PoolScheduler
from tests.support.rig import LIMIT, Pair, Scripted, contents

MODELS: dict[str, type[Scheduler]] = {
    point.name: point.load() for point in entry_points(group="migpool.schedulers") if "source" in point.load().sides
}
SMALL = 6


def machine(*, jobs: bool, state: int = 0) -> list[Scripted]:
    """Devices without state, every second one saved as a job if ``jobs``; and an iterable one."""
    small = [Scripted(number, None, name="small") for number in range(SMALL)]
    for device in small[::2]:
        device.config_job = jobs
    return [*small[:3], Scripted(0, contents(state) if state else b""), *small[3:]]


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("workers", [1, None])
def test_sections_keep_their_order_under_every_model(tmp_path: Path, model: str, workers: int | None) -> None:
    source, destination = machine(jobs=True, state=200_000), machine(jobs=False)
    loaded: list[str] = []
    for device in destination:
        device.before["load_config"] = lambda name=device.idstr: loaded.append(name)  # type: ignore[misc]
    few = (workers if MODELS[model].takes_workers else None, None)
    sent, got = Pair(source, destination, models=(MODELS[model], PerDeviceScheduler), workers=few).run(tmp_path)
    assert (sent.error, got.error) == ("", "")
    assert sent.outcome is got.outcome is State.COMPLETED
    assert sent.verified
    assert [name for name in loaded if name.startswith("small")] == [f"small-{number}" for number in range(SMALL)]
    for device, other in zip(source, destination, strict=True):
        assert other.got_config == device.config
        assert device.calls.count("save_config") == 1


def saving_threads(tmp_path: Path, model: type[Scheduler], *, jobs: bool) -> dict[str, int]:
    source, destination = machine(jobs=jobs), machine(jobs=False)
    threads: dict[str, int] = {}
    for device in source:
        device.before["save_config"] = lambda name=device.idstr: threads.update(  # type: ignore[misc]
            {name: threading.get_ident()}
        )
    sent, _ = Pair(source, destination, models=(model, PerDeviceScheduler)).run(tmp_path)
    assert sent.outcome is State.COMPLETED
    return threads


@pytest.mark.parametrize("model", [PoolScheduler, ElasticScheduler, PerDeviceScheduler])
def test_a_config_with_a_job_is_saved_on_the_models_thread(tmp_path: Path, model: type[Scheduler]) -> None:
    own = threading.get_ident()
    threads = saving_threads(tmp_path, model, jobs=True)
    assert {name for name, thread in threads.items() if thread == own} == {"small-1", "small-3", "small-5"}
    together = saving_threads(tmp_path, model, jobs=False)
    assert {name for name, thread in together.items() if thread != own} == {"device-0"}


def test_without_threads_a_config_with_a_job_is_saved_in_place(tmp_path: Path) -> None:
    threads = saving_threads(tmp_path, InlineScheduler, jobs=True)
    assert set(threads.values()) == {threading.get_ident()}


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_config_that_cannot_be_saved_fails_the_migration_and_the_machine_goes_on(tmp_path: Path, model: str) -> None:
    source, destination = machine(jobs=True), machine(jobs=False)
    source[2].fail_in("save_config")
    sent, got = Pair(source, destination, models=(MODELS[model], PerDeviceScheduler)).run(tmp_path)
    assert sent.error == "small-2: told to fail in save_config"
    assert sent.outcome is got.outcome is State.FAILED
    assert all(device.running for device in source)


def test_a_cancel_ends_the_wait_for_a_config(tmp_path: Path) -> None:
    source, destination = machine(jobs=True), machine(jobs=False)
    reached = threading.Event()
    source[0].block_in("save_config", reached)
    pair = Pair(source, destination, models=(PoolScheduler, PerDeviceScheduler))
    pair.prepare(tmp_path)

    def cancel() -> None:
        assert reached.wait(LIMIT)
        pair.sender.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    sent, _ = pair.go()
    canceller.join(LIMIT)
    assert not canceller.is_alive()
    assert sent.outcome is State.CANCELLED
    assert all(device.running for device in source)
