"""What the guest has written: KVM's dirty bitmap of a memory slot, the vCPUs' dirty rings, or a hook on every write.

The **bitmap** has a bit for each page. Where the kernel can (Linux 5.2), reading it does not protect the pages again at
once; that is done by a call of its own, for just the pages that were found written.

A **ring** is a list of pages. A vCPU writes the number of each page that it dirties into its ring, and leaves the guest
when that is full. Whoever empties a ring marks what it has read, and the kernel then protects those pages again. The
entries and their two flags are described at KVM_CAP_DIRTY_LOG_RING in the kernel's documentation of the KVM interface.

A **hook** is for an emulated guest: Unicorn has no log of its own. It is called before its write is done. So the page
that a vCPU was about to write when the log was taken may be written only afterwards: it is named again in the next
answer, for each vCPU.

Guarantees:

* A page that was written before ``take`` is in its answer; or, with rings, in a later one, if the processor still keeps
  it in a buffer of its own, which it does not once the vCPU stands.
* A page that is named is protected again before anybody is told of it. So a write after the answer is in the next one.
* A full ring loses nothing: its vCPU empties it on its own thread, and goes on.

Only the guest's writes are logged, not those of this process.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_abi
from migpool_plugins.vcpu.kvm_machine import KvmMachine, MemoryRegion

if TYPE_CHECKING:
    from migpool_plugins.vcpu.unicorn_machine import UnicornVcpu

RING_SIZE: Final = 4096 * kvm_abi.DIRTY_GFN.size
"""Bytes of each vCPU's ring, for whoever makes the machine: 16 MiB of pages between two looks at it."""
PAGE_SIZE: Final = 4096
_MANUAL_PROTECT: Final = 1
_WORD_BITS: Final = 64
_ENTRY: Final = np.dtype({"names": kvm_abi.DIRTY_GFN_FIELDS, "formats": ("<u4", "<u4", "<u8")})
_PIECE: Final = 512
"""Entries that are looked at together: a ring is mostly empty, so not all of it."""
_TRIES: Final = 100


class _SlotLog:
    """The log of one memory slot.

    Arguments:
        machine: the VM; for a ring, one that was made with rings, which the log empties from now on.
        slot: the memory slot, the only one that is logged.
        region: what is in it.
    """

    def __init__(self, machine: KvmMachine, slot: int, region: MemoryRegion) -> None:
        self._machine = machine
        self._slot = slot
        self._region = region
        self._pages = region.size // PAGE_SIZE
        self._on = False

    def start(self) -> None:
        self._machine.attach(self._slot, replace(self._region, flags=kvm_abi.MEM_LOG_DIRTY_PAGES))
        self._on = True

    def stop(self) -> None:
        if self._on:
            self._on = False
            self._machine.attach(self._slot, self._region)

    def _check_started(self) -> None:
        if not self._on:
            raise DeviceError("its dirty log has not been started")


