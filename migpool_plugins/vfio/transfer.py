"""One save or one load of a device's state, on the device process's side: what every kind of it has in common.

A transfer belongs to one visit of the states in which data moves. ``cancel`` ends it whatever it waits for; the next
visit gets a new one. The data moves through a descriptor or in the messages of vfio-user (``transferkinds.py``).

The state is a ring as far as a transfer is concerned: byte *n* of what moves is byte *n* modulo the state's size.
Without pre-copy a transfer is one round. With it the initial bytes come first, then bytes that the running device has
made dirty, and after the stop what is left; so every byte has one right value whatever the device did before it
stopped.

How long the work takes is a :class:`Pacer`'s: rates, latencies, and a lock that devices share.

Guarantees:

* Work ends at a deadline that is computed from the work before it, not from when a thread happened to wake: an
  overslept timer shortens the next wait, and the mean rate is the profile's.
* Nothing spins, and every wait ends at once when the transfer is cancelled (a wait for the shared lock, when the
  holders before it have finished their chunk).
* With a shared lock, the times of the holders follow each other without overlap; the record proves it.
* A write is answered after its bytes have been compared with the state, so a wrong one fails in its own call, and all
  that come after it fail in the same way. Where loading the config takes long enough to compare the whole state
  meanwhile, of a long write one byte a page is compared at once, and every byte before the config is taken.
* That the device process waits for a processor makes no device slower: what an answer is late by for it, the next work
  has less time.
* What a transfer came to (``offset``, ``error``) is set before the end that the other side can see.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import EIO
from typing import ClassVar, Final, Literal, TypeAlias

from migpool_plugins.memory import Memory
from migpool_plugins.vfio.content import StateContent
from migpool_plugins.vfio.profiles import PAGE, DeviceProfile, Fault

CRASH_STATUS: Final = 70
"""Exit status of a device process that a fault crashed."""
_SCRATCH: Final = 64 << 10
READ_ALLOWANCE: Final = 1e-3
"""Seconds. A device produces its next chunk while the one before is copied out. How long a reader took to come for it
cannot be told from the copy, so lateness up to this much counts as the copy, and more as the reader's own."""

WRITE_ALLOWANCE: Final = 300e-6
"""Seconds. A write's answer takes a moment to reach the caller, which a real write would not lose: lateness of its
return up to this much is taken off the next write. More is a delay in the migrating process, and stays."""

_PR_SET_TIMERSLACK: Final = 29
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "ppc64le": 355, "s390x": 345}
"""The call's number by machine: neither Python nor an older C library has it."""
_SCHED_ATTR: Final = struct.Struct("=IIQiIQQQ")
"""Size, policy, flags, nice, priority, and of a thread that is not of real time the slice in nanoseconds, ..."""
_KEEP_POLICY: Final = 8
_SHORT_SLICE: Final = 100_000
"""Nanoseconds: the least that the kernel takes."""
_LONG_WRITE: Final = 64 << 10
"""Bytes of a write that is compared page by page, if all is compared later."""

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


class SharedLock:
    """A lock, of a kernel driver say, that the devices of one entry hold in turn.

    Attributes:
        free_at: when its last holder was due to be finished; the next one's work cannot begin earlier.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free_at = 0.0


class Cancel:
    """Whether a transfer has been cancelled. To wait for that is one call: an event would make a lock for each wait."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self._setting = threading.Lock()
        self._is_set = False

    def set(self) -> None:
        with self._setting:
            if not self._is_set:
                self._is_set = True
                self._gate.release()

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float) -> None:
        """Wait for so long, or until it is set."""
        if self._gate.acquire(timeout=seconds):
            self._gate.release()


class Pacer:
    """The time of one transfer of one device.

    Arguments:
        latency: seconds of each piece of work, besides its bytes.
        rate: bytes per second; 0: no limit.
        shared: the lock to hold meanwhile.
        cancelled: set to end every wait.

    Attributes:
        due: when the last work was due to end, CLOCK_MONOTONIC in seconds.
        record: when each piece of work began and ended, the lock being held.
    """

    def __init__(self, latency: float, rate: float, shared: SharedLock | None, cancelled: Cancel) -> None:
        self._latency = latency
        self._per_byte = 1 / rate if rate else 0.0
        self._shared = shared
        self._cancelled = cancelled
        self.due = 0.0
        self.record: list[tuple[float, float]] = []

    def work(self, length: int, since: float) -> None:
        """Wait until ``length`` bytes are done, counted from ``since`` or from when the shared lock was due free."""
        shared = self._shared
        if shared is None:
            self._work(length, since)
            return
        with shared.lock:
            ended = self._work(length, max(since, shared.free_at))
            shared.free_at = min(self.due, ended)

    def _work(self, length: int, since: float) -> float:
        began = time.monotonic()
        self.due = since + self._latency + length * self._per_byte
        left = self.due - began
        if left > 0:
            self._cancelled.wait(left)
        ended = time.monotonic()
        self.record.append((began, ended))
        return ended


