"""Both ends of a migration in one process, over UNIX sockets, with devices that do what a test tells them."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest

from migpool.core.machine import Machine
from migpool.device import Device, DeviceError, Pending, VerificationError
from migpool.migration.destination import Destination
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.precopy.rounds import Round
from migpool.schedulers.base import Scheduler
from migpool.schedulers.blocking_aware import BlockingAwareScheduler
from migpool.schedulers.elastic import ElasticScheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.poll import PollScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from migpool.transport.address import Address

LIMIT = 20.0
KIB = 1024

Models: TypeAlias = tuple[type[Scheduler], type[Scheduler]]
"""The source's and the destination's threading model."""
MODELS = [
    pytest.param((InlineScheduler, InlineScheduler), id="inline"),
    pytest.param((PerDeviceScheduler, PerDeviceScheduler), id="per-device"),
    pytest.param((PoolScheduler, PoolScheduler), id="pool"),
    pytest.param((ElasticScheduler, ReceiverScheduler), id="elastic+receiver"),
    pytest.param((BlockingAwareScheduler, BlockingAwareScheduler), id="blocking-aware"),
    pytest.param((PollScheduler, PollScheduler), id="poll"),
]


class Scripted(Device):
    """A device whose calls can be made to fail, to block until ``abort``, or to do something else first.

    Arguments:
        number: its name is made of it.
        state: the state's bytes at the source; ``None`` for a device without any.
        piece: how many bytes one ``save_state`` gives at most; 0 for as many as fit.
    """

    def __init__(self, number: int = 0, state: bytes | None = b"", piece: int = 0, name: str = "device") -> None:
        self.idstr = f"{name}-{number}"
        self.iterable = state is not None
        self.state = memoryview(state or b"")
        self.piece = piece
        self.config = f"config of {name}-{number}".encode()
        self.at = 0
        self.got = bytearray()
        self.got_config: bytes | None = None
        self.calls: list[str] = []
        self.before: dict[str, Callable[[], None]] = {}
        self.running = True
        self.setup = b""
        self.precopy = b""
        self.initial = 0
        self._aborted = threading.Event()

    # -------------------------------------------------------------- what a test can do to it

    def fail_in(self, call: str, error: Exception | None = None) -> None:
        def fail() -> None:
            raise error or DeviceError(f"told to fail in {call}")

        self.before[call] = fail

    def block_in(self, call: str, reached: threading.Event) -> None:
        def block() -> None:
            reached.set()
            if not self._aborted.wait(LIMIT):
                raise AssertionError(f"nobody aborted {call}")
            raise DeviceError(f"aborted in {call}")

        self.before[call] = block

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if (before := self.before.get(name)) is not None:
            before()

    # -------------------------------------------------------------- the device

    def save_setup(self) -> bytes:
        self._called("save_setup")
        return self.setup

    def pending(self) -> Pending:
        return Pending(len(self.precopy), len(self.state) - self.at, min(self.initial, len(self.precopy)))

    def iterate(self, buffer: memoryview) -> int:
        self._called("iterate")
        taken = min(len(buffer), len(self.precopy))
        buffer[:taken] = self.precopy[:taken]
        self.precopy = self.precopy[taken:]
        self.initial = max(0, self.initial - taken)
        return taken

    def quiesce(self) -> None:
        self._called("quiesce")

    def stop(self) -> None:
        self.running = False
        self._called("stop")

    def save_state(self, buffer: memoryview) -> int:
        self._called("save_state")
        size = min(len(buffer), self.piece or len(buffer), len(self.state) - self.at)
        buffer[:size] = self.state[self.at : self.at + size]
        self.at += size
        return size

    def save_config(self) -> bytes:
        self._called("save_config")
        return self.config

    def wake(self) -> None:
        self._called("wake")

    def resume(self) -> None:
        self.running = True
        self.at = 0
        self._called("resume")

    def load_setup(self, data: bytes) -> None:
        self.setup = data
        self._called("load_setup")

    def check_version(self, version: int) -> None:
        self._called("check_version")
        super().check_version(version)

    def load_state(self, data: memoryview) -> None:
        self._called("load_state")
        self.got += data

    def load_config(self, data: bytes) -> None:
        self._called("load_config")
        self.got_config = data

    def start(self) -> None:
        self._called("start")

    def verify(self) -> None:
        self._called("verify")

    def fingerprint(self) -> bytes | None:
        self._called("fingerprint")
        loaded = self.got_config is not None
        return hashlib.sha256(bytes(self.got if loaded else self.state)).digest()

    def abort(self) -> None:
        self._aborted.set()

    @property
    def aborted(self) -> bool:
        return self._aborted.is_set()


__all__ = [
    "KIB",
    "LIMIT",
    "MODELS",
    "Models",
    "OneAtATime",
    "Pair",
    "Scripted",
    "VerificationError",
    "contents",
    "migrate",
]


def contents(size: int, seed: int = 1) -> bytes:
    """Bytes that repeat nowhere."""
    return random.Random(seed).randbytes(size)


class OneAtATime:
    """What is called between devices' configs, and says whether another one was under way at that time."""

    def __init__(self) -> None:
        self._inside = threading.Lock()
        self.alone: list[bool] = []

    def __call__(self) -> None:
        alone = self._inside.acquire(blocking=False)
        self.alone.append(alone)
        time.sleep(0.01)  # the others, which could run now, would come in here
        if alone:
            self._inside.release()


