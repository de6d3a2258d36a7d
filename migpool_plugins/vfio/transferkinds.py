"""The two kinds of transfer: in the messages of vfio-user, or through a data descriptor.

In messages the device works on the thread that asks for its state or brings it. The pace is that of a device which
reads ahead by one chunk: the work of a chunk is counted from when the one before was handed over, not from when it is
asked for. Before the stop there is the initial data, and then what the running device makes dirty: at the profile's
rate, and never more than the whole state at once.

Through a descriptor it works on a thread of its own. This is how a kernel driver's data moves, and the way that costs
least. It knows no pre-copy: a stream socket cannot say "nothing more just now". A save is at most one chunk ahead of
its reader, as a chunk is handed over before the next is begun.

The data descriptor is an AF_UNIX stream socket, since ``shutdown`` ends a blocked read or write of it at once, from
any thread and at either end, which no pipe can do. While saving it carries the state's bytes and then end of file.
While loading, each write is ``WRITE_HEADER`` (its length; when it was called and when the one before it returned,
CLOCK_MONOTONIC in seconds) and the bytes, and is answered by ``ACK_HEADER`` (kind, length of the text) and the error's
text; kind 0 means taken and checked. The times let the device pace a write as its caller sees it.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from errno import EINVAL
from functools import partial
from typing import Final, Literal

from migpool_plugins.vfio.transfer import WRITE_ALLOWANCE, Emulated, Load, Refusal, Save, Transfer, receive, ring

WRITE_HEADER: Final = struct.Struct("=Qdd")
ACK_HEADER: Final = struct.Struct("=II")
ACK_KINDS: Final[tuple[Literal["", "device", "verification"], ...]] = ("", "device", "verification")


class RequestedSave(Save):
    """The device gives its state in the answers to reads, from one thread at a time.

    While it is ``running`` there is only what can be pre-copied, until ``begin``.
    """

    def __init__(self, device: Emulated, running: bool) -> None:
        super().__init__(device)
        profile = device.profile
        now = time.monotonic()
        self._lock = threading.Lock()
        self._dirty = 0  # Bytes that have become dirty, read or not.
        self._dirty_until = now
        self._initial = profile.initial_size if running else 0
        self._running = running
        self._quiet = False
        self._produced = 0
        self._given = now
        self.pacer.due = now

    def begin(self) -> None:
        self._look()
        self._running = False
        self._given = self.pacer.due = time.monotonic()

    def quiet(self, quiet: bool) -> None:
        """Whether the device begins nothing by itself now, and so makes nothing dirty."""
        self._look()
        self._quiet = quiet

    def left(self) -> tuple[int, int]:
        """Bytes that can be read before the stop: initial ones, and dirty ones."""
        end = self._look()
        initial = max(0, self._initial - self.offset)
        return initial, end - self.offset - initial

    @property
    def total(self) -> int:
        """Bytes that there are to read in this transfer, once the device has stopped."""
        return self._profile.size + self._dirty

    def _look(self) -> int:
        """Bytes that there are to read so far."""
        with self._lock:
            if not self._running:
                return self.total
            self._make_dirty(time.monotonic())
            return self._initial + self._dirty

    def _make_dirty(self, now: float) -> None:
        """Count what has become dirty until ``now``: by a quiet device nothing, and at most all that has been read."""
        rate = self._profile.dirty_rate
        if self._quiet:
            self._dirty_until = now
        elif rate:
            fresh = int((now - self._dirty_until) * rate)
            self._dirty_until += fresh / rate
            read = max(0, self.offset - self._initial)
            self._dirty = min(self._dirty + fresh, read + self._profile.size)

    def take(self, length: int) -> list[tuple[int, int]]:
        """Take the next ``length`` bytes, or what there is, at the device's own pace.

        Returns:
            Where in the state they are: offset and bytes of each part.

        Raises:
            Refusal: the device failed, now or before, or the transfer was cancelled.
        """
        if self.error is not None:
            raise self.error
        begin, size = self.offset, self._profile.size
        end = min(begin + length, self._look() if self._running else self.total)
        while self._produced < end:
            self._produce()
        self.offset = end
        if end <= size:
            return [(begin, end - begin)] if end > begin else []
        return list(ring(begin, end - begin, size))

    def read(self, length: int) -> list[memoryview]:
        """The bytes themselves; see :meth:`take`."""
        view = self._content.memory.view
        return [view[at : at + count] for at, count in self.take(length)]

    def _produce(self) -> None:
        length, fault = self._make_chunk(self._produced, self._look(), self._given)
        self._given = time.monotonic()
        if fault is not None:
            self.error = self._happen(fault)
        elif self._cancelled.is_set():
            self.error = Refusal("the transfer has ended")
        if self.error is not None:
            raise self.error
        self._produced += length

    def given(self, called: float | None = None) -> None:
        """What was read last has been handed over: the device goes on with its next chunk.

        Arguments:
            called: when it was asked for, CLOCK_MONOTONIC in seconds: it could be handed over then, or when it was due.
                ``None``: not before now.
        """
        self._given = time.monotonic() if called is None else max(called, self.pacer.due)


class RequestedLoad(Load):
    """The device takes its state from the writes. Its calls come from one thread at a time."""

    def __init__(self, device: Emulated) -> None:
        super().__init__(device)
        self._answered = 0.0

    def write(self, length: int, receive: Callable[[memoryview], bool]) -> bool:
        """Take one write, at the device's own pace; see :meth:`Load.take`."""
        return self.take(length, time.monotonic() - self._late(self._answered), receive)

    def write_placed(self, at: int, length: int, called: float, returned: float) -> bool:
        """Take one write whose bytes the other process has put where they belong.

        Arguments:
            at: where it has put them.
            called: when it was asked to write them, CLOCK_MONOTONIC in seconds.
            returned: when the write before that was over for it.

        Raises:
            Refusal: that is not where the next bytes belong.
        """
        if self.error is None and at != self.offset % self._profile.size:
            raise Refusal(f"the bytes were put at {at}, but {self.offset} have come", "verification", EINVAL)
        # The device process's own delay is no device's; of the way back from it a moment is.
        answered = max(self._answered, self.pacer.due)
        late = answered - self.pacer.due + min(max(0.0, returned - answered), WRITE_ALLOWANCE)
        return self.take(length, called - late, lambda _: True)

    def answered(self) -> None:
        """The write's answer is given now."""
        self._answered = time.monotonic()


def data_socket_pair(chunk: int) -> tuple[socket.socket, socket.socket]:
    """Return the device's end and the migrating process's end of a data connection.

    The device's send buffer is kept well under a chunk (in bytes): its write returns when the reader has begun to take
    the chunk, and so the device is never more than one chunk ahead of its reader.
    """
    device, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    device.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(4096, min(chunk // 4, 128 << 10)))
    return device, client


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
            if not self.take(length, called - self._late(returned), fill):
                return
            text = b"" if self.error is None else self.error.text.encode()
            kind = "" if self.error is None else self.error.kind
            data.sendall(ACK_HEADER.pack(ACK_KINDS.index(kind), len(text)) + text)
