"""Sockets for fuzzing a connection: one whose peer says what an input says, and one that notes what its peer said."""

from __future__ import annotations

import socket
from collections.abc import Sequence

__all__ = ["NotingSocket", "ScriptedSocket"]


class ScriptedSocket:
    """A connection to a peer that says ``script`` whatever it is told, and takes all that it is told.

    Options are set on a real socket, whose limits are the kernel's.

    Arguments:
        script: what the peer says.
        silent: whether it then says nothing, so that the time limit passes; else it has gone away.
        patience: after how many such limits it goes away, too; ``None``: never.
        most: bytes that one call receives or sends at the most.

    Attributes:
        sent: what the peer was told.
        closed: whether the connection was closed.
    """

    family = socket.AF_UNIX

    def __init__(self, script: bytes, *, silent: bool, most: int, patience: int | None = None) -> None:
        self._script = memoryview(script)
        self._silent = silent
        self._patience = patience
        self._most = most
        self._over = False
        self._options = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sent = bytearray()
        self.closed = False

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        self._options.setsockopt(level, option, value)

    def recv_into(self, buffer: memoryview, length: int = 0, flags: int = 0) -> int:
        del flags
        count = min(length or len(buffer), len(buffer), self._most, len(self._script))
        if self._over or (not count and not self._silent):
            return 0
        if not count:
            if self._patience is not None:
                self._patience -= 1
                self._silent = self._patience > 0
            raise BlockingIOError("the time limit has passed")
        buffer[:count] = self._script[:count]
        self._script = self._script[count:]
        return count

    def recv(self, size: int) -> bytes:
        buffer = memoryview(bytearray(size))
        return bytes(buffer[: self.recv_into(buffer)])

    def sendmsg(self, buffers: Sequence[bytes | memoryview]) -> int:
        whole = b"".join(buffers)
        self.sendall(whole[: self._most])
        return min(len(whole), self._most)

    def sendall(self, data: bytes | memoryview) -> None:
        if self._over:
            raise BrokenPipeError("the connection was shut down")
        self.sent += data

    def shutdown(self, how: int) -> None:
        del how
        self._over = True

    def close(self) -> None:
        self.closed = True
        self._options.close()


class NotingSocket:
    """A connected socket that notes what it receives.

    Attributes:
        received: every byte, in order.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected
        self.received = bytearray()
        self.setsockopt = connected.setsockopt
        self.sendmsg = connected.sendmsg
        self.sendall = connected.sendall
        self.shutdown = connected.shutdown
        self.close = connected.close

    def recv_into(self, buffer: memoryview, length: int = 0, flags: int = 0) -> int:
        count = self._connected.recv_into(buffer, length, flags)
        self.received += buffer[:count]
        return count
