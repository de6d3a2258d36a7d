"""What iterable devices give while the machine runs, as jobs over the multifd channels, under every model."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from migpool.core.effects import Wait
from migpool.device import ConfigChannel, Pending
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.per_device import PerDeviceScheduler
from tests.support.rig import KIB, MODELS, Models, Pair, Scripted, contents, migrate

SETTINGS = Settings(channels=2, chunk=4 * KIB, budget=64 * KIB, peer_limit=5, live="multifd", downtime_limit=1e-9)


class InRounds(Scripted):
    """A device that has something to save in several rounds: a piece of ``precopy`` in each."""

    def __init__(self, number: int, rounds: int, each: int, state: int, initial: int = 0) -> None:
        super().__init__(number, contents(state, number))
        self.live = contents(rounds * each, 100 + number)
        self.sizes = [each] * rounds
        self.initial = initial
        self.sent_live = 0
        self.asked = 0

    def fingerprint(self) -> bytes:
        return hashlib.sha256(self.live + bytes(self.state)).digest()

    def pending(self) -> Pending:
        left = self.sizes[0] if self.sizes else 0
        return Pending(left, len(self.state) - self.at, min(self.initial, left))

    def iterate(self, buffer: memoryview) -> int:
        self._called("iterate")
        if not self.sizes:
            return 0
        taken = min(len(buffer), self.sizes[0])
        buffer[:taken] = self.live[self.sent_live : self.sent_live + taken]
        self.sent_live += taken
        self.initial = max(0, self.initial - taken)
        self.sizes[0] -= taken
        if not self.sizes[0]:
            self.sizes.pop(0)
        return taken


@pytest.mark.parametrize("workers", [(None, None), (1, 1), (4, 2)])
@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("models", MODELS)
def test_rounds_and_the_rest_arrive_in_order(
    tmp_path: Path, models: Models, workers: tuple[int | None, int | None], in_flight: int
) -> None:
    """A device that gives nothing, less than a chunk, many chunks; more rounds than one; initial data, too."""
    source = [
        InRounds(0, 0, 0, 20 * KIB),
        InRounds(1, 1, 100, 9 * KIB),
        InRounds(2, 3, 30 * KIB, 0, initial=50 * KIB),
        InRounds(3, 2, 4 * KIB, 30 * KIB),
        InRounds(4, 1, 90 * KIB, 1),
    ]
    destination = [Scripted(number) for number in range(len(source))]
    settings = replace(SETTINGS, in_flight=in_flight)
    sent, got = migrate(tmp_path, source, destination, settings=settings, models=models, workers=workers)
    assert not sent.error, sent.error
    assert not got.error, got.error
    assert [bytes(there.got) for there in destination] == [here.live + bytes(here.state) for here in source]
    assert [there.got_config for there in destination] == [here.config for here in source]
    assert [report.bytes_before_stop for report in sent.devices] == [len(here.live) for here in source]
    assert [report.bytes_after_stop - report.config for report in sent.devices] == [len(here.state) for here in source]
    assert got.high_water <= 64 * KIB
    before = [span for span in sent.spans if span.wait is Wait.SEND and span.end < sent.stopped]
    assert sum(1 for span in before if span.slot == 4) == 24, "23 chunks, and the end of the round"


def test_devices_are_saved_at_once_in_a_round(tmp_path: Path) -> None:
    source, destination = [InRounds(number, 1, 4 * KIB, 0) for number in range(2)], [Scripted(0), Scripted(1)]
    both = threading.Barrier(2)

    def meet() -> None:
        both.wait(20)

    for device in source:
        device.before["iterate"] = meet
    sent, _ = migrate(tmp_path, source, destination, settings=SETTINGS, models=(PerDeviceScheduler, PerDeviceScheduler))
    assert not sent.error, sent.error
    assert not both.broken


def test_initial_data_is_loaded_before_it_is_acknowledged(tmp_path: Path) -> None:
    """The machine stops only when the load job, not the main channel's reader, has it."""
    source, destination = InRounds(0, 1, 20 * KIB, 5, initial=20 * KIB), Scripted(0)
    loaded_at_stop: list[int] = []
    source.before["stop"] = lambda: loaded_at_stop.append(len(destination.got))
    destination.before["load_state"] = partial(time.sleep, 0.02)
    sent, _ = migrate(tmp_path, [source], [destination], settings=SETTINGS)
    assert not sent.error, sent.error
    assert loaded_at_stop == [20 * KIB]


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("side", ["source", "destination"])
def test_what_fails_while_the_machine_runs_is_named(tmp_path: Path, models: Models, side: str) -> None:
    source, destination = [InRounds(0, 2, 9 * KIB, 9), InRounds(1, 2, 9 * KIB, 9)], [Scripted(0), Scripted(1)]
    (source if side == "source" else destination)[1].fail_in("iterate" if side == "source" else "load_state")
    sent, got = migrate(tmp_path, source, destination, settings=SETTINGS, models=models)
    assert "device-1" in sent.error
    assert "told to fail in" in sent.error
    assert sent.outcome is State.FAILED
    assert got.error
    assert all(device.running for device in source)
    assert not any("stop" in device.calls for device in source)


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_cancel_while_the_machine_runs_ends_every_job(tmp_path: Path, models: Models, side: str) -> None:
    source, destination = InRounds(0, 2, 9 * KIB, 9), Scripted(0)
    reached = threading.Event()
    (source if side == "source" else destination).block_in("iterate" if side == "source" else "load_state", reached)
    sent, _ = Pair([source], [destination], settings=SETTINGS, models=models).cancelled_at(tmp_path, reached)
    assert sent.outcome is State.CANCELLED
    assert source.running


@pytest.mark.parametrize("here", ["main-channel", "multifd"])
def test_ends_that_do_not_agree_say_so(tmp_path: Path, here: ConfigChannel) -> None:
    settings = replace(SETTINGS, live=here)
    other = replace(SETTINGS, live="multifd" if here == "main-channel" else "main-channel")
    sent, got = migrate(tmp_path, [InRounds(0, 1, 9, 9)], [Scripted(0)], settings=settings, destination_settings=other)
    assert "what devices give while they run on the" in sent.error
    assert "start both ends with the same scenario" in got.error
