"""A VM of KVM: guest memory, vCPUs, and the exits of KVM_RUN. Plain ioctls, nothing between this and the kernel.

The guest leaves by itself after each batch, by writing to its doorbell, so no signal is needed to stop a vCPU: its
thread looks for a wish to stop between two batches. A guest gone astray is brought out by taking its memory away.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from struct import Struct
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.ioctl import ioctl_once
from migpool_plugins.vcpu import kvm_abi, program
from migpool_plugins.vcpu.cpu_model import CpuChoice, cpu_model, first_xcr0, special_registers, write_page_tables
from migpool_plugins.vcpu.kvm_board import board_parts
from migpool_plugins.vcpu.kvm_host import add_dirty_rings, check_kvm, equip
from migpool_plugins.vcpu.kvm_msrs import listed_msrs, named, usable_msrs
from migpool_plugins.vcpu.kvm_part import Part, Parts
from migpool_plugins.vcpu.kvm_vcpu_parts import READ_FIRST, vcpu_parts
from migpool_plugins.vcpu.state import PAGE, Sets

DEVICE_NODE: Final = "/dev/kvm"
_TSS_ADDRESS: Final = 0x7FFF0000
"""Three pages below 4 GiB, without guest memory, that Intel hosts need to run real mode."""
OWN_MEMORY: Final = 0x200000
"""Guest-physical addresses below this are the machine's own: page tables, program, the vCPUs' pages, doorbell."""
_RING_OFFSET: Final = kvm_abi.DIRTY_LOG_PAGE_OFFSET * mmap.PAGESIZE
_EXIT_REASON: Final = Struct("<I")
_REGISTER: Final = Struct("<Q")
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


class _Page(Part):
    """A vCPU's own page, which is memory of this process too."""

    def __init__(self, memory: mmap.mmap, index: int) -> None:
        super().__init__(PAGE.name, [PAGE])
        begin = program.page_address(index)
        self._memory = memory
        self._place = slice(begin, begin + program.PAGE_SIZE)

    def read(self, fd: int) -> dict[str, bytes]:
        del fd
        return {self.name: self._memory[self._place]}

    def write(self, fd: int, sets: Sets) -> Sequence[str]:
        del fd
        self._memory[self._place] = sets[self.name]
        return ()


class KvmVcpu(Parts):
    """One vCPU of a :class:`KvmMachine`; see :class:`~migpool_plugins.vcpu.backend.VirtualCpu`.

    Attributes:
        ring: where the kernel names the pages that it writes, if the machine was made with rings.
        empty_ring: called on the vCPU's thread, in the middle of a batch, when the ring is full; must make room in it.
    """

    def __init__(
        self,
        index: int,
        fd: int,
        run: mmap.mmap,
        memory: mmap.mmap,
        parts: Sequence[Part],
        xcr0: int,
        ring: mmap.mmap | None,
    ) -> None:
        super().__init__(fd, (*parts, _Page(memory, index)), READ_FIRST)
        self.index = index
        self.ring = ring
        self.empty_ring: Callable[[], None] = _nobody_empties
        self._run = run
        self._xcr0 = xcr0

    def boot(self, registers: Mapping[str, int]) -> None:
        found = self.save()
        found["sregs"] = special_registers(found["sregs"], program.PAGE_TABLES, xsave=bool(self._xcr0))
        found["regs"] = kvm_abi.REGS.pack(*(registers.get(name, 0) for name in kvm_abi.REGS_FIELDS))
        if self._xcr0:
            found["xcrs"] = kvm_abi.XCRS.pack(1, 0, 0, self._xcr0, *[0] * 30)
        if "mp_state" in found:
            # With a local APIC every vCPU but the first would wait for a start signal.
            found["mp_state"] = kvm_abi.MP_STATE.pack(kvm_abi.MP_STATE_RUNNABLE)
        self.load(found)

    def run_batch(self) -> None:
        while not self._enter() or self._ring_was_full():
            # A signal came to this thread, or the ring is empty again. The guest must go on to its doorbell: only there
            # do its registers agree.
            pass
        reason = self._exit_reason()
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
            ioctl_once(self.fd, kvm_abi.RUN.number)
        except InterruptedError:
            return False
        except OSError as error:
            raise DeviceError(f"KVM_RUN failed: {error.strerror}") from error
        return True

    def _exit_reason(self) -> int:
        (reason,) = _EXIT_REASON.unpack_from(self._run, kvm_abi.RUN_EXIT_REASON)
        return int(reason)

    def _ring_was_full(self) -> bool:
        if self._exit_reason() != kvm_abi.EXIT_DIRTY_RING_FULL:
            return False
        self.empty_ring()
        return True

    def put(self, name: str, value: int) -> None:
        general = bytearray(kvm_abi.REGS.size)
        kvm_abi.call(self.fd, kvm_abi.GET_REGS, general)
        _REGISTER.pack_into(general, 8 * kvm_abi.REGS_FIELDS.index(name), value)
        kvm_abi.call(self.fd, kvm_abi.SET_REGS, general)


