"""There and back, again and again, between two servers of other people that refuse every reset: whatever ends a
migration in between, the device stays whole at the source, and the next one carries it over."""

from __future__ import annotations

import hashlib
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from migpool.device import Device, DeviceContext, OptionValue, Side
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.scenario.model_syntax import parse_model
from migpool_plugins.vfio import devices
from migpool_plugins.vfio.migration import MigrationState
from tests.support import LONG
from tests.support.rig import KIB, Pair, contents
from tests.support.thinned import every_value
from tests.support.vfio.foreign_server import ForeignDevice, ForeignServer, foreign_server
from tests.support.vfio.vfiouser_rig import READ, WRITE

M = MigrationState
SIZE, CHUNK = 40 * KIB, 4 * KIB
TRIPS = 10 if LONG else 2
MODELS = (
    *("inline", "per-device", "pool", "elastic", "poll", "blocking-aware"),
    *("per-device+receiver", "elastic+receiver"),
)
ENDS = ("stop-copy", "pre-copy", "cancel", "kill", "stall")
"""How a trip goes: whole, by one way or the other; or it is tried first, and ended at its fourth chunk."""


class Trips:
    """A device, and two servers that it moves between."""

    def __init__(self, stack: ExitStack, directory: Path, model: str, ending: str) -> None:
        self._stack, self._directory, self._ending = stack, directory, ending
        self._models = parse_model(model)
        self._chunks: int | None = None
        self._pair: Pair | None = None
        self._servers: dict[str, ForeignServer] = {}
        self.precopy = SIZE // 2 if ending == "pre-copy" else 0

    def serve(self, name: str, content: bytes = b"") -> None:
        device = ForeignDevice(content, self.precopy, reset="refused")
        server = foreign_server(self._directory / name, device, self._end)  # type: ignore[arg-type]
        self._servers[name] = self._stack.enter_context(server)

    def device(self, name: str) -> ForeignDevice:
        return self._servers[name].foreign

    def _end(
        self, server: ForeignServer, connection: socket.socket, _n: int, command: int, _flags: int, _data: bytes
    ) -> bool:
        if self._chunks is None or command != (READ if self._ending == "cancel" else WRITE):
            return False
        self._chunks += 1
        if self._chunks != 4:
            return False
        if self._ending == "cancel" and self._pair is not None:
            self._pair.sender.cancel()
            return False
        if self._ending == "kill":
            server.die(connection)
        return True  # no answer

    def migrate(self, here: str, there: str, *, end: bool = False) -> tuple[SideReport, SideReport]:
        def opened(side: Side, name: str) -> list[Device]:
            options: dict[str, OptionValue] = {"backend": "vfio-user", "socket": f"{self._directory}/{name}"}
            return list(devices(DeviceContext(side, {**options, "time_limit": 0.5 if end else 20.0}, 1)))

        source, destination = opened("source", here), opened("destination", there)
        models = (self._models.source.scheduler, self._models.destination.scheduler)
        limits = Settings(channels=2, chunk=CHUNK, budget=1024 * KIB, peer_limit=20)
        self._pair = Pair(source, destination, settings=limits, models=models)
        self._chunks = 0 if end else None
        try:
            return self._pair.run(self._directory)
        finally:
            self._chunks = None
            for device in (*source, *destination):
                device.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("model", "ending"), every_value(MODELS, ENDS))
def test_there_and_back(model: str, ending: str, directory: Path) -> None:
    state = contents(SIZE)
    with ExitStack() as stack:
        trips = Trips(stack, directory, model, ending)
        trips.serve("a", state)
        trips.serve("b")
        for here, there in (("a", "b"), ("b", "a")) * TRIPS:
            if ending in ("cancel", "kill", "stall"):
                sent, got = trips.migrate(here, there, end=True)
                assert sent.outcome is (State.CANCELLED if ending == "cancel" else State.FAILED), sent.error
                assert got.outcome is State.FAILED
                assert hashed(trips.device(here).content) == hashed(state)
                assert trips.device(here).state is M.RUNNING
                if ending == "kill":
                    (directory / there).unlink(missing_ok=True)
                    trips.serve(there)
            trips.device(here).running = 0
            sent, got = trips.migrate(here, there)
            assert (sent.error, got.error) == ("", "")
            assert hashed(trips.device(there).content) == hashed(state)
            assert (trips.device(here).state, trips.device(there).state) == (M.RUNNING, M.RUNNING)
            assert trips.device(here).running == trips.precopy


def hashed(state: bytes) -> str:
    return hashlib.sha256(state).hexdigest()
