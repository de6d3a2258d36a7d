"""A save or a load in the messages of vfio-user: the device works on the thread that asks for its state or brings it.

The pace is that of a device which reads ahead by one chunk: the work of a chunk is counted from when the one before was
handed over, not from when it is asked for. Before the stop there is the initial data, and then what the running device
makes dirty: at the profile's rate, and never more than the whole state at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from migpool_plugins.vfio.control import Refusal
from migpool_plugins.vfio.transfer import WRITE_ALLOWANCE, Emulated, Load, Save, ring


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

    def read(self, length: int) -> list[memoryview]:
        """Return the next ``length`` bytes, or what there is, at the device's own pace.

        Raises:
            Refusal: the device failed, now or before, or the transfer was cancelled.
        """
        if self.error is not None:
            raise self.error
        begin, end = self.offset, min(self.offset + length, self._look())
        while self._produced < end:
            self._produce()
        self.offset = end
        view = self._content.memory.view
        return [view[at : at + count] for at, count in ring(begin, end - begin, self._profile.size)]

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

    def given(self) -> None:
        """What was read last has been handed over: the device goes on with its next chunk."""
        self._given = time.monotonic()


class RequestedLoad(Load):
    """The device takes its state from the writes. Its calls come from one thread at a time."""

    def __init__(self, device: Emulated) -> None:
        super().__init__(device)
        self._answered = 0.0

    def write(self, length: int, receive: Callable[[memoryview], bool]) -> bool:
        """Take one write, at the device's own pace; see :meth:`Load.take`."""
        late = min(max(0.0, self._answered - self.pacer.due), WRITE_ALLOWANCE)
        return self.take(length, time.monotonic() - late, receive)

    def answered(self) -> None:
        """The write's answer has been given."""
        self._answered = time.monotonic()