class KvmMachine:
    """A VM with ``count`` vCPUs; see :class:`~migpool_plugins.vcpu.backend.VcpuMachine`.

    Arguments:
        count: how many vCPUs, 1 to 256.
        regions: more guest memory, given from outside, from the end of :data:`OWN_MEMORY` on; the page tables map
            the first GiB. Region n has the memory slot n + 1.
        cpu: which CPU the guest sees.
        ring: bytes of each vCPU's dirty ring, a power of two; 0 for none, and the slots have a dirty bitmap.

    Raises:
        DeviceError: /dev/kvm cannot be opened or cannot do what is needed; the message says what.

    Attributes:
        fd: the VM's descriptor, for what else its memory slots can be asked (the dirty log, for one).
    """

    name = "KVM"
    way_out = program.OUT_BY_DOORBELL
    batch = 1 << 18

    def __init__(
        self, count: int, regions: Sequence[MemoryRegion] = (), cpu: CpuChoice = "small", ring: int = 0
    ) -> None:
        with ExitStack() as owned:
            kvm = _open_kvm()
            owned.callback(os.close, kvm)
            check_kvm(kvm, count)
            model = cpu_model(kvm, cpu)
            run_size = kvm_abi.call(kvm, kvm_abi.GET_VCPU_MMAP_SIZE)
            closing = owned.enter_context(ExitStack())
            # The memory is unmapped only after the descriptors are closed: until then the kernel may still touch it.
            self._memory = mmap.mmap(-1, program.page_address(count))
            closing.callback(self._memory.close)
            self.fd = kvm_abi.call(kvm, kvm_abi.CREATE_VM)
            closing.callback(os.close, self.fd)
            kvm_abi.call(self.fd, kvm_abi.SET_TSS_ADDR, _TSS_ADDRESS)
            host = equip(kvm, self.fd)
            if ring:
                add_dirty_rings(self.fd, ring)
            code = program.program_bytes()
            self._memory[program.CODE : program.CODE + len(code)] = code
            write_page_tables(self._memory, program.PAGE_TABLES)
            self._own = MemoryRegion(ctypes.addressof(ctypes.c_char.from_buffer(self._memory)), 0, len(self._memory))
            self._expelled = False
            for slot, region in enumerate((self._own, *regions)):
                if slot and region.guest_address < OWN_MEMORY:
                    raise DeviceError(f"guest memory at {region.guest_address:#x} lies in the machine's own 2 MiB")
                self.attach(slot, region)
            listed = listed_msrs(kvm)
            refused: list[int] = []
            parts: Sequence[Part] = ()
            vcpus: list[KvmVcpu] = []
            for index in range(count):
                fd = kvm_abi.call(self.fd, kvm_abi.CREATE_VCPU, index)
                closing.callback(os.close, fd)
                run = mmap.mmap(fd, run_size)
                closing.callback(run.close)
                mapped = mmap.mmap(fd, ring, offset=_RING_OFFSET) if ring else None
                if mapped is not None:
                    closing.callback(mapped.close)
                kvm_abi.call(fd, kvm_abi.SET_CPUID2, bytearray(model))
                if not parts:
                    usable, refused = usable_msrs(fd, listed)
                    parts = vcpu_parts(host, usable)
                vcpus.append(KvmVcpu(index, fd, run, self._memory, parts, first_xcr0(cpu), mapped))
            self._closing = closing.pop_all()
        self.vcpus = tuple(vcpus)
        self.kind = {"small": "KVM", "avx": "KVM-AVX"}[cpu]
        self.board = Parts(self.fd, board_parts(host))
        self.lacks: Sequence[str] = (*host.lacks, *([f"MSRs {named(refused)}"] if refused else []))

    def attach(self, slot: int, region: MemoryRegion) -> None:
        """Put a region into a memory slot: a new one, one with other flags, or one of size 0, which takes it away.

        Slot 0 is the machine's own. Addresses and size must be as before if only the flags change.

        Raises:
            DeviceError: the kernel refused it.
        """
        packed = kvm_abi.USER_MEMORY_REGION.pack(
            slot, region.flags, region.guest_address, region.size, region.host_address
        )
        kvm_abi.call(self.fd, kvm_abi.SET_USER_MEMORY_REGION, bytearray(packed))

    def expel(self) -> None:
        # Without its page tables the guest can reach no other region either. The kernel refuses to take it away twice.
        if not self._expelled:
            self._expelled = True
            self.attach(0, replace(self._own, size=0))

    def close(self) -> None:
        self._closing.close()


def _nobody_empties() -> None:
    raise DeviceError("its dirty ring is full, and there is no log to empty it")


def _open_kvm() -> int:
    try:
        return os.open(DEVICE_NODE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DeviceError(f"{DEVICE_NODE} does not exist: load the kvm module, or use the Unicorn backend") from None
    except OSError as error:
        raise DeviceError(
            f"{DEVICE_NODE} cannot be opened ({error.strerror}): join the kvm group, or use the Unicorn backend"
        ) from error