def keep_time() -> None:
    """Let this thread, and those it starts, run when they are due: a real device waits for no processor.

    Linux may delay a timer by 50 us otherwise; and from Linux 6.12 on a thread that asks for a short slice of time does
    not wait, once it wakes, until one with a longer slice has had that.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is not None:
        nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, 0, _KEEP_POLICY, nice, 0, _SHORT_SLICE, 0, 0)
        libc.syscall(number, 0, attributes, 0)


def ring(offset: int, length: int, size: int) -> Iterator[tuple[int, int]]:
    """Where in a state of ``size`` bytes the ``length`` bytes from ``offset`` on are: offset and bytes of each part."""
    while length:
        begin = offset % size
        part = min(length, size - begin)
        yield begin, part
        offset += part
        length -= part


@dataclass(slots=True)
class Emulated:
    """What the transfers of one emulated device work with.

    Arguments:
        profile: sizes and pace.
        content: what the state must be.
        shared: the lock that devices may have to hold while they work; the profile says whether this one does.
        faults: what goes wrong in a save ("read") and in a load ("write"); a fault is taken out when it has happened.
        received: memory for what is loaded; ``None`` while there is none.
        compares_later: whether a load compares all of the state before the config is taken, and little of it before.
    """

    profile: DeviceProfile
    content: StateContent
    shared: SharedLock
    faults: dict[Literal["read", "write"], list[Fault]]
    received: Memory | None = None
    compares_later: bool = False


class Transfer:
    """What saves and loads have in common.

    Attributes:
        offset: bytes of the state that have been read by, or taken from, the other process.
        error: why the transfer failed; ``None`` if it did not.
        pacer: how long its work takes.
    """

    _direction: ClassVar[Literal["read", "write"]]

    def __init__(self, device: Emulated) -> None:
        self.offset = 0
        self.error: Refusal | None = None
        self._profile = profile = device.profile
        self._content = device.content
        self._faults = device.faults[self._direction]
        self._cancelled = Cancel()
        self._interrupted = threading.Event()
        self._shared = device.shared if profile.locks(self._direction) else None
        self._record: list[tuple[float, float]] = []
        self.pacer = self._new_pacer()

    def _new_pacer(self) -> Pacer:
        """The pace of one engine, all of which write one record."""
        profile, reads = self._profile, self._direction == "read"
        pacer = Pacer(
            profile.read_latency if reads else profile.write_latency,
            profile.read_rate if reads else profile.write_rate,
            self._shared,
            self._cancelled,
        )
        pacer.record = self._record
        return pacer

    def begin(self) -> None:
        """The device stands still and may work, from now on."""

    def cancel(self) -> None:
        """End the transfer; waits at most for the shared lock."""
        self._cancelled.set()
        self._interrupted.set()

    def interrupt(self) -> None:
        """End a stall, since the client that waited for it has gone; nothing else ends."""
        self._interrupted.set()

    def _fault_in(self, offset: int, length: int) -> Fault | None:
        """Take the fault that lies in a part of the state, if there is one."""
        for fault in self._faults:
            if fault.kind != "short-read" and offset <= fault.at < offset + length:
                self._faults.remove(fault)
                return fault
        return None

    def _happen(self, fault: Fault) -> Refusal:
        """Let a fault happen. Returns the error of an ``error``; a ``stall`` returns when its waiter has gone."""
        if fault.kind == "crash":
            os._exit(CRASH_STATUS)
        if fault.kind == "stall":
            self._interrupted.wait()
        return Refusal(f"the {self._direction} failed at byte {fault.at} of the state: input/output error")


class Save(Transfer):
    """The device gives its state, chunk by chunk."""

    _direction = "read"

    def _make_chunk(self, at: int, end: int, since: float) -> tuple[int, Fault | None]:
        """Take the time of the next chunk.

        Arguments:
            at: where in the state it begins, which goes on to ``end``.
            since: when the device could begin it, CLOCK_MONOTONIC in seconds.

        Returns:
            The chunk's bytes, and the fault before which it ends, if there is one.
        """
        length = min(self._profile.chunk, end - at)
        fault = self._fault_in(at, length)
        if fault is not None:
            length = fault.at - at
        self.pacer.work(length, max(self.pacer.due, since - READ_ALLOWANCE))
        return length, fault


class Load(Transfer):
    """The device takes its state write by write, and checks it.

    Attributes:
        received: memory for what comes; up to ``offset`` it holds what came.
    """

    _direction = "write"

    def __init__(self, device: Emulated) -> None:
        if device.received is None:
            device.received = Memory(device.profile.size, resident=True)
        self.received = device.received
        self._compares_later = device.compares_later
        super().__init__(device)

    @property
    def limit(self) -> int | None:
        """Bytes of state that can come at the most; ``None`` if the source's device may have made any number dirty."""
        return None if self._profile.precopy else self._profile.size

    def take(self, length: int, since: float, receive: Callable[[memoryview], bool]) -> bool:
        """Take and check one write. What is wrong with it is left in ``error``.

        An error stays, as the state ERROR of a real device does: it is the answer to every later write too.

        Arguments:
            length: its bytes.
            since: when the device began to take it, CLOCK_MONOTONIC in seconds.
            receive: fills a view with the next bytes of it; false if they do not come.

        Returns:
            False if the write did not come whole, or the transfer was cancelled.
        """
        offset, limit = self.offset, self.limit
        if self.error is not None or (limit is not None and offset + length > limit):
            if self.error is None:
                text = f"{length} bytes came at byte {offset}, but the state ends at byte {limit}"
                self.error = Refusal(text, "verification")
            return drain(length, receive)
        wrong: str | None = None
        for begin, count in ring(offset, length, self._profile.size):
            part = self.received.view[begin : begin + count]
            if not receive(part):
                return False
            differs = self._first_difference(begin, count)
            if differs is not None and wrong is None:
                wrong = self._describe(differs, part, begin)
        self.pacer.work(length, since)
        fault = self._fault_in(offset, length)
        if fault is not None:
            self.error = self._happen(fault)
        elif wrong is not None:
            self.error = Refusal(wrong, "verification")
        else:
            self.offset += length
        return not self._cancelled.is_set()

    def _first_difference(self, begin: int, count: int) -> int | None:
        """Where a write differs from the state first, as far as that is found now."""
        if self._compares_later and count >= _LONG_WRITE:
            pages = slice(begin, begin + count, PAGE)
            if self.received.view[pages] == self._content.memory.view[pages]:
                return None
        return self._content.first_difference(self.received, begin, count)

    def compare_rest(self) -> None:
        """Compare what the writes have left for later; a :class:`Refusal`, of all that follows too, if it differs."""
        wrong = self._content.first_difference(self.received, 0, self._profile.size) if self._compares_later else None
        if wrong is not None:
            self.error = Refusal(f"content differs at byte {wrong} of the state", "verification")
            raise self.error

    def _late(self, returned: float) -> float:
        """What the return of the last write, at that time, is late by, as far as a real one would not have been."""
        return min(max(0.0, returned - self.pacer.due), WRITE_ALLOWANCE)

    def _describe(self, wrong: int, part: memoryview, offset: int) -> str:
        origin = self._content.origin(part) if wrong == offset else None
        if origin is None:
            return f"content differs at byte {wrong} of the state"
        return f"content differs at byte {wrong} of the state: what came there belongs at byte {origin}"


def drain(length: int, receive: Callable[[memoryview], bool]) -> bool:
    """Receive ``length`` bytes and let them go; false if they do not come."""
    scratch = memoryview(bytearray(min(length, _SCRATCH)))
    while length:
        part = scratch[: min(length, _SCRATCH)]
        if not receive(part):
            return False
        length -= len(part)
    return True


def receive(connection: socket.socket, view: memoryview) -> bool:
    """Fill ``view``; false at the end of the connection."""
    while view:
        count = connection.recv_into(view, 0, socket.MSG_WAITALL)
        if not count:
            return False
        view = view[count:]
    return True


def limit_waits(connection: socket.socket, seconds: float) -> None:
    """Let no read or write of a socket take longer, by the kernel's own limits: one of Python's costs a poll a call."""
    limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
