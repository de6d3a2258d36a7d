"""Connecting to a vfio-user server by the path of its socket.

A server makes its socket's file before it listens, so a refused connection is tried again for a while; a file that is
missing is too, since a server may just be starting. A second client is let in by the kernel and then not answered: that
shows as a time limit of the first request, with words that say so.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.vfiouser.connection import Connection

__all__ = ["connector"]

_PAUSE: Final = 0.02


def connector(path: str, limit: float, connect_limit: float) -> Callable[[threading.Event], Connection]:
    """Return what connects to the server at ``path``; the event that it is given ends its trying at once when it is
    set.

    Arguments:
        path: the socket's file.
        limit: seconds that one answer may take.
        connect_limit: seconds to go on trying.
    """
    return lambda stopped: Connection(_connected(path, connect_limit, stopped), f"vfio-user server {path}", limit)


def _connected(path: str, limit: float, stopped: threading.Event) -> socket.socket:
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
            if stopped.is_set():
                raise BackendError("the device's work was aborted") from None
            again = isinstance(error, TimeoutError) or error.errno in (errno.ECONNREFUSED, errno.ENOENT, errno.EAGAIN)
            if not again or time.monotonic() >= deadline:
                raise BackendError(_why(path, error, limit), error.errno or 0) from None
            stopped.wait(_PAUSE)
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
