"""The control messages between the migrating process and the device process, sans I/O.

Connections are AF_UNIX ``SOCK_SEQPACKET``: one message is one packet, so there is no framing, and descriptors travel
with the packet they belong to. A message is a tuple as ``marshal`` writes it: both ends are the same interpreter with
the same code, and a config or a digest needs no other form than its bytes.

The root connection is the device process's standard input. On it come only messages that make a device, each with the
descriptor of the device's own connection; its end of file ends the process. On a device's connection every request is
answered in order::

    request   (7, "set_state", (3,))                  its number, and a method of DeviceState with its arguments
    reply     (7, "", None)                           what came back; with a data descriptor when one was opened
    reply     (7, "device" | "verification", "...")   why it was refused

The device speaks either through a data descriptor, or vfio-user: then the request ``connect``, which is no method of
the device, brings a connection for it, and the others are only what that protocol has no word for (the config, digests,
why something was refused).

The data descriptor is an AF_UNIX stream socket, since ``shutdown`` ends a blocked read or write of it at once, from
any thread and at either end, which no pipe can do. While saving it carries the state's bytes and then end of file.
While loading, each write is ``WRITE_HEADER`` (its length; when it was called and when the one before it returned,
CLOCK_MONOTONIC in seconds) and the bytes, and is answered by ``ACK_HEADER`` (kind, length of the text) and the error's
text; kind 0 means taken and checked. The times let the device pace a write as its caller sees it.
"""

from __future__ import annotations

import socket
import struct
from errno import EIO
from typing import Final, Literal, TypeAlias

MAX_MESSAGE: Final = 128 << 10
WRITE_HEADER: Final = struct.Struct("=Qdd")
ACK_HEADER: Final = struct.Struct("=II")
ACK_KINDS: Final[tuple[Literal["", "device", "verification"], ...]] = ("", "device", "verification")

RefusalKind: TypeAlias = Literal["device", "verification"]


class Refusal(Exception):
    """The device process will not, or cannot, do what was asked.

    Arguments:
        text: one line, for the caller.
        kind: ``verification`` if the state or config is not the one that was sent, otherwise ``device``.
        errno: what vfio-user answers instead of the text.
    """

    def __init__(self, text: str, kind: RefusalKind = "device", errno: int = EIO) -> None:
        super().__init__(text)
        self.text = text
        self.kind: RefusalKind = kind
        self.errno = errno


def data_socket_pair(chunk: int) -> tuple[socket.socket, socket.socket]:
    """Return the device's end and the migrating process's end of a data connection.

    The device's send buffer is kept well under a chunk (in bytes): its write returns when the reader has begun to take
    the chunk, and so the device is never more than one chunk ahead of its reader.
    """
    device, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    device.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(4096, min(chunk // 4, 128 << 10)))
    return device, client
