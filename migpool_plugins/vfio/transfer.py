"""One save or one load of a device's state through its data descriptor, on a thread of the device process.

A transfer belongs to one visit of the states STOP_COPY (or PRE_COPY before it) or RESUMING. ``cancel`` ends it whatever
it waits for; the next visit gets a new transfer and a new descriptor.

Guarantees:

* A save is at most one chunk ahead of its reader: a chunk is handed over before the next is begun.
* A write is answered after its bytes have been compared with the state, so a wrong one fails in its own call.
* What a transfer came to (``offset``, ``error``) is set before the end that the other side can see.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from typing import Final

from migpool_plugins.vfio.content import Memory, StateContent
from migpool_plugins.vfio.control import ACK_HEADER, ACK_KINDS, WRITE_HEADER, Refusal, data_socket_pair
from migpool_plugins.vfio.pacing import READ_ALLOWANCE, WRITE_ALLOWANCE, Pacer, SharedLock
from migpool_plugins.vfio.profiles import DeviceProfile, Fault

CRASH_STATUS: Final = 70
"""Exit status of a device process that a fault crashed."""
_SCRATCH: Final = 64 << 10


class Transfer(ABC):
    """What a save and a load have in common.

    Arguments:
        profile: sizes and pace.
        content: what the state must be.
        shared: the lock to hold while working; ``None``: none.
        faults: what goes wrong; a fault is taken out when it has happened.

    Attributes:
        client_end: the descriptor for the other process; close it here when it has been sent.
        offset: bytes of the state that have been read by, or taken from, the other process.
        error: why the transfer failed; ``None`` if it did not.
    """

    def __init__(
        self, profile: DeviceProfile, content: StateContent, shared: SharedLock | None, faults: list[Fault]
    ) -> None:
        self.offset = 0
        self.error: Refusal | None = None
        self._profile = profile
        self._content = content
        self._faults = faults
        self._cancelled = threading.Event()
        self.pacer = self._make_pacer(shared)
        self._socket, self.client_end = data_socket_pair(profile.chunk)
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._guarded, daemon=True)
        self._thread.start()

    @abstractmethod
    def _make_pacer(self, shared: SharedLock | None) -> Pacer: ...

    @abstractmethod
    def _run(self) -> None: ...

    def begin(self) -> None:
        """Let the device work; its thread waits since the transfer was made, since starting one takes time."""
        self._begun.set()

    def cancel(self) -> None:
        """End the transfer and join its thread; waits at most for the shared lock."""
        self._cancelled.set()
        self._begun.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _guarded(self) -> None:
        self._begun.wait()
        try:
            self._run()
        except OSError as error:
            self.error = Refusal(
                f"the data descriptor was closed at byte {self.offset} of the state ({error.strerror})"
            )

    def _fault_in(self, offset: int, length: int) -> Fault | None:
        """Take the fault that lies in a part of the state, if there is one."""
        for fault in self._faults:
            if fault.kind != "short-read" and offset <= fault.at < offset + length:
                self._faults.remove(fault)
                return fault
        return None

    def _happen(self, fault: Fault, what: str) -> Refusal:
        """Let a fault happen. Returns the error of an ``error``; a ``stall`` returns when the transfer is cancelled."""
        if fault.kind == "crash":
            os._exit(CRASH_STATUS)
        if fault.kind == "stall":
            self._cancelled.wait()
        return Refusal(f"the {what} failed at byte {fault.at} of the state: input/output error")


class SaveTransfer(Transfer):
    """The device puts its state into the data descriptor, chunk by chunk at its own pace, and then ends it."""

    def _make_pacer(self, shared: SharedLock | None) -> Pacer:
        profile = self._profile
        return Pacer(profile.read_latency, profile.read_rate, shared, self._cancelled)

    def _run(self) -> None:
        profile, pacer, view = self._profile, self.pacer, self._content.memory.view
        pacer.due = time.monotonic()
        while self.offset < profile.size and not self._cancelled.is_set():
            length = min(profile.chunk, profile.size - self.offset)
            fault = self._fault_in(self.offset, length)
            if fault is not None:
                length = fault.at - self.offset
            pacer.work(length, max(pacer.due, time.monotonic() - READ_ALLOWANCE))
            self._socket.sendall(view[self.offset : self.offset + length])
            self.offset += length
            if fault is not None:
                self.error = self._happen(fault, "read")
                break
        self._socket.shutdown(socket.SHUT_WR)


class LoadTransfer(Transfer):
    """The device takes its state from the data descriptor, write by write, and checks it.

    Attributes:
        received: what has come, up to ``offset``.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        content: StateContent,
        shared: SharedLock | None,
        faults: list[Fault],
        received: Memory,
    ) -> None:
        self.received = received
        super().__init__(profile, content, shared, faults)

    def _make_pacer(self, shared: SharedLock | None) -> Pacer:
        profile = self._profile
        return Pacer(profile.write_latency, profile.write_rate, shared, self._cancelled)

    def _run(self) -> None:
        header = bytearray(WRITE_HEADER.size)
        while self._receive(memoryview(header)) and not self._cancelled.is_set():
            length, called, returned = WRITE_HEADER.unpack(header)
            late = min(max(0.0, returned - self.pacer.due), WRITE_ALLOWANCE)
            if not self._take(length, called - late):
                return
            refusal = self.error
            text = b"" if refusal is None else refusal.text.encode()
            kind = "" if refusal is None else refusal.kind
            self._socket.sendall(ACK_HEADER.pack(ACK_KINDS.index(kind), len(text)) + text)

    def _take(self, length: int, since: float) -> bool:
        """Take and check one write; false if it did not come whole. What is wrong with it is left in ``error``.

        An error stays, as the state ERROR of a real device does: it is the answer to every later write too.
        """
        offset, size = self.offset, self._profile.size
        if self.error is not None or offset + length > size:
            if self.error is None:
                self.error = Refusal(
                    f"{length} bytes came at byte {offset}, but the state ends at byte {size}", "verification"
                )
            return self._drain(length)
        part = self.received.view[offset : offset + length]
        if not self._receive(part):
            return False
        wrong = self._content.first_difference(self.received, offset, length)
        self.pacer.work(length, since)
        fault = self._fault_in(offset, length)
        if fault is not None:
            self.error = self._happen(fault, "write")
        elif wrong is not None:
            self.error = Refusal(self._describe(wrong, part, offset), "verification")
        else:
            self.offset += length
        return not self._cancelled.is_set()

    def _describe(self, wrong: int, part: memoryview, offset: int) -> str:
        origin = self._content.origin(part) if wrong == offset else None
        if origin is None:
            return f"content differs at byte {wrong} of the state"
        return f"content differs at byte {wrong} of the state: what came there belongs at byte {origin}"

    def _receive(self, view: memoryview) -> bool:
        """Fill ``view``; false at the end of the data."""
        while view:
            count = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
            if not count:
                return False
            view = view[count:]
        return True

    def _drain(self, length: int) -> bool:
        scratch = memoryview(bytearray(_SCRATCH))
        while length:
            part = scratch[: min(length, _SCRATCH)]
            if not self._receive(part):
                return False
            length -= len(part)
        return True
