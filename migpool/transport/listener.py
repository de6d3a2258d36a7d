"""Where a destination waits: not where strangers come by, unless it is told to; who comes over a UNIX socket.

Guarantees:

1. Nothing is listened on that others can reach, unless connections are encrypted or the user takes the risk.
2. A UNIX socket lets in its user alone, whatever the umask says, from the moment on that it can be connected to.
3. A socket's file that a dead process has left is replaced. One that a process has is not touched, and the process does
   not notice.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import logging
import os
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from migpool.errors import Untrusted, UsageError
from migpool.transport.address import Address

_CREDENTIALS: Final = struct.Struct("3i")
_log = logging.getLogger(__name__)


def listen(address: Address, backlog: int, *, exposed: bool = False) -> tuple[socket.socket, Address]:
    """Listen, and say where: the port that the system chose stands in the returned address.

    Arguments:
        exposed: strangers may reach it: connections are encrypted, or the user wants it so.

    Raises:
        UsageError: the address cannot be listened on, or should not be.
    """
    check_exposure(address, exposed=exposed)
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if address.path:
            _bind_path(sock, address.path)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address.name)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise UsageError(f"{address}: cannot listen there: {error.strerror or error}") from None
    if address.path:
        return sock, address
    return sock, Address(host=address.host, port=sock.getsockname()[1])


def check_exposure(address: Address, *, exposed: bool) -> None:
    """Raise a :class:`UsageError` if strangers could reach a place to listen, and should not."""
    if not exposed and not is_local(address):
        raise UsageError(
            f"{address}: strangers could connect there, and read or send machines: "
            "give --tls DIR, or --insecure to listen all the same"
        )


def is_local(address: Address) -> bool:
    """Whether only processes of this host can connect to an address."""
    if address.path:
        return True
    try:
        found = socket.getaddrinfo(address.host, address.port, address.family, socket.SOCK_STREAM)
    except OSError:
        return False  # whoever listens there is told so
    return all(ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback for *_, place in found)


def _bind_path(sock: socket.socket, path: str) -> None:
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _take_over(sock, path):
            raise
    # Nobody can connect before it listens.
    Path(path).chmod(0o600)


def _take_over(sock: socket.socket, path: str) -> bool:
    """Bind to the file of a socket that nobody has any more; whether it was one."""
    directory = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Of two that find it at the same time, one gets it.
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not stat.S_ISSOCK(Path(path).lstat().st_mode) or not _is_dead(path):
            return False
        Path(path).unlink()
        sock.bind(path)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(directory)


def _is_dead(path: str) -> bool:
    # Of another kind than a listener's: so the system says what is there, and no process hears of it.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


@dataclass(frozen=True, slots=True)
class PeerProcess:
    """Who is at the other end of a UNIX socket."""

    pid: int
    uid: int
    gid: int


def peer_process(sock: socket.socket) -> PeerProcess | None:
    """Who is at the other end, as the system knows it; ``None`` where it does not."""
    if sock.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    return PeerProcess(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)))


def check_process(sock: socket.socket, who: str, owner: int | None = None) -> None:
    """Take this user and root at the other end of a UNIX socket, and whom the socket's file was given to.

    Arguments:
        who: the other end in words.
        owner: the user that the file belongs to, at the end that listens.

    Raises:
        Untrusted: it is somebody else.
    """
    found = peer_process(sock)
    if found is None:
        return
    _log.info("%s is process %d of user %d, group %d", who, found.pid, found.uid, found.gid)
    if found.uid not in (0, os.geteuid(), owner):
        raise Untrusted(
            f"{who} is a process of user {found.uid}, who is neither this one nor root: "
            "give that user the socket's file, or take anybody with --insecure"
        )
