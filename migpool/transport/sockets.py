"""One connection: its options, and reads and writes that end.

Sockets stay blocking, without a timeout of Python's (which would cost a poll a call). The kernel bounds each call
instead: ``SO_SNDTIMEO`` is the limit for a peer that takes nothing, ``SO_RCVTIMEO`` is a tick at which a waiting
reader looks whether it should go on. ``shutdown`` ends both at once, from any thread.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence

from migpool.errors import MigpoolError, PeerError, PeerGone, TimeLimitExceeded, UsageError
from migpool.transport.address import Address

Idle = Callable[[], None]
"""Called at every tick of a reader that waits; raises when it should not go on."""

LOOPBACK_CONGESTION = "cubic"
MAIN_READ_SIZE = 256 * 1024
"""Most bytes of the main channel that are read at once. Of a multifd channel: a header, then a whole payload."""
RETURN_PATH_READ_SIZE = 4096
"""Most bytes of the return path that are read at once."""
RETRY = 0.02
AT_ONCE = 0.001
"""Seconds that a send without a wait may take; none at all would mean no limit."""
_NOBODY = (errno.ECONNREFUSED, errno.ENOENT)
WAIT_FOR_ALL = int(socket.MSG_WAITALL)
MOST_BUFFERS = os.sysconf("SC_IOV_MAX")
"""How many buffers one call of writev or sendmsg may have."""


def connect(
    address: Address, deadline: float, limit: float, check: Idle = lambda: None, *, taken: str = ""
) -> socket.socket:
    """Connect, trying again while nobody listens yet.

    Arguments:
        deadline: until when to try, by CLOCK_MONOTONIC in seconds.
        limit: the whole limit that it is the end of, for the error.
        check: called before each try; raises to give up.
        taken: for a peer that has taken connections already, what it took, for the error: it has been started, so a
            refusal is its last word.

    Raises:
        PeerError: nobody listened there in that time, or nobody does any more.
        UsageError: the address does not exist.
    """
    while True:
        check()
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
            if taken and (error.errno in _NOBODY or time.monotonic() >= deadline):
                raise PeerError(f"{address}: {taken}") from None
            if time.monotonic() >= deadline:
                raise PeerError(
                    f"{address}: nobody answered within {limit:g} s ({error.strerror or error}): "
                    "start the destination first"
                ) from None
            time.sleep(RETRY)


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
    chosen = congestion or (LOOPBACK_CONGESTION if within_host(sock) else "")
    if chosen:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, chosen.encode())
        except OSError:
            if congestion:
                raise UsageError(f"this system has no TCP congestion control {congestion!r}") from None


def within_host(sock: socket.socket) -> bool:
    """Whether both ends of a connection are of this host: by UNIX sockets, or by loopback."""
    if sock.family == socket.AF_UNIX:
        return True
    try:
        return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback
    except (OSError, ValueError):
        return False


def send_all(sock: socket.socket, buffers: Sequence[bytes | bytearray | memoryview], what: str) -> None:
    """Send every byte of ``buffers``, in one call where the kernel takes them.

    Arguments:
        what: names the wait in the error.

    Raises:
        TimeLimitExceeded: the peer took nothing for the socket's limit.
        PeerGone: the connection is gone.
    """
    try:
        send_rest(sock, buffers, sock.sendmsg(buffers), what)
    except OSError as error:
        raise not_sent(error, what) from None


def send_last(sock: socket.socket, data: bytes | bytearray | memoryview) -> None:
    """Send ``data`` if there is room for it, without a wait; nothing is to be sent after it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(AT_ONCE))
    with contextlib.suppress(OSError):
        sock.sendmsg([data])


def send_rest(sock: socket.socket, buffers: Sequence[bytes | bytearray | memoryview], sent: int, what: str) -> None:
    """Send what is left of ``buffers`` after their first ``sent`` bytes; see :func:`send_all`."""
    try:
        while rest := behind(buffers, sent):
            sent += sock.sendmsg(rest)
    except OSError as error:
        raise not_sent(error, what) from None


def not_sent(error: OSError, what: str) -> MigpoolError:
    """What an error of a send means: the peer took nothing for the socket's limit, or the connection is gone."""
    if isinstance(error, BlockingIOError):
        return TimeLimitExceeded(f"{what}: the peer has taken no data within the time limit")
    return PeerGone(f"{what}: the connection is gone ({error.strerror or error})")


def read_exactly(sock: socket.socket, buffer: bytearray | memoryview, size: int, idle: Idle) -> int:
    """Read ``size`` bytes into the beginning of ``buffer``.

    Returns:
        ``size``, or how many came before the peer ended the connection.

    Raises:
        PeerGone: the connection broke.
    """
    try:
        got = sock.recv_into(buffer, size, WAIT_FOR_ALL)
    except OSError as error:
        got = waited(error, idle)
    if got == size:
        return size
    # Too little, or nothing at all: the end, or a tick without a byte.
    return read_rest(sock, buffer, got, size, idle)


def read_into(sock: socket.socket, views: list[memoryview], size: int, idle: Idle) -> int:
    """Read ``size`` bytes into ``views``, one after the other, which have just that room together.

    Returns:
        ``size``, or how many came before the peer ended the connection.

    Raises:
        PeerGone: the connection broke.
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
            views = behind(views, more)
    return got


def behind(buffers: Sequence[bytes | bytearray | memoryview], passed: int) -> list[memoryview]:
    """What of ``buffers`` lies behind the first ``passed`` bytes."""
    rest: list[memoryview] = []
    for buffer in buffers:
        if passed < len(buffer):
            rest.append(memoryview(buffer)[passed:])
        passed = max(0, passed - len(buffer))
    return rest


def read_rest(sock: socket.socket, buffer: bytearray | memoryview, got: int, size: int, idle: Idle) -> int:
    """Read what is left of ``size`` bytes after the first ``got``; see :func:`read_exactly`."""
    view = memoryview(buffer)
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
        PeerGone: it was no tick; the connection broke.
    """
    if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR):
        idle()
        return 0
    raise PeerGone(f"the connection broke ({error.strerror or error})") from None


def _timeval(seconds: float) -> bytes:
    whole = math.floor(seconds)
    return struct.pack("ll", whole, max(1 if not whole else 0, int((seconds - whole) * 1_000_000)))
