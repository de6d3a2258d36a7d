"""The sockets of vfio-user servers: their paths, connecting to one, and what a server that was killed leaves behind.

A server makes its socket's file before it listens, so a refused connection is tried again for a while; a file that is
missing is too, since a server may just be starting. A second client is let in by the kernel and then not answered: that
shows as a time limit of the first request, with words that say so.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.interruption import Interruption
from migpool_plugins.vfio.vfiouser.connection import Connection

_PAUSE: Final = 0.02


def socket_paths(path: str, count: int) -> list[str]:
    """The sockets of ``count`` devices: ``path`` itself for one, else ``path`` with .0, .1 and so on."""
    return [path] if count == 1 else [f"{path}.{number}" for number in range(count)]


def connector(path: str, limit: float, connect_limit: float) -> Callable[[Interruption], Connection]:
    """Return what connects to the server at ``path``, until it is interrupted.

    Arguments:
        limit: seconds that one answer may take.
        connect_limit: seconds to go on trying.
    """
    server = f"vfio-user server {path}"
    return lambda interruption: Connection(_connected(path, connect_limit, interruption), server, limit)


def _connected(path: str, limit: float, interruption: Interruption) -> socket.socket:
    deadline = time.monotonic() + limit
    while True:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # A server whose backlog is full would block the call; the kernel's limit on sending bounds it.
            made.settimeout(max(0.001, deadline - time.monotonic()))
            made.connect(path)
            made.settimeout(None)
        except OSError as error:
            made.close()
            interruption.check()
            again = isinstance(error, TimeoutError) or error.errno in (errno.ECONNREFUSED, errno.ENOENT, errno.EAGAIN)
            if not again or time.monotonic() >= deadline:
                raise BackendError(_why(path, error, limit), error.errno or 0) from None
            interruption.wait(_PAUSE)
        else:
            return made


def _why(path: str, error: OSError, limit: float) -> str:
    if error.errno == errno.ENOENT:
        return f"there is no vfio-user server at {path}: start one (migpool vfio serve), or correct socket"
    if error.errno == errno.ECONNREFUSED:
        if not Path(path).is_socket():
            return f"{path} is not a socket: give the path of a vfio-user server's"
        return f"the socket {path} is there, but nobody listens on it ({limit:.3g} s were waited): start its server"
    return f"no connection to the vfio-user server {path}: {error.strerror or error}"


def remove_stale(path: str) -> None:
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
