"""How a connection to a vfio-user server is made.

A server makes its socket's file before it listens, so a refused first connection is tried again for a while; a file
that is missing is too, since a server may just be starting. One that had been there and refuses is gone, and is not
waited for. A second client is let in by the kernel and then not answered: that shows as a time limit of the first
request.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from migpool_plugins.vfio.backend import Interruption, NoAnswer
from migpool_plugins.vfio.vfiouser.connection import Connection

_PAUSE: Final = 0.02

Connect: TypeAlias = Callable[[Interruption, bool], Connection]
"""Makes a connection, until it is interrupted; raises :class:`NoAnswer`. The second argument says whether the server
has been there before, and so is gone if it refuses."""


def connector(path: str, limit: float, connect_limit: float) -> Connect:
    """Return what connects to the server at ``path``.

    Arguments:
        limit: seconds that one answer may take.
        connect_limit: seconds to go on trying, where the server may just be starting.
    """
    server = f"vfio-user server {path}"
    return lambda interruption, again: Connection(
        _connected(path, connect_limit, interruption, again), server, limit, interruption
    )


def _connected(path: str, limit: float, interruption: Interruption, again: bool) -> socket.socket:
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
            nobody = error.errno in (errno.ECONNREFUSED, errno.ENOENT)
            if nobody and again:
                raise NoAnswer(f"the vfio-user server {path} is gone, start it again", error.errno or 0) from None
            wait = nobody or isinstance(error, TimeoutError) or error.errno == errno.EAGAIN
            if not wait or time.monotonic() >= deadline:
                raise NoAnswer(_why(path, error, limit), error.errno or 0) from None
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
