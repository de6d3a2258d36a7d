"""The two processes of a run on two workers of a Dask cluster.

On each worker an actor starts the side's process and hands on what goes through the connection to it; here a thread a
side does the same, so that whoever runs the migration sees a process like any other (:class:`SideProcess`). The
migration itself goes from worker to worker, past Dask.

When this process is gone, Dask lets the actors go, and with them the connections: to the sides that is their parent's
end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from migpool.device import Side
from migpool.errors import MigpoolError, UsageError
from migpool.lab.run.child import READ_SIZE
from migpool.lab.run.clocks import EXCHANGES
from migpool.lab.run.local_process import PATIENCE, LocalProcess

if TYPE_CHECKING:
    from distributed import Client

CONNECT_LIMIT: Final = 10.0
"""Seconds for the first connection to the scheduler."""
START_LIMIT: Final = 30.0
"""Seconds for a worker to start a process."""
ANSWER_LIMIT: Final = 15.0
"""Seconds for a worker to answer; it looks oftener than that."""
LOOK: Final = 0.2
"""Seconds for which a worker waits for what the process says, before it says that there was nothing."""


def connected(address: str, limit: float = CONNECT_LIMIT) -> Client:
    """A client of the scheduler at an address; TLS and all else as in Dask's own configuration.

    Raises:
        UsageError: distributed is missing, or nobody answers there.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("a cluster needs distributed: pip install 'migpool[cluster]'") from None
    try:
        return Client(address, timeout=limit)  # the default one, too: actors are found by it
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UsageError(f"no Dask scheduler answers at {address} ({said}): start one with: dask scheduler") from None


def check_versions(client: Client) -> None:
    """See that every worker has this migpool.

    Raises:
        UsageError: one has none, or another one.
    """
    for worker, found in client.run(_version, on_error="return").items():
        if found != version("migpool"):
            has = "cannot import migpool" if isinstance(found, BaseException) else f"has migpool {found}"
            raise UsageError(f"worker {worker} {has}: install {version('migpool')} there, as it is here")


def _version() -> str:
    return version("migpool")


class SideActor:
    """On a worker: one side's process, and what goes through the connection to it."""

    def __init__(self) -> None:
        self._process = LocalProcess()
        self._process.sock.setblocking(False)

    async def read(self) -> bytes | None:
        """What it says next; ``None`` if that is nothing for a while, nothing at its end."""
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._process.sock, READ_SIZE), LOOK)
        return None

    async def write(self, data: bytes) -> None:
        """Say something to it."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._process.sock, data)

    def how_it_ended(self) -> str:
        return self._process.how_it_ended()

    def end(self) -> None:
        self._process.end()


class RemoteProcess:
    """Here: the process that an actor has started.

    Arguments:
        worker: its address.

    Raises:
        MigpoolError: the worker does not start one.
    """

    def __init__(self, client: Client, worker: str) -> None:
        self._worker = worker
        self._lost = ""
        future = client.submit(SideActor, actor=True, workers=[worker], allow_other_workers=False, pure=False)
        try:
            self._actor: Any = future.result(timeout=START_LIMIT)
        except Exception as error:  # noqa: BLE001 -- whatever a worker or a scheduler that is gone shows as
            raise MigpoolError(f"worker {worker} does not start a process: {type(error).__name__}: {error}") from None
        self._future = future
        self.sock, self._theirs = socket.socketpair()
        self._threads = [threading.Thread(target=body, daemon=True) for body in (self._hear, self._say)]
        for thread in self._threads:
            thread.start()

    def how_it_ended(self) -> str:
        if self._lost:
            return f"({self._lost})"
        try:
            return str(self._actor.how_it_ended().result(timeout=ANSWER_LIMIT))
        except Exception as error:  # noqa: BLE001 -- whatever a lost worker shows as
            return f"({self._gone(error)})"

    def end(self) -> None:
        self.sock.close()
        with contextlib.suppress(OSError):
            self._theirs.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(Exception):  # a worker that is gone has taken the process with it
            self._actor.end().result(timeout=3 * PATIENCE)
        for thread in self._threads:
            thread.join(ANSWER_LIMIT)
        self._theirs.close()
        self._future.release()

    def _hear(self) -> None:
        try:
            while (data := self._actor.read().result(timeout=ANSWER_LIMIT)) != b"":
                if data is not None:
                    self._theirs.sendall(data)
        except Exception as error:  # noqa: BLE001 -- the same; or nobody listens here any more
            self._lost = self._gone(error)
        with contextlib.suppress(OSError):
            self._theirs.shutdown(socket.SHUT_WR)

    def _say(self) -> None:
        with contextlib.suppress(Exception):  # what is lost shows when it is heard
            while data := self._theirs.recv(READ_SIZE):
                self._actor.write(data).result(timeout=ANSWER_LIMIT)

    def _gone(self, error: Exception) -> str:
        return f"worker {self._worker} is gone: {type(error).__name__}"


class TwoWorkers:
    """Two workers of a cluster as the hosts of a run's sides.

    Arguments:
        names: of the source's and the destination's: names or addresses.
        insecure: whether the destination listens where strangers can connect.

    Raises:
        UsageError: there is no such worker, or one does not have this migpool.
    """

    def __init__(self, client: Client, names: tuple[str, str], *, insecure: bool = False) -> None:
        there = client.scheduler_info(n_workers=-1)["workers"]
        check_versions(client)
        self._client = client
        source, destination = (self._found(name, there) for name in names)
        if source == destination:
            raise UsageError(f"{names[0]} and {names[1]} are one worker: name two")
        self._workers: dict[Side, str] = {"source": source, "destination": destination}
        self._told: dict[str, Any] = {"host": there[destination]["host"], "insecure": insecure, "exchanges": EXCHANGES}

    def start(self, side: Side) -> RemoteProcess:
        return RemoteProcess(self._client, self._workers[side])

    def told(self, side: Side) -> dict[str, Any]:
        """The destination's host, where it is to listen, for both sides."""
        del side
        return self._told

    def __str__(self) -> str:
        return f"from {self._workers['source']} to {self._workers['destination']}"

    @staticmethod
    def _found(name: str, there: dict[str, dict[str, Any]]) -> str:
        for address, worker in there.items():
            if name in (address, str(worker["name"])):
                return address
        known = ", ".join(sorted(str(worker["name"]) for worker in there.values())) or "none"
        raise UsageError(f"the cluster has no worker {name!r}; there are: {known}")
