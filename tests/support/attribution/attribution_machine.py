"""Both ends of a migration in one process, with devices whose calls take a known time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from migpool.core.machine import Machine
from migpool.device import Device
from migpool.migration.destination import Destination
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.transport.address import Address

LIMIT = 20.0


class Slow(Device):
    """A device that takes its time.

    Arguments:
        name: its idstr.
        chunks: how many chunks of state it has; 0 for a device that is not iterable.
        seconds: how long each of its calls takes, by the call's name.
        together: waited for in ``load_state``, so that several devices come to their configs at one time.
    """

    def __init__(
        self,
        name: str,
        chunks: int,
        seconds: Mapping[str, float],
        together: threading.Barrier | None = None,
    ) -> None:
        self.idstr = name
        self.iterable = chunks > 0
        self._left = chunks
        self._seconds = seconds
        self._together = together
        self.loaded = 0
        self.config = b""

    def _take_time(self, call: str) -> None:
        time.sleep(self._seconds.get(call, 0.0))

    def quiesce(self) -> None:
        self._take_time("quiesce")

    def stop(self) -> None:
        self._take_time("stop")

    def save_state(self, buffer: memoryview) -> int:
        if not self._left:
            return 0
        self._left -= 1
        self._take_time("save_state")
        return len(buffer)

    def save_config(self) -> bytes:
        self._take_time("save_config")
        return self.idstr.encode()

    def load_state(self, data: memoryview) -> None:
        self.loaded += len(data)
        self._take_time("load_state")
        if self._together is not None:
            self._together.wait(LIMIT)

    def load_config(self, data: bytes) -> None:
        self.config = data
        self._take_time("load_config")

    def wake(self) -> None:
        self._take_time("wake")

    def start(self) -> None:
        self._take_time("start")


def migrate(
    sources: Sequence[Device],
    destinations: Sequence[Device],
    saving: Scheduler,
    loading: Scheduler,
    where: Path,
    *,
    workers: int | None = None,
    settings: Settings | None = None,
) -> tuple[SideReport, SideReport]:
    """Migrate, and return both ends' reports.

    Arguments:
        sources: the devices at the source.
        destinations: the same at the destination.
        saving: the source's threading model.
        loading: the destination's.
        where: an empty directory for a socket.
        workers: the source's number of workers.
        settings: both ends'.
    """
    settings = settings or Settings(channels=4, chunk=65536, budget=1 << 20, peer_limit=LIMIT)
    listening = threading.Event()
    addresses: list[Address] = []
    reports: list[SideReport] = []

    def heard(address: Address) -> None:
        addresses.append(address)
        listening.set()

    there = Destination(Machine("machine", destinations), settings, loading, listening=heard)
    run: Callable[[], None] = lambda: reports.append(there.run(Address.parse(f"unix:{where / 'socket'}")))  # noqa: E731
    thread = threading.Thread(target=run, name="destination")
    thread.start()
    try:
        assert listening.wait(LIMIT), "the destination does not listen"
        here = Source(Machine("machine", sources), settings, saving, workers=workers)
        reports.insert(0, here.run(addresses[0]))
    finally:
        there.cancel()
        thread.join(LIMIT)
    source, destination = reports
    assert (source.outcome, source.error) == (State.COMPLETED, "")
    assert (destination.outcome, destination.error) == (State.COMPLETED, "")
    return source, destination
