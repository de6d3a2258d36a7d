"""State that moves by splice(2), at the source, at the destination, or at both: under every model it arrives in order,
and a device that does not take it is named."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from migpool.core.effects import Wait
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.analysis.why import analyse
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.schedulers.blocking_aware import BlockingAwareScheduler
from migpool.schedulers.elastic import ElasticScheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.poll import PollScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from tests.support.rig import KIB, LIMIT, Pair, Scripted, contents, migrate
from tests.support.tampering import Line

CHUNK = 64 * KIB
SETTINGS = Settings(channels=2, chunk=CHUNK, budget=8 * CHUNK, peer_limit=10, splice=True)
MODELS = [
    InlineScheduler,
    PerDeviceScheduler,
    PoolScheduler,
    ElasticScheduler,
    ReceiverScheduler,
    BlockingAwareScheduler,
    PollScheduler,
]


class Spliced(Scripted):
    """A device whose state is in a memfd, from its beginning on."""

    def __init__(self, number: int, state: bytes = b"") -> None:
        super().__init__(number, state)
        self.fd = os.memfd_create(f"state {number}")
        os.write(self.fd, state)
        os.lseek(self.fd, 0, os.SEEK_SET)

    def splice_fd(self) -> int | None:
        return self.fd

    def load_state(self, data: memoryview) -> None:
        self._called("load_state")
        os.write(self.fd, data)

    def load_config(self, data: bytes) -> None:
        self.got[:] = os.pread(self.fd, 1 << 30, 0)
        super().load_config(data)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def spliced(stack: ExitStack, sizes: list[int]) -> list[Scripted]:
    made = [Spliced(number, contents(size, number)) for number, size in enumerate(sizes)]
    for device in made:
        stack.callback(os.close, device.fd)
    return list(made)


def plain(sizes: list[int]) -> list[Scripted]:
    return [Scripted(number, contents(size, number)) for number, size in enumerate(sizes)]


def arrived(source: list[Scripted], destination: list[Scripted]) -> None:
    for here, there in zip(source, destination, strict=True):
        assert bytes(there.got) == bytes(here.state)


SIZES = [3000 * KIB, 0, 50 * KIB, 700 * KIB]


def test_the_source_needs_no_buffer(tmp_path: Path, stack: ExitStack) -> None:
    source, destination = spliced(stack, SIZES), plain([0] * len(SIZES))
    sent, got = migrate(tmp_path, source, destination, settings=SETTINGS)
    assert (sent.error, got.error) == ("", "")
    arrived(source, destination)
    assert not any("save_state" in device.calls for device in source)


def test_the_destination_needs_no_buffer_for_what_comes_in_order(tmp_path: Path, stack: ExitStack) -> None:
    source, destination = plain(SIZES), spliced(stack, [0] * len(SIZES))
    # Over one channel all comes in order.
    settings = Settings(channels=1, chunk=CHUNK, budget=8 * CHUNK, peer_limit=10, splice=True)
    sent, got = migrate(tmp_path, source, destination, settings=settings)
    assert (sent.error, got.error) == ("", "")
    arrived(source, destination)
    through_buffers = sum(device.calls.count("load_state") for device in destination)
    chunks = sum(-(-size // CHUNK) for size in SIZES)
    # What comes before a load job has begun, or while another thread is at it, is received: a few chunks.
    assert through_buffers < chunks
    assert sum(span.wait is Wait.WRITE for span in got.spans) == chunks


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_it_arrives_in_order_under_every_model(tmp_path: Path, stack: ExitStack, model: type[Scheduler]) -> None:
    saving = PoolScheduler if "source" not in model.sides else model
    source, destination = spliced(stack, SIZES), spliced(stack, [0] * len(SIZES))
    sent, got = migrate(tmp_path, source, destination, settings=SETTINGS, models=(saving, model))
    assert (sent.error, got.error) == ("", "")
    arrived(source, destination)


def test_only_the_devices_that_have_a_descriptor_are_spliced(tmp_path: Path, stack: ExitStack) -> None:
    source = [*spliced(stack, SIZES[:1]), Scripted(1, contents(900 * KIB, 1))]
    destination = [Scripted(0), *spliced(stack, [0, 0])[1:]]
    sent, got = migrate(tmp_path, source, destination, settings=SETTINGS)
    assert (sent.error, got.error) == ("", "")
    arrived(source, destination)


def test_the_downtime_is_explained_as_ever(tmp_path: Path, stack: ExitStack) -> None:
    source, destination = spliced(stack, SIZES), spliced(stack, [0] * len(SIZES))
    sent, got = migrate(tmp_path, source, destination, settings=SETTINGS)
    assert (sent.error, got.error) == ("", "")
    links = attribute(sent, got).links
    assert links[0].begin == sent.stopped
    assert links[-1].end == got.running
    assert all(one.end == two.begin for one, two in pairwise(links))
    found = analyse(sent, got, CHUNK)
    assert found is not None
    assert found.replayed_ms is not None


@pytest.mark.parametrize("at_source", [True, False])
def test_a_device_that_refuses_is_named(tmp_path: Path, stack: ExitStack, at_source: bool) -> None:
    source, destination = spliced(stack, SIZES), spliced(stack, [0] * len(SIZES))
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    stack.callback(os.close, writer)
    stubborn = (source if at_source else destination)[0]
    assert isinstance(stubborn, Spliced)
    os.dup2(writer if at_source else reader, stubborn.fd)  # the wrong end
    sent, got = migrate(tmp_path, source, destination, settings=SETTINGS)
    assert sent.outcome is got.outcome is State.FAILED
    assert "device-0, chunk 0: " in sent.error
    assert "Bad file descriptor" in sent.error
    assert all(device.running for device in source)


@pytest.mark.parametrize("stalls", [True, False])
def test_a_source_that_stops_in_the_middle_of_a_chunk_is_found_out(
    tmp_path: Path, stack: ExitStack, stalls: bool
) -> None:
    source, destination = plain([400 * KIB]), spliced(stack, [0])
    over = threading.Event()

    def cut(_idstr: str, index: int, payload: bytes) -> bytes:
        if index < 3:
            return payload
        if index > 3:
            if stalls:
                over.wait(LIMIT)
            raise OSError("the line is cut")
        return payload[: CHUNK // 2]

    patient = Settings(channels=1, chunk=CHUNK, budget=8 * CHUNK, peer_limit=LIMIT, splice=True)
    settings = replace(patient, peer_limit=2)
    line = Line(tmp_path / "line", cut)
    try:
        sent, got = Pair(source, destination, patient, settings, through=line).run(tmp_path)
    finally:
        over.set()
        line.close()
    assert sent.outcome is got.outcome is State.FAILED
    assert "device-0" in got.error
    assert ("chunk 3 has not come; nothing has come" if stalls else "in the middle of it") in got.error