class KvmDirtyBitmap(_SlotLog):
    """The log of one memory slot, by the kernel's bitmap of it; see :class:`_SlotLog`."""

    name = "KVM dirty bitmap"

    def __init__(self, machine: KvmMachine, slot: int, region: MemoryRegion) -> None:
        super().__init__(machine, slot, region)
        self._bitmap = bytearray(-(-self._pages // _WORD_BITS) * 8)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._bitmap))
        try:
            kvm_abi.enable(machine.fd, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", _MANUAL_PROTECT)
            self._manual = True
        except DeviceError:
            self._manual = False

    def take(self) -> bytearray:
        self._check_started()
        fd = self._machine.fd
        kvm_abi.call(fd, kvm_abi.GET_DIRTY_LOG, bytearray(kvm_abi.DIRTY_LOG.pack(self._slot, self._address)))
        if self._manual:
            asked = kvm_abi.CLEAR_LOG.pack(self._slot, self._pages, 0, self._address)
            kvm_abi.call(fd, kvm_abi.CLEAR_DIRTY_LOG, bytearray(asked))
        return self._bitmap


class _Ring:
    """One vCPU's ring, and how far it has been read."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self._next = 0

    def harvest(self, slot: int, written: npt.NDArray[np.uint8]) -> int:
        """Note the pages that the ring names, mark their entries as read, and return how many entries there were."""
        # A view for this call only: one that stayed would keep the mapping, and so the VM, from being closed.
        entries = np.frombuffer(self._mapping, dtype=_ENTRY)
        total = 0
        while True:
            piece = entries[self._next : self._next + _PIECE]
            # The flag is read before the page's number: the kernel writes them in the other order.
            dirty = piece["flags"] == kvm_abi.DIRTY_GFN_F_DIRTY
            count = len(piece) if dirty.all() else int(dirty.argmin())
            if not count:
                return total
            found = piece[:count]
            written[found["offset"][found["slot"] == slot]] = 1
            found["flags"] = kvm_abi.DIRTY_GFN_F_RESET
            self._next = (self._next + count) % len(entries)
            total += count


class KvmDirtyRing(_SlotLog):
    """The log of one memory slot, by the rings of all vCPUs; see :class:`_SlotLog`."""

    name = "KVM dirty ring"

    def __init__(self, machine: KvmMachine, slot: int, region: MemoryRegion) -> None:
        super().__init__(machine, slot, region)
        self._rings = [_Ring(vcpu.ring) for vcpu in machine.vcpus if vcpu.ring is not None]
        self._written = np.zeros(self._pages, dtype=np.uint8)
        # Held from the reading of an entry until its page is protected again. Without it, take() could give out a page
        # that a vCPU's thread has read and not yet protected: what is written in between would be in no answer.
        self._emptying = threading.Lock()
        for vcpu in machine.vcpus:
            vcpu.empty_ring = self._make_room

    def start(self) -> None:
        with self._emptying:
            self._empty()
            self._written[:] = 0
            super().start()

    def take(self) -> bytes:
        self._check_started()
        with self._emptying:
            self._empty()
            answer = np.packbits(self._written, bitorder="little").tobytes()
            self._written[:] = 0
        return answer

    def stop(self) -> None:
        with self._emptying:
            was_on = self._on
            super().stop()
            if was_on:
                self._empty()

    def _make_room(self) -> None:
        with self._emptying:
            self._empty()

    def _empty(self) -> None:
        with _no_signals():
            count = sum(ring.harvest(self._slot, self._written) for ring in self._rings)
            if not count or self._reset(count):
                return
        # The kernel was cut short, and pages may have been left unprotected: which, it does not say. All are protected
        # when logging begins, and what was written meanwhile is among all of them.
        if self._on:
            self._machine.attach(self._slot, self._region)
            self._machine.attach(self._slot, replace(self._region, flags=kvm_abi.MEM_LOG_DIRTY_PAGES))
            self._written[:] = 1

    def _reset(self, count: int) -> bool:
        """Have the kernel protect what has been read, and return whether it did so in one go."""
        done = 0
        for tries in range(_TRIES):
            done += kvm_abi.call(self._machine.fd, kvm_abi.RESET_DIRTY_RINGS)
            if done >= count:
                return not tries
        raise DeviceError(f"KVM has taken back {done} of {count} entries of its dirty rings")


@contextmanager
def _no_signals() -> Iterator[None]:
    """No signal comes to this thread.

    In newer kernels a signal ends KVM_RESET_DIRTY_RINGS early: without an error, and with entries taken back whose
    pages are not yet protected. If they are the last ones, the count of entries does not show it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class HookDirtyLog:
    """The log of all writes of some vCPUs to one piece of memory.

    Arguments:
        vcpus: all that can write.
        address: the guest-physical address where the memory begins.
        size: of the memory, in bytes.
        paused: a context in which every vCPU stands.
    """

    name = "write hook"

    def __init__(
        self, vcpus: Sequence[UnicornVcpu], address: int, size: int, paused: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._vcpus = vcpus
        self._address = address
        self._size = size
        self._paused = paused
        # A byte a page: to set one is a single step of the interpreter, which no other thread can split.
        self._written = np.zeros(size // PAGE_SIZE, dtype=np.uint8)
        self._last = [-1] * len(vcpus)
        self._on = False

    def start(self) -> None:
        with self._paused():
            for number, vcpu in enumerate(self._vcpus):
                vcpu.watch_writes(self._hook(number), self._address, self._address + self._size - 1)
        self._on = True

    def take(self) -> bytes:
        # Looked at in a copy: the vCPUs go on, and numpy refuses to search what changes meanwhile.
        found: npt.NDArray[np.intp] = np.flatnonzero(self._written.copy())
        self._written[found] = 0
        for page in self._last:
            if page >= 0:
                self._written[page] = 1
        answer = np.zeros(len(self._written), dtype=np.bool_)
        answer[found] = True
        return np.packbits(answer, bitorder="little").tobytes()

    def stop(self) -> None:
        if not self._on:
            return
        self._on = False
        with self._paused():
            for vcpu in self._vcpus:
                vcpu.unwatch_writes()

    def _hook(self, number: int) -> Callable[[int], None]:
        written, last, address = self._written.data, self._last, self._address

        def hook(at: int) -> None:
            page = (at - address) // PAGE_SIZE
            # In this order: a log that is taken between the two has either the page, or it as the last one.
            last[number] = page
            written[page] = 1

        return hook
