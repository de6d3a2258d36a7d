"""A VM of KVM: guest memory, vCPUs, and the exits of KVM_RUN. Plain ioctls, nothing between this and the kernel.

The guest leaves by itself after each batch, by writing to its doorbell, so no signal is needed to stop a vCPU: its
thread looks for a wish to stop between two batches. A guest gone astray is brought out by taking its memory away.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from struct import Struct
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_abi, program
from migpool_plugins.vcpu.backend import VcpuState
from migpool_plugins.vcpu.cpu_model import cpu_model
from migpool_plugins.vcpu.kvm_registers import (
    LAYOUT,
    REGISTER_SETS,
    REQUIRED_CAPABILITIES,
    read_registers,
    write_registers,
)
from migpool_plugins.vcpu.long_mode import special_registers, write_page_tables

DEVICE_NODE: Final = "/dev/kvm"
_TSS_ADDRESS: Final = 0x7FFF0000
"""Three pages below 4 GiB, without guest memory, that Intel hosts need to run real mode."""
OWN_MEMORY: Final = 0x200000
"""Guest-physical addresses below this are the machine's own: page tables, program, the vCPUs' pages, doorbell."""
_EXIT_REASON: Final = Struct("<I")
_LOW_HALF: Final = Struct("<Q")
_XMM0: Final = 160
"""Where the first SSE register lies in the area of KVM_GET_XSAVE: the legacy region, which is FXSAVE's."""
_DOORBELL_WRITE: Final = (program.DOORBELL, 4, 1)


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """Memory of this process that the guest sees as its own.

    Arguments:
        host_address: where it begins in this process, page-aligned. It must stay mapped until the machine is closed.
        guest_address: the guest-physical address where the guest sees it, page-aligned.
        size: in bytes, whole pages.
        flags: for KVM_SET_USER_MEMORY_REGION; ``kvm_abi.MEM_LOG_DIRTY_PAGES`` has the kernel note the guest's writes.
    """

    host_address: int
    guest_address: int
    size: int
    flags: int = 0


class KvmVcpu:
    """One vCPU of a :class:`KvmMachine`; see :class:`~migpool_plugins.vcpu.backend.VirtualCpu`."""

    def __init__(self, index: int, fd: int, run: mmap.mmap, memory: mmap.mmap) -> None:
        self.index = index
        self._fd = fd
        self._run = run
        self._memory = memory
        page = program.page_address(index)
        self._page = slice(page, page + program.PAGE_SIZE)

    def boot(self, registers: Mapping[str, int]) -> None:
        special = bytearray(kvm_abi.SREGS.size)
        kvm_abi.call(self._fd, kvm_abi.GET_SREGS, special)
        kvm_abi.call(self._fd, kvm_abi.SET_SREGS, bytearray(special_registers(bytes(special), program.PAGE_TABLES)))
        general = kvm_abi.REGS.pack(*(registers.get(name, 0) for name in kvm_abi.REGS_FIELDS))
        kvm_abi.call(self._fd, kvm_abi.SET_REGS, bytearray(general))

    def run_batch(self) -> None:
        while not self._enter():
            # A signal came to this thread. The guest must go on to its doorbell: only there do its registers agree.
            pass
        (reason,) = _EXIT_REASON.unpack_from(self._run, kvm_abi.RUN_EXIT_REASON)
        if reason != kvm_abi.EXIT_MMIO:
            why = kvm_abi.EXIT_REASONS.get(reason, "not known here")
            raise DeviceError(f"the guest left by exit {reason} ({why}), not by its doorbell")
        address, _data, length, is_write = kvm_abi.RUN_MMIO_FIELDS.unpack_from(self._run, kvm_abi.RUN_MMIO)
        if (address, length, is_write) != _DOORBELL_WRITE:
            raise DeviceError(f"the guest touched address {address:#x}, where it has no memory")
        # The kernel keeps the write open until the next KVM_RUN. This one completes it without going on in the guest,
        # so that the registers are those after the write, whatever comes next.
        self._run[kvm_abi.RUN_IMMEDIATE_EXIT] = 1
        self._enter()
        self._run[kvm_abi.RUN_IMMEDIATE_EXIT] = 0

    def _enter(self) -> bool:
        """Call KVM_RUN; return false if it was interrupted."""
        try:
            fcntl.ioctl(self._fd, kvm_abi.RUN.number, 0)
        except InterruptedError:
            return False
        except OSError as error:
            raise DeviceError(f"KVM_RUN failed: {error.strerror}") from error
        return True

    def put(self, name: str, value: int) -> None:
        general = bytearray(kvm_abi.REGS.size)
        kvm_abi.call(self._fd, kvm_abi.GET_REGS, general)
        _LOW_HALF.pack_into(general, 8 * kvm_abi.REGS_FIELDS.index(name), value)
        kvm_abi.call(self._fd, kvm_abi.SET_REGS, general)

    def save(self) -> VcpuState:
        return VcpuState(read_registers(self._fd), self._memory[self._page])

    def load(self, state: VcpuState) -> None:
        write_registers(self._fd, state.registers)
        self._memory[self._page] = state.page


