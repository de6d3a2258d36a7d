"""A save or a load through a data descriptor, on a thread of the device process.

This is how a kernel driver's data moves, and the way that costs least. It knows no pre-copy: a stream socket cannot say
"nothing more just now".

Guarantee: a save is at most one chunk ahead of its reader, as a chunk is handed over before the next is begun.
"""

from __future__ import annotations

import socket
import threading
import time
from abc import ABC, abstractmethod
from functools import partial

from migpool_plugins.vfio.control import ACK_HEADER, ACK_KINDS, WRITE_HEADER, Refusal, data_socket_pair
from migpool_plugins.vfio.transfer import WRITE_ALLOWANCE, Emulated, Load, Save, Transfer, receive


class DescriptorTransfer(Transfer, ABC):
    """A transfer on a thread of its own, which waits until it may begin: starting one takes time.

    Attributes:
        client_end: the descriptor for the other process; close it here when it has been sent.
    """

    def __init__(self, device: Emulated) -> None:
        super().__init__(device)
        self._socket, self.client_end = data_socket_pair(device.profile.chunk)
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Let the thread work, without waiting for the other process."""
        self._begun.set()

    def cancel(self) -> None:
        """End whatever the thread waits for and join it; waits at most for the shared lock."""
        super().cancel()
        self._begun.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        self.client_end.close()

    def _run(self) -> None:
        self._begun.wait()
        try:
            self._move(self._socket)
        except OSError as error:
            self.error = Refusal(
                f"the data descriptor was closed at byte {self.offset} of the state ({error.strerror})"
            )

    @abstractmethod
    def _move(self, data: socket.socket) -> None:
        """Move the state through the device's end of the descriptor."""


class DescriptorSave(DescriptorTransfer, Save):
    """The device puts its state into the data descriptor, chunk by chunk at its own pace, and then ends it."""

    def _move(self, data: socket.socket) -> None:
        size, view = self._profile.size, self._content.memory.view
        self.pacer.due = time.monotonic()
        while self.offset < size and not self._cancelled.is_set():
            length, fault = self._make_chunk(self.offset, size, time.monotonic())
            data.sendall(view[self.offset : self.offset + length])
            self.offset += length
            if fault is not None:
                self.error = self._happen(fault)
                break
        data.shutdown(socket.SHUT_WR)


class DescriptorLoad(DescriptorTransfer, Load):
    """The device takes its state from the data descriptor; each write is answered."""

    def _move(self, data: socket.socket) -> None:
        fill = partial(receive, data)
        header = bytearray(WRITE_HEADER.size)
        while fill(memoryview(header)) and not self._cancelled.is_set():
            length, called, returned = WRITE_HEADER.unpack(header)
            late = min(max(0.0, returned - self.pacer.due), WRITE_ALLOWANCE)
            if not self.take(length, called - late, fill):
                return
            text = b"" if self.error is None else self.error.text.encode()
            kind = "" if self.error is None else self.error.kind
            data.sendall(ACK_HEADER.pack(ACK_KINDS.index(kind), len(text)) + text)
