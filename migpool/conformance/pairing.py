"""Both ends of a migration in this process, over UNIX sockets; an error in a chosen call, a cancel at a chosen wait."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from migpool.core.machine import Machine
from migpool.core.trace import Recorder, Tracer
from migpool.device import Device, DeviceError, Side
from migpool.migration.destination import Destination
from migpool.migration.endpoint import Endpoint
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.migration.states import State
from migpool.scenario.model_syntax import Model
from migpool.transport.address import Address

SIDES: Final[tuple[Side, Side]] = ("source", "destination")
PEER_LIMIT: Final = 10.0
BASE: Final = Settings(channels=2, peer_limit=PEER_LIMIT, connect_limit=PEER_LIMIT, accept_limit=PEER_LIMIT)


@dataclass(frozen=True, slots=True)
class Migrated:
    source: SideReport
    destination: SideReport

    @property
    def completed(self) -> bool:
        """Whether the machine has moved, and nothing went wrong."""
        return self.source.outcome is State.COMPLETED and self.destination.outcome is State.COMPLETED

    @property
    def error(self) -> str:
        """What went wrong, in one line; empty if nothing did."""
        # A source that fails asks the destination why before it reports; not so the other way round.
        return self.source.error or self.destination.error


def settings_with(chunk: int, rooms: int, channels: int = 2) -> Settings:
    """Settings with chunks of so many bytes and a budget of so many chunks."""
    return replace(BASE, chunk=chunk, budget=chunk * rooms, channels=channels)


def migrate(
    source: Machine,
    destination: Machine,
    model: Model,
    settings: Settings = BASE,
    tracers: tuple[Tracer | None, Tracer | None] = (None, None),
    made: Callable[[dict[Side, Endpoint]], None] | None = None,
) -> Migrated:
    """Migrate; neither machine is closed.

    Arguments:
        tracers: the source's and the destination's.
        made: called with both ends before they run, for a caller that wants to cancel one.
    """
    heard = threading.Event()
    where: list[Address] = []
    received: list[SideReport] = []

    def listening(address: Address) -> None:
        where.append(address)
        heard.set()

    to = Destination(
        destination,
        settings,
        model.destination.make(),
        workers=model.destination.workers,
        tracer=tracers[1],
        listening=listening,
    )
    sender = Source(source, settings, model.source.make(), workers=model.source.workers, tracer=tracers[0])
    if made is not None:
        made({"source": sender, "destination": to})
    with tempfile.TemporaryDirectory(prefix="migpool-") as folder:
        address = Address(path=str(Path(folder) / "channel"))

        def receive() -> None:
            received.append(to.run(address))
            heard.set()

        thread = threading.Thread(target=receive, name="destination")
        thread.start()
        heard.wait()
        sent = sender.run(where[0] if where else address)
        thread.join()
    return Migrated(sent, received[0])


def counting_waits(
    source: Machine, destination: Machine, model: Model, settings: Settings
) -> tuple[Migrated, dict[Side, int]]:
    """Migrate; with how many waits each end had."""
    tracers = (Tracer(), Tracer())
    migrated = migrate(source, destination, model, settings, tracers)
    return migrated, {side: len(tracer.spans()) for side, tracer in zip(SIDES, tracers, strict=True)}


def cancelled_at(
    source: Machine, destination: Machine, model: Model, settings: Settings, side: Side, position: int
) -> Migrated:
    """Migrate, and cancel at a wait of ``side``, counted from 0."""
    ends: dict[Side, Endpoint] = {}
    wire = Tripwire(position, lambda: ends[side].cancel())
    tracers = (wire, None) if side == "source" else (None, wire)
    return migrate(source, destination, model, settings, tracers, ends.update)


def spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of the numbers under ``count``, evenly spread."""
    return sorted({count * step // wanted for step in range(wanted)})


class Tripwire(Tracer):
    """A tracer that does something when a number of waits are over.

    Arguments:
        at: the wait, counted from 0 over all threads.
        then: what to do; called on the thread that waited, once.
    """

    def __init__(self, at: int, then: Callable[[], None]) -> None:
        super().__init__()
        self._at = at
        self._then = then
        self._count = itertools.count()

    def recorder(self) -> Recorder:
        """The calling thread's own recorder, with the wire in it."""
        record = super().recorder()

        def recording(span: bytes) -> None:
            record(span)
            if next(self._count) == self._at:
                self._then()

        return recording


class Calls:
    """Counts a device's calls, and notices two at once.

    Attributes:
        of: how often each method was called.
        overlapping: the methods of two calls that ran at the same time; empty if none did.
    """

    def __init__(self, device: Device, *methods: str) -> None:
        self.of = dict.fromkeys(methods, 0)
        self.overlapping = ""
        self._inside = ""
        self._lock = threading.Lock()
        for method in methods:
            setattr(device, method, self._counted(method, getattr(device, method)))

    def _counted(self, method: str, call: Callable[..., object]) -> Callable[..., object]:
        def counting(*arguments: object) -> object:
            with self._lock:
                self.of[method] += 1
                if self._inside:
                    self.overlapping = f"{self._inside} and {method}"
                self._inside = method
            try:
                return call(*arguments)
            finally:
                with self._lock:
                    self._inside = ""

        return counting


@contextmanager
def failing(device: Device, method: str, number: int) -> Iterator[list[str]]:
    """Have one call of ``method`` fail instead of being carried out.

    Arguments:
        number: which call, from 0.

    Yields:
        A list that holds the error's text once it was raised.
    """
    call, own = getattr(device, method), vars(device).get(method)
    counter = itertools.count()
    raised: list[str] = []

    def perhaps(*arguments: object) -> object:
        if next(counter) != number:
            return call(*arguments)
        raised.append(f"an error to order in {method}, call {number}")
        raise DeviceError(raised[0])

    setattr(device, method, perhaps)
    try:
        yield raised
    finally:
        if own is None:
            delattr(device, method)
        else:
            setattr(device, method, own)
