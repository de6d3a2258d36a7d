"""An engine's descriptor as the migrating process uses it; what goes over it is said in ``engines.py``."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading

from migpool.device import Part
from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.client import refusal
from migpool_plugins.vfio.engines import ANSWER, ASK, READ, WRITE
from migpool_plugins.vfio.transfer import receive
from migpool_plugins.vfio.transferkinds import ACK_KINDS


class DescriptorEngine:
    """One engine's descriptor, on which every request is answered before the next one.

    Arguments:
        connected: the descriptor; the engine owns it.
        limit: seconds that one answer may take.
    """

    def __init__(self, connected: socket.socket, limit: float) -> None:
        self._socket = connected
        self._limit = limit
        self._lock = threading.Lock()
        self._closed = False
        self.over = False

    def read(self, buffer: memoryview) -> Part | None:
        """Read the next part straight into ``buffer``; ``None`` if none is left."""
        tag, length = self._ask(READ, 0, len(buffer), None)
        if not length:
            return None
        if length > len(buffer):
            raise self._lost(f"a part of {length} bytes was given into {len(buffer)}")
        self._fill(buffer[:length], "read")
        return Part(tag, length)

    def write(self, tag: int, data: memoryview) -> None:
        """Write a part, and wait until the device has taken and checked it."""
        self._ask(WRITE, tag, len(data), data)

    def _ask(self, what: int, tag: int, length: int, data: memoryview | None) -> tuple[int, int]:
        name = "read" if what == READ else "write"
        try:
            self._socket.sendall(ASK.pack(what, tag, length))
            if data is not None:
                self._socket.sendall(data)
        except BlockingIOError:
            raise self._late(name) from None
        except OSError as error:
            raise self._lost(f"the device closed its engine's descriptor: {error.strerror}") from None
        head = bytearray(ANSWER.size)
        self._fill(memoryview(head), name)
        kind, tag, length = ANSWER.unpack(head)
        if kind:
            text = bytearray(length)
            self._fill(memoryview(text), name)
            raise refusal(ACK_KINDS[kind], text.decode())
        return tag, length

    def _fill(self, view: memoryview, name: str) -> None:
        try:
            whole = receive(self._socket, view)
        except BlockingIOError:
            raise self._late(name) from None
        except OSError as error:
            raise self._lost(f"the device closed its engine's descriptor: {error.strerror}") from None
        if not whole:
            raise self._lost("the device closed its engine's descriptor")

    def _late(self, name: str) -> BackendError:
        self.abort()
        return BackendError(f"the device's {name} did not return within {self._limit:.3g} s", errno.ETIMEDOUT)

    def _lost(self, text: str) -> BackendError:
        self.abort()
        return BackendError(text, errno.EPIPE)

    def abort(self) -> None:
        """End every wait at once."""
        with self._lock:
            self.over = True
            if not self._closed:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            self.over = self._closed = True
            self._socket.close()