@dataclass
class Pair:
    """A migration that has not begun: change what it is about, then ``run``.

    Arguments:
        source: the source's devices.
        destination: the destination's.
        listen: where the destination listens; by default a UNIX socket in the test's folder.
    """

    source: Sequence[Device]
    destination: Sequence[Device]
    settings: Settings = field(
        default_factory=lambda: Settings(channels=2, chunk=16 * KIB, budget=256 * KIB, peer_limit=LIMIT)
    )
    destination_settings: Settings | None = None
    models: tuple[Callable[[], Scheduler], Callable[[], Scheduler]] = (PerDeviceScheduler, ReceiverScheduler)
    workers: tuple[int | None, int | None] = (None, None)
    names: tuple[str, str] = ("machine", "machine")
    through: Callable[[Address], Address] | None = None
    listen: Address | None = None
    progress: Callable[[Round], None] | None = None

    def run(self, folder: Path) -> tuple[SideReport, SideReport]:
        """Run both ends; the source on the calling thread."""
        self.prepare(folder)
        return self.go()

    def prepare(self, folder: Path) -> None:
        """Have the destination listen."""
        self.heard = threading.Event()
        where: list[Address] = []
        self.received: list[SideReport] = []

        def listening(address: Address) -> None:
            where.append(address)
            self.heard.set()

        self.to = Destination(
            Machine(self.names[1], self.destination),
            self.destination_settings or self.settings,
            self.models[1](),
            workers=self.workers[1],
            listening=listening,
        )
        self.sender = Source(
            Machine(self.names[0], self.source),
            self.settings,
            self.models[0](),
            workers=self.workers[0],
            progress=self.progress,
        )
        address = self.listen or Address(path=str(folder / f"mig-{os.getpid()}-{id(self)}"))
        self._thread = threading.Thread(target=lambda: self.received.append(self.to.run(address)))
        self._thread.start()
        assert self.heard.wait(LIMIT)
        self.where = where[0]

    def go(self) -> tuple[SideReport, SideReport]:
        """Run the source, and return both reports."""
        sent = self.sender.run(self.through(self.where) if self.through else self.where)
        return sent, self.ended()

    def cancelled_at(self, folder: Path, reached: threading.Event) -> tuple[SideReport, SideReport]:
        """Run both ends, and cancel at the source once ``reached`` is set."""
        self.prepare(folder)

        def cancel_then() -> None:
            reached.wait(LIMIT)
            self.sender.cancel()

        watcher = threading.Thread(target=cancel_then)
        watcher.start()
        reports = self.go()
        watcher.join()
        return reports

    def ended(self) -> SideReport:
        """The destination's report, once it has ended."""
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), "the destination did not end"
        return self.received[0]


def migrate(
    folder: Path, source: Sequence[Device], destination: Sequence[Device], **how: object
) -> tuple[SideReport, SideReport]:
    """Run a migration with everything as it is by default but ``how``."""
    return Pair(source, destination, **how).run(folder)  # type: ignore[arg-type]
