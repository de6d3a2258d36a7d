"""One connection: its options, and reads and writes that end.

Sockets stay blocking, without a timeout of Python's (which would cost a poll a call). The kernel bounds each call
instead: ``SO_SNDTIMEO`` is the limit for a peer that takes nothing, ``SO_RCVTIMEO`` is a tick at which a waiting
reader looks whether it should go on. ``shutdown`` ends both at once, from any thread.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
import time
from collections.abc import Callable, Sequence

from migpool.errors import PeerError, TimeLimitExceeded, UsageError
from migpool.transport.address import Address

__all__ = [
    "Idle",
    "connect",
    "listen",
    "prepare",
    "read_exactly",
    "read_into",
    "read_some",
    "send_all",
    "shut",
    "waited",
]

Idle = Callable[[], None]
"""Called at every tick of a reader that waits; raises when it should not go on."""

LOOPBACK_CONGESTION = "cubic"
RETRY = 0.02
WAIT_FOR_ALL = int(socket.MSG_WAITALL)


def connect(address: Address, deadline: float, limit: float) -> socket.socket:
    """Connect, trying again while nobody listens yet.

    Arguments:
        deadline: until when to try, by CLOCK_MONOTONIC in seconds.
        limit: the whole limit that it is the end of, for the error.

    Raises:
        PeerError: nobody listened there in that time.
        UsageError: the address does not exist.
    """
    while True:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(max(RETRY, deadline - time.monotonic()))
            sock.connect(address.name)
            sock.settimeout(None)
            return sock
        except socket.gaierror as error:
            sock.close()
            raise UsageError(f"{address}: {error.strerror}: check the host's name") from None
        except OSError as error:
            sock.close()
            if time.monotonic() >= deadline:
                raise PeerError(
                    f"{address}: nobody answered within {limit:g} s ({error.strerror or error}): "
                    "start the destination first"
                ) from None
            time.sleep(RETRY)


def listen(address: Address, backlog: int) -> tuple[socket.socket, Address]:
    """Listen, and say where: the port that the system chose stands in the returned address.

    Raises:
        UsageError: the address cannot be listened on.
    """
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if not address.path:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address.name)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise UsageError(f"{address}: cannot listen there: {error.strerror or error}") from None
    if address.path:
        return sock, address
    return sock, Address(host=address.host, port=sock.getsockname()[1])


def prepare(sock: socket.socket, *, limit: float, tick: float, congestion: str = "") -> None:
    """Set a connection's options.

    Arguments:
        limit: how long a send may find no room, in seconds.
        tick: how often a waiting read looks up, in seconds.
        congestion: the TCP congestion control; empty leaves the system's, except on loopback: the decision "On loopback
            the congestion control is cubic, elsewhere the system's".

    Raises:
        UsageError: the system has no such congestion control.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(limit))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(tick))
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not hasattr(socket, "TCP_CONGESTION"):
        return
    chosen = congestion or (LOOPBACK_CONGESTION if sock.getpeername()[0] in ("127.0.0.1", "::1") else "")
    if chosen:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, chosen.encode())
        except OSError:
            if congestion:
                raise UsageError(f"this system has no TCP congestion control {congestion!r}") from None


def send_all(sock: socket.socket, buffers: Sequence[bytes | bytearray | memoryview], what: str, size: int = 0) -> None:
    """Send every byte of ``buffers``, in one call where the kernel takes them.

    Arguments:
        what: names the wait in the error.
        size: how many bytes they have together, if the caller knows.

    Raises:
        TimeLimitExceeded: the peer took nothing for the socket's limit.
        PeerError: the connection is gone.
    """
    try:
        sent = sock.sendmsg(buffers)
        if sent == size:
            return
        total = sum(map(len, buffers))
        while sent < total:
            rest = []
            passed = 0
            for buffer in buffers:
                if passed + len(buffer) > sent:
                    rest.append(memoryview(buffer)[max(0, sent - passed) :])
                passed += len(buffer)
            sent += sock.sendmsg(rest)
    except BlockingIOError:
        raise TimeLimitExceeded(f"{what}: the peer has taken no data within the time limit") from None
    except OSError as error:
        raise PeerError(f"{what}: the connection is gone ({error.strerror or error})") from None


def read_exactly(sock: socket.socket, buffer: bytearray | memoryview, size: int, idle: Idle) -> int:
    """Read ``size`` bytes into the beginning of ``buffer``.

    Returns:
        ``size``, or how many came before the peer ended the connection.

    Raises:
        PeerError: the connection broke.
    """
    try:
        got = sock.recv_into(buffer, size, WAIT_FOR_ALL)
    except OSError as error:
        got = waited(error, idle)
    if got == size:
        return size
    # Too little, or nothing at all: the end, or a tick without a byte.
    return _read_rest(sock, memoryview(buffer), got, size, idle)


def read_into(sock: socket.socket, views: list[memoryview], size: int, idle: Idle) -> int:
    """Read ``size`` bytes into ``views``, one after the other, which have just that room together.

    Returns:
        ``size``, or how many came before the peer ended the connection.

    Raises:
        PeerError: the connection broke.
    """
    if len(views) == 1:
        return read_exactly(sock, views[0], size, idle)
    got = 0
    while got < size:
        try:
            more = sock.recvmsg_into(views, 0, WAIT_FOR_ALL)[0]
        except OSError as error:
            waited(error, idle)
            continue
        if not more:
            break
        got += more
        if got < size:
            views = _behind(views, more)
    return got


def _behind(views: list[memoryview], passed: int) -> list[memoryview]:
    """What of ``views`` lies behind the first ``passed`` bytes."""
    rest: list[memoryview] = []
    for view in views:
        if passed < len(view):
            rest.append(view[passed:])
        passed = max(0, passed - len(view))
    return rest


def _read_rest(sock: socket.socket, view: memoryview, got: int, size: int, idle: Idle) -> int:
    while got < size:
        try:
            more = sock.recv_into(view[got:], size - got)
        except OSError as error:
            waited(error, idle)
            continue
        if not more:
            break
        got += more
    return got


def read_some(sock: socket.socket, size: int, idle: Idle) -> bytes:
    """Read what is there, at most ``size`` bytes, waiting for the first; empty at the end of the connection."""
    while True:
        try:
            return sock.recv(size)
        except OSError as error:
            waited(error, idle)


def shut(sock: socket.socket, *, reading: bool = True, writing: bool = True) -> None:
    """End every wait on the connection, here and at the peer; harmless if it has ended already.

    Arguments:
        reading: end reads here.
        writing: end writes here; the peer then reads the end.
    """
    how = socket.SHUT_RDWR if reading and writing else socket.SHUT_RD if reading else socket.SHUT_WR
    try:
        sock.shutdown(how)
    except OSError:
        pass


def waited(error: OSError, idle: Idle) -> int:
    """What a read has to do about an error: call ``idle`` if nothing has come for a tick, and return 0.

    Raises:
        PeerError: it was no tick; the connection broke.
    """
    if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR):
        idle()
        return 0
    raise PeerError(f"the connection broke ({error.strerror or error})") from None


def _timeval(seconds: float) -> bytes:
    whole = math.floor(seconds)
    return struct.pack("ll", whole, max(1 if not whole else 0, int((seconds - whole) * 1_000_000)))
