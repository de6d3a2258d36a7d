"""A VM of KVM: guest memory, vCPUs, and the exits of KVM_RUN. Plain ioctls, nothing between this and the kernel.

The guest leaves by itself after each batch, by writing to its doorbell, so no signal is needed to stop a vCPU: its
thread looks for a wish to stop between two batches. A guest gone astray is brought out by taking its memory away.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Mapping
from contextlib import ExitStack
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
_EXIT_REASON: Final = Struct("<I")
_LOW_HALF: Final = Struct("<Q")
_XMM0: Final = 160
"""Where the first SSE register lies in the area of KVM_GET_XSAVE: the legacy region, which is FXSAVE's."""
_DOORBELL_WRITE: Final = (program.DOORBELL, 4, 1)


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

    def save(self) -> VcpuState:
        return VcpuState(read_registers(self._fd), self._memory[self._page])

    def load(self, state: VcpuState) -> None:
        write_registers(self._fd, state.registers)
        self._memory[self._page] = state.page


class KvmMachine:
    """A VM with ``count`` vCPUs; see :class:`~migpool_plugins.vcpu.backend.Machine`.

    Arguments:
        count: how many vCPUs, 1 to 256.

    Raises:
        DeviceError: /dev/kvm cannot be opened or cannot do what is needed; the message says what.
    """

    name = "KVM"
    layout = LAYOUT
    way_out = program.OUT_BY_DOORBELL
    batch = 1 << 18

    def __init__(self, count: int) -> None:
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
            self._fd = kvm_abi.call(kvm, kvm_abi.CREATE_VM)
            closing.callback(os.close, self._fd)
            kvm_abi.call(self._fd, kvm_abi.SET_TSS_ADDR, _TSS_ADDRESS)
            code = program.program_bytes()
            self._memory[program.CODE : program.CODE + len(code)] = code
            write_page_tables(self._memory, program.PAGE_TABLES)
            self._attach_memory(len(self._memory))
            vcpus: list[KvmVcpu] = []
            for index in range(count):
                fd = kvm_abi.call(self._fd, kvm_abi.CREATE_VCPU, index)
                closing.callback(os.close, fd)
                run = mmap.mmap(fd, run_size)
                closing.callback(run.close)
                kvm_abi.call(fd, kvm_abi.SET_CPUID2, bytearray(model))
                vcpus.append(KvmVcpu(index, fd, run, self._memory))
            self._closing = closing.pop_all()
        self.vcpus = tuple(vcpus)

    def _attach_memory(self, length: int) -> None:
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        region = kvm_abi.USER_MEMORY_REGION.pack(0, 0, 0, length, address)
        kvm_abi.call(self._fd, kvm_abi.SET_USER_MEMORY_REGION, bytearray(region))

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
        self._attach_memory(0)

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
