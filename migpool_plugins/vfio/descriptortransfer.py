"""A save or a load through a data descriptor, on a thread of the device process.

This is how a kernel driver's data moves, and the way that costs least. It knows no pre-copy: a stream socket cannot say
"nothing more just now".

Guarantee: a save is at most one chunk ahead of its reader, as a chunk is handed over before the next is begun.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from migpool_plugins.vfio.content import Memory, StateContent
from migpool_plugins.vfio.control import ACK_HEADER, ACK_KINDS, WRITE_HEADER, Refusal, data_socket_pair
from migpool_plugins.vfio.pacing import READ_ALLOWANCE, WRITE_ALLOWANCE, SharedLock
from migpool_plugins.vfio.profiles import DeviceProfile, Fault
from migpool_plugins.vfio.transfer import Load, Transfer

__all__ = ["DescriptorLoad", "DescriptorSave"]


class _Worker:
    """A data descriptor and the thread behind it, which waits until it may begin: starting one takes time.

    Arguments:
        transfer: what the thread works for; an error of the descriptor is left in it.
        work: what the thread does with the device's end.

    Attributes:
        client_end: the descriptor for the other process; close it here when it has been sent.
    """

    def __init__(self, transfer: Transfer, chunk: int, work: Callable[[socket.socket], None]) -> None:
        self._transfer = transfer
        self._work = work
        self._socket, self.client_end = data_socket_pair(chunk)
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Let the thread work."""
        self._begun.set()

    def end(self) -> None:
        """End whatever the thread waits for at the descriptor, and join it."""
        self._begun.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        self.client_end.close()

    def _run(self) -> None:
        self._begun.wait()
        try:
            self._work(self._socket)
        except OSError as error:
            text = f"the data descriptor was closed at byte {self._transfer.offset} of the state ({error.strerror})"
            self._transfer.error = Refusal(text)


class DescriptorSave(Transfer):
    """The device puts its state into the data descriptor, chunk by chunk at its own pace, and then ends it.

    Attributes:
        client_end: the descriptor for the other process; close it here when it has been sent.
    """

    def __init__(
        self, profile: DeviceProfile, content: StateContent, faults: list[Fault], shared: SharedLock | None
    ) -> None:
        super().__init__(profile, content, faults, profile.read_latency, profile.read_rate, shared)
        self._worker = _Worker(self, profile.chunk, self._put)
        self.client_end = self._worker.client_end

    def begin(self) -> None:
        """Let the device produce its first chunk, without waiting for a reader."""
        self._worker.begin()

    def cancel(self) -> None:
        """End the transfer and join its thread; waits at most for the shared lock."""
        super().cancel()
        self._worker.end()

    def _put(self, data: socket.socket) -> None:
        profile, pacer, view = self._profile, self.pacer, self._content.memory.view
        pacer.due = time.monotonic()
        while self.offset < profile.size and not self._cancelled.is_set():
            length = min(profile.chunk, profile.size - self.offset)
            fault = self._fault_in(self.offset, length)
            if fault is not None:
                length = fault.at - self.offset
            pacer.work(length, max(pacer.due, time.monotonic() - READ_ALLOWANCE))
            data.sendall(view[self.offset : self.offset + length])
            self.offset += length
            if fault is not None:
                self.error = self._happen(fault, "read")
                break
        data.shutdown(socket.SHUT_WR)


class DescriptorLoad(Load):
    """The device takes its state from the data descriptor; each write is answered.

    Attributes:
        client_end: the descriptor for the other process; close it here when it has been sent.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        content: StateContent,
        faults: list[Fault],
        received: Memory,
        shared: SharedLock | None,
    ) -> None:
        super().__init__(profile, content, faults, received, shared)
        self._worker = _Worker(self, profile.chunk, self._get)
        self.client_end = self._worker.client_end

    def begin(self) -> None:
        """Let the device take what comes."""
        self._worker.begin()

    def cancel(self) -> None:
        """End the transfer and join its thread; waits at most for the shared lock."""
        super().cancel()
        self._worker.end()

    def _get(self, data: socket.socket) -> None:
        def receive(view: memoryview) -> bool:
            while view:
                count = data.recv_into(view, 0, socket.MSG_WAITALL)
                if not count:
                    return False
                view = view[count:]
            return True

        header = bytearray(WRITE_HEADER.size)
        while receive(memoryview(header)) and not self._cancelled.is_set():
            length, called, returned = WRITE_HEADER.unpack(header)
            late = min(max(0.0, returned - self.pacer.due), WRITE_ALLOWANCE)
            if not self.take(length, called - late, receive):
                return
            refusal = self.error
            text = b"" if refusal is None else refusal.text.encode()
            kind = "" if refusal is None else refusal.kind
            data.sendall(ACK_HEADER.pack(ACK_KINDS.index(kind), len(text)) + text)