class KvmMachine:
    """A VM with ``count`` vCPUs; see :class:`~migpool_plugins.vcpu.backend.Machine`.

    Arguments:
        count: how many vCPUs, 1 to 256.
        regions: more guest memory, given from outside, from the end of :data:`OWN_MEMORY` on; the page tables map
            the first :data:`~migpool_plugins.vcpu.long_mode.MAPPED` bytes. Region n has the memory slot n + 1.

    Raises:
        DeviceError: /dev/kvm cannot be opened or cannot do what is needed; the message says what.

    Attributes:
        fd: the VM's descriptor, for what else its memory slots can be asked (the dirty log, for one).
    """

    name = "KVM"
    layout = LAYOUT
    way_out = program.OUT_BY_DOORBELL
    batch = 1 << 18

    def __init__(self, count: int, regions: Sequence[MemoryRegion] = ()) -> None:
        with ExitStack() as owned:
            kvm = _open_kvm()
            owned.callback(os.close, kvm)
            self._check(kvm, count)
            model = cpu_model(kvm)
            run_size = kvm_abi.call(kvm, kvm_abi.GET_VCPU_MMAP_SIZE)
            closing = owned.enter_context(ExitStack())
            # The memory is unmapped only after the descriptors are closed: until then the kernel may still touch it.
            self._memory = mmap.mmap(-1, program.memory_size(count))
            closing.callback(self._memory.close)
            self.fd = kvm_abi.call(kvm, kvm_abi.CREATE_VM)
            closing.callback(os.close, self.fd)
            kvm_abi.call(self.fd, kvm_abi.SET_TSS_ADDR, _TSS_ADDRESS)
            code = program.program_bytes()
            self._memory[program.CODE : program.CODE + len(code)] = code
            write_page_tables(self._memory, program.PAGE_TABLES)
            self._own = MemoryRegion(ctypes.addressof(ctypes.c_char.from_buffer(self._memory)), 0, len(self._memory))
            for slot, region in enumerate((self._own, *regions)):
                if slot and region.guest_address < OWN_MEMORY:
                    raise DeviceError(f"guest memory at {region.guest_address:#x} lies in the machine's own 2 MiB")
                self.attach(slot, region)
            vcpus: list[KvmVcpu] = []
            for index in range(count):
                fd = kvm_abi.call(self.fd, kvm_abi.CREATE_VCPU, index)
                closing.callback(os.close, fd)
                run = mmap.mmap(fd, run_size)
                closing.callback(run.close)
                kvm_abi.call(fd, kvm_abi.SET_CPUID2, bytearray(model))
                vcpus.append(KvmVcpu(index, fd, run, self._memory))
            self._closing = closing.pop_all()
        self.vcpus = tuple(vcpus)

    def attach(self, slot: int, region: MemoryRegion) -> None:
        """Put a region into a memory slot: a new one, one with other flags, or one of size 0, which takes it away.

        Arguments:
            slot: 0 is the machine's own.
            region: the same addresses and size as before if only the flags change.

        Raises:
            DeviceError: the kernel refused it.
        """
        packed = kvm_abi.USER_MEMORY_REGION.pack(
            slot, region.flags, region.guest_address, region.size, region.host_address
        )
        kvm_abi.call(self.fd, kvm_abi.SET_USER_MEMORY_REGION, bytearray(packed))

    @staticmethod
    def _check(kvm: int, count: int) -> None:
        version = kvm_abi.call(kvm, kvm_abi.GET_API_VERSION)
        if version != kvm_abi.API_VERSION:
            raise DeviceError(f"KVM's interface has version {version}, not {kvm_abi.API_VERSION}: use another kernel")
        for name, number in REQUIRED_CAPABILITIES.items():
            if not kvm_abi.call(kvm, kvm_abi.CHECK_EXTENSION, number):
                raise DeviceError(f"this kernel's KVM lacks {name}: use the Unicorn backend")
        most = kvm_abi.call(kvm, kvm_abi.CHECK_EXTENSION, kvm_abi.CAP_MAX_VCPUS) or 4
        if count > most:
            raise DeviceError(f"KVM on this host allows {most} vCPUs in a VM, {count} are asked for")

    def comparable(self, state: VcpuState) -> VcpuState:
        registers = {entry.name: entry.comparable(state.registers[entry.name]) for entry in REGISTER_SETS}
        return VcpuState(registers, state.page)

    def expel(self) -> None:
        # Without its page tables the guest can reach no other region either.
        self.attach(0, replace(self._own, size=0))

    def checksum(self, state: VcpuState) -> int:
        (low,) = _LOW_HALF.unpack_from(state.registers["xsave"], _XMM0)
        return int(low)

    def close(self) -> None:
        self._closing.close()


def _open_kvm() -> int:
    try:
        return os.open(DEVICE_NODE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DeviceError(f"{DEVICE_NODE} does not exist: load the kvm module, or use the Unicorn backend") from None
    except OSError as error:
        raise DeviceError(
            f"{DEVICE_NODE} cannot be opened ({error.strerror}): join the kvm group, or use the Unicorn backend"
        ) from error
