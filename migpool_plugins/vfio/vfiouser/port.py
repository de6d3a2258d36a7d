"""Emulated devices at sockets of their own, for any vfio-user client: what ``migpool vfio serve`` runs.

Several clients are served at a socket at once: a VMM that has the device as its PCI function, say, and who migrates its
state. One of them alone migrates: who sets a state, or moves data, keeps the others from it until the device runs again
or the client has gone; see :class:`Turn`. A device keeps its state between clients. A client that goes away while the
device makes it wait is noticed at once, and one that says no VERSION is sent away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from migpool.device import DeviceContext, DeviceError, OptionValue
from migpool_plugins.vfio.content import BaseBlock
from migpool_plugins.vfio.migration import MigrationState
from migpool_plugins.vfio.options import parse_options
from migpool_plugins.vfio.state import DeviceState
from migpool_plugins.vfio.transfer import Refusal, SharedLock, keep_time
from migpool_plugins.vfio.vfiouser.options import socket_paths
from migpool_plugins.vfio.vfiouser.pci import EXPERIMENTAL, PciFunction, PciId
from migpool_plugins.vfio.vfiouser.session import Session

_MOST_WAITING: Final = 16
MOST_CLIENTS: Final = 16
"""Connections at one socket, beside one for each engine."""
VERSION_LIMIT: Final = 5.0
"""Seconds that a client may take for its VERSION."""


class ServedDevices:
    """Devices of one entry, each at a socket, from :meth:`start` to :meth:`stop`.

    Arguments:
        options: the options of a vfio entry with emulated devices.
        count: how many devices.
        seed: decides what their state is; a client's other end must have the same.
        path: the socket's, or the beginning of theirs; see :func:`socket_paths`.
        told: is given a line for every request that a device refuses, since a client sees but a number.
        identity: the vendor and device that each is as a PCI function.

    Raises:
        DeviceError: an option is wrong, or makes no sense for a foreign client; a socket cannot be made.
    """

    def __init__(
        self,
        options: dict[str, OptionValue],
        count: int,
        seed: int,
        path: str,
        told: Callable[[str], None],
        identity: PciId = EXPERIMENTAL,
    ) -> None:
        loading = parse_options(DeviceContext("destination", options, count, seed))
        # Whatever the profile says: a client knows no other.
        saving = parse_options(DeviceContext("source", {**options, "transport": "vfio-user"}, count, seed))
        if any(settings.fault and settings.fault.kind == "short-read" for settings in saving):
            raise DeviceError("vfio option fault.kind is 'short-read': it is a client that reads short, not a server")
        base, shared = BaseBlock(seed), SharedLock()
        self.names = [settings.idstr for settings in saving]
        self.paths = socket_paths(path, count)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._ports: list[_Port] = []
        self._threads: list[threading.Thread] = []
        try:
            for save, load, where in zip(saving, loading, self.paths, strict=True):
                device = DeviceState(
                    save.idstr, save.profile, base, False, shared, save.fault, configured=False, load_fault=load.fault
                )
                self._ports.append(_Port(where, device, PciFunction(device, identity), _named(told, save.idstr)))
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Begin to answer."""
        for port in self._ports:
            thread = threading.Thread(target=port.serve, args=(self._stop,), name=f"serve {port.path}")
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End every connection and thread, and remove the sockets. What a device has begun, a stop say, it finishes."""
        os.eventfd_write(self._stop, len(self._ports) + 1)
        for thread in self._threads:
            thread.join()
        for port in self._ports:
            port.close()
        os.close(self._stop)


def _named(told: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda text: told(f"{name}: {text}")


class Turn:
    """Which of a device's clients migrates it.

    A client of a device with engines has a connection for each, which nothing tells from another client's: there all
    may migrate.
    """

    def __init__(self, device: DeviceState) -> None:
        self._device = device
        self._owner: socket.socket | None = None
        self._left = threading.Condition()

    def claim(self, client: socket.socket) -> None:
        """Migrate from here on; a :class:`Refusal` while another client does, and is there."""
        if self._device.profile.engines:
            return
        with self._left:
            while self._owner not in (None, client) and self._device.state is not MigrationState.RUNNING:
                if not _gone(self._owner):
                    state = self._device.state.name
                    raise Refusal(f"another client migrates the device, which is in {state}", errno=errno.EBUSY)
                self._left.wait()
            self._owner = client

    def is_of(self, client: socket.socket) -> bool:
        """Whether the device may be making this client wait."""
        return self._owner is client or bool(self._device.profile.engines)

    def leave(self, client: socket.socket) -> None:
        """The client has gone."""
        with self._left:
            if self._owner is client:
                self._owner = None
                self._left.notify_all()


def _gone(client: socket.socket) -> bool:
    if client.fileno() < 0:
        return True
    waiting = select.poll()
    waiting.register(client, select.POLLRDHUP)
    return bool(waiting.poll(0))


class _Port:
    """One device's socket; a file at its path that nobody listens on is replaced."""

    def __init__(self, path: str, device: DeviceState, function: PciFunction, told: Callable[[str], None]) -> None:
        self.path = path
        self._device = device
        self._function = function
        self._told = told
        self._turn = Turn(device)
        self._most = device.profile.engines + MOST_CLIENTS
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _remove_stale(path)
            self._listener.bind(path)
            Path(path).chmod(0o600)  # whatever the umask says; nobody can connect before it listens
            self._listener.listen(_MOST_WAITING)
        except OSError as error:
            self._listener.close()
            raise DeviceError(f"no socket can be made at {path}: {error.strerror or error}") from None

    def serve(self, stop: int) -> None:
        """Serve clients until the descriptor ``stop`` is readable."""
        keep_time()
        waiting = select.poll()
        waiting.register(stop, select.POLLIN)
        waiting.register(self._listener, select.POLLIN)
        living: dict[threading.Thread, socket.socket] = {}
        while not any(ready == stop for ready, _ in waiting.poll()):
            connection, _ = self._listener.accept()
            living = {thread: client for thread, client in living.items() if thread.is_alive()}
            # Who has gone takes nobody's place, though what it began may not have ended.
            if sum(not _gone(client) for client in living.values()) == self._most:
                connection.close()
                self._told(f"a client was sent away: {self._most} are connected")
                continue
            thread = threading.Thread(target=self._attend, args=(connection, stop), name=f"client at {self.path}")
            living[thread] = connection
            thread.start()
        for thread in living:
            thread.join()

    def _attend(self, connection: socket.socket, stop: int) -> None:
        """Serve one client until it goes away, does what it must not, or ``stop`` is readable; close its connection."""
        with connection:
            self._attend_open(connection, stop)

    def _attend_open(self, connection: socket.socket, stop: int) -> None:
        session = Session(
            connection, self._device, self._function, self._told, claim=lambda: self._turn.claim(connection)
        )

        def run() -> None:
            session.run()
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # The poll below sees it.

        thread = threading.Thread(target=run, name=f"session at {self.path}")
        thread.start()
        waiting = select.poll()
        waiting.register(stop, select.POLLIN)
        waiting.register(connection, select.POLLRDHUP)
        if not waiting.poll(VERSION_LIMIT * 1000):
            if session.agreed:
                waiting.poll()
            else:
                self._told(f"a client was sent away: it said no VERSION within {VERSION_LIMIT:g} s")
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        if self._turn.is_of(connection):
            self._device.interrupt()
        thread.join()
        self._turn.leave(connection)

    def close(self) -> None:
        self._listener.close()
        with contextlib.suppress(OSError):
            Path(self.path).unlink()
        self._device.reset()


def _remove_stale(path: str) -> None:
    """Remove a socket that a killed server left behind; a :class:`DeviceError` if a server is at it, or no socket."""
    file = Path(path)
    if not file.exists():
        return
    if not file.is_socket():
        raise DeviceError(f"{path} is there, and is no socket: remove it, or give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                file.unlink()
                return
    raise DeviceError(f"a server listens at {path}: give another path")
