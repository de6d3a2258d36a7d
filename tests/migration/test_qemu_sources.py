"""A source as a QEMU is, under every threading model: what its order of things means, nobody waits for for ever."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.device import Device
from migpool.migration.destination import Destination
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.scenario.model_names import all_models, parse_model
from migpool.transport.address import Address
from migpool.wire.returnpath import Shut
from tests.support import LONG
from tests.support.paper import PAGE, Paper
from tests.support.qemu_source import LIMIT, QemuSource, Stream
from tests.support.rig import KIB, Scripted, contents

CHANNELS = 3
SETTINGS = Settings(channels=CHANNELS, chunk=16 * KIB, budget=1024 * KIB, peer_limit=LIMIT, credits=False)
PAGES = 24
MODELS = [*all_models(), "pool:1", "pool:2", "elastic:1", "blocking-aware:1", "poll:1", "pool:1:queue"]
"""Also with fewer threads than there are devices: then the thread that reads the main channel waits for one."""


class Exact(Scripted):
    """A device whose config says by itself where it ends, as QEMU's do; without a digest, which QEMU has not."""

    def exact_config(self) -> bool:
        return True

    def measure_config(self, data: memoryview) -> int | None:
        return len(self.config) if len(data) >= len(self.config) else None


def stream_of(devices: int, *, plain: int = 1, chunks: int = 4) -> Stream:
    """A machine in which every chunk of every device, and every page, is another one."""
    paper = Paper(PAGES)
    for page in range(PAGES):
        paper.write(0, page, contents(PAGE, page + 1))
    made = [Exact(number) for number in range(devices)]
    return Stream(
        {one.idstr: [contents(3 * KIB, 100 * at + n) for n in range(chunks)] for at, one in enumerate(made)},
        {one.idstr: one.config for one in made},
        paper,
        {one.idstr: one.config for one in (Exact(number, None, name="plain") for number in range(plain))},
    )


def machine_of(stream: Stream) -> tuple[list[Exact], Paper, list[Device]]:
    """The destination's: its iterable devices, its memory, and all of it."""
    iterable = [Exact(number) for number in range(len(stream.states))]
    plain = [Exact(number, None, name="plain") for number in range(len(stream.plain))]
    paper = Paper(PAGES)
    return iterable, paper, [paper, *iterable, *plain]


@contextmanager
def receiving(
    folder: Path, devices: list[Device], model: str, settings: Settings = SETTINGS
) -> Iterator[tuple[Address, Callable[[], SideReport]]]:
    """A destination under a model; yields where it listens, and what waits for its report."""
    part = parse_model(model).destination
    listening, where, reports = threading.Event(), list[Address](), list[SideReport]()

    def heard(address: Address) -> None:
        where.append(address)
        listening.set()

    end = Destination(Machine("machine", devices), settings, part.make(), workers=part.workers, listening=heard)
    thread = threading.Thread(target=lambda: reports.append(end.run(Address(path=str(folder / "d")))))
    thread.start()

    def report() -> SideReport:
        thread.join(2 * LIMIT)
        assert not thread.is_alive(), "the destination did not end"
        return reports[0]

    try:
        assert listening.wait(LIMIT)
        yield where[0], report
    finally:
        end.cancel()
        thread.join(2 * LIMIT)


def check(stream: Stream, devices: list[Exact], paper: Paper) -> None:
    """Every byte is where it belongs, and came in order."""
    for device in devices:
        state = b"".join(stream.states[device.idstr])
        assert hashlib.sha256(device.got).digest() == hashlib.sha256(state).digest()
        assert device.got_config == stream.configs[device.idstr]
    assert paper.contents() == stream.paper.contents()


@pytest.mark.parametrize("model", MODELS)
def test_chunks_stand_before_between_and_behind_the_syncs(tmp_path: Path, model: str) -> None:
    """Whatever waits for a chunk: it comes, although the FLUSH is read only when that wait is over."""
    for seed in range(40 if LONG else 4):
        stream = stream_of(3)
        devices, paper, machine = machine_of(stream)
        (folder := tmp_path / str(seed)).mkdir()
        with receiving(folder, machine, model) as (address, report), QemuSource(address, CHANNELS) as source:
            source.greet(stream.begin())
            source.switch_over(stream.flush(last=True, count=2) + stream.rest(), stream.switchover(seed, CHANNELS))
            assert [one.error for one in source.heard() if isinstance(one, Shut)] == [0]
        ended = report()
        assert (ended.outcome, ended.error) == (State.COMPLETED, ""), f"seed {seed}"
        check(stream, devices, paper)
