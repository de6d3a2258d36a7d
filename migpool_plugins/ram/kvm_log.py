"""What the guest has written, as KVM knows it: the dirty bitmap of a memory slot.

Where the kernel can (Linux 5.2), reading the bitmap does not protect the pages again at once; that is done by a call of
its own, for just the pages that were found written. Either way a write after :meth:`KvmDirtyLog.take` is in the next
answer.

Only the guest's writes are logged, not those of this process.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_abi
from migpool_plugins.vcpu.kvm_machine import KvmMachine, MemoryRegion

__all__ = ["KvmDirtyLog"]

PAGE_SIZE: Final = 4096
_MANUAL_PROTECT: Final = 1
_WORD_BITS: Final = 64


class KvmDirtyLog:
    """The log of one memory slot.

    Arguments:
        machine: the VM.
        slot: the memory slot.
        region: what is in it.
    """

    name = "KVM dirty bitmap"

    def __init__(self, machine: KvmMachine, slot: int, region: MemoryRegion) -> None:
        self._machine = machine
        self._slot = slot
        self._region = region
        self._pages = region.size // PAGE_SIZE
        self._bitmap = bytearray(-(-self._pages // _WORD_BITS) * 8)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._bitmap))
        self._manual = _enable_manual_protect(machine)
        self._on = False

    def start(self) -> None:
        self._machine.attach(self._slot, replace(self._region, flags=kvm_abi.MEM_LOG_DIRTY_PAGES))
        self._on = True

    def take(self) -> bytearray:
        if not self._on:
            raise DeviceError("its dirty log has not been started")
        fd = self._machine.fd
        kvm_abi.call(fd, kvm_abi.GET_DIRTY_LOG, bytearray(kvm_abi.DIRTY_LOG.pack(self._slot, self._address)))
        if self._manual:
            asked = kvm_abi.CLEAR_LOG.pack(self._slot, self._pages, 0, self._address)
            kvm_abi.call(fd, kvm_abi.CLEAR_DIRTY_LOG, bytearray(asked))
        return self._bitmap

    def stop(self) -> None:
        if self._on:
            self._on = False
            self._machine.attach(self._slot, self._region)


def _enable_manual_protect(machine: KvmMachine) -> bool:
    asked = bytearray(kvm_abi.ENABLE_CAP.pack(kvm_abi.CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, _MANUAL_PROTECT, 0, 0, 0))
    try:
        kvm_abi.call(machine.fd, kvm_abi.ENABLE_CAPABILITY, asked)
    except DeviceError:
        return False
    return True
