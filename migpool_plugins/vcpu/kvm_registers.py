"""The sets of registers that KVM keeps for a vCPU, as a table: what migrates, and in which order it is loaded.

A set more is an entry more. Each is read and written as the kernel's own structure, whole, and has a name for every
value in it except those that are reserved.

The order of loading is the order of the table, for these reasons:

1. ``sregs`` first: EFER, CR0 and CR4 decide what the kernel accepts in all that follows.
2. ``regs``: writing them drops a pending exception, so ``vcpu_events`` must come later.
3. ``xcrs`` before ``xsave``: XCR0 says which components of the area are the guest's.
4. ``msrs``: the time stamp counter is among them, so the guest's clock stands still during the downtime and goes on.
5. ``mp_state`` before ``vcpu_events``: a vCPU that is told to wait for its start would forget its events.
6. ``debugregs`` last: DR6 and DR7 are written by a pending debug exception too.

There is no local APIC in the table, since these VMs have no interrupt controller in the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_abi
from migpool_plugins.vcpu.backend import RegisterFormat
from migpool_plugins.vcpu.kvm_abi import Request

MSRS: Final = {
    "tsc": 0x10,
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
    "pat": 0x277,
    "star": 0xC0000081,
    "lstar": 0xC0000082,
    "cstar": 0xC0000083,
    "syscall_mask": 0xC0000084,
    "kernel_gs_base": 0xC0000102,
}

_MSR_FORMAT: Final = RegisterFormat(
    "msrs",
    Struct(kvm_abi.MSRS_HEAD.format + kvm_abi.MSR_ENTRY.format[1:] * len(MSRS)),
    ("nmsrs", *(field for name in MSRS for field in (f"{name}_index", name))),
)
_MSR_QUESTION: Final = _MSR_FORMAT.struct.pack(len(MSRS), *(part for index in MSRS.values() for part in (index, 0)))
_TSC_DATA: Final = slice(kvm_abi.MSRS_HEAD.size + 8, kvm_abi.MSRS_HEAD.size + 16)
# MXCSR_MASK is a constant of the processor, not a register.
_XSAVE_MXCSR_MASK: Final = slice(28, 32)
# Bytes 464 to 511 of the legacy area belong to software; the kernel may leave a note of its own there.
_XSAVE_SOFTWARE: Final = slice(464, 512)


def _blank(*parts: slice) -> Callable[[bytes], bytes]:
    def blank(data: bytes) -> bytes:
        copy = bytearray(data)
        for part in parts:
            copy[part] = bytes(part.stop - part.start)
        return bytes(copy)

    return blank


@dataclass(frozen=True, slots=True)
class RegisterSet:
    """One pair of ioctls.

    Arguments:
        format: of the kernel's structure.
        get: reads it from a vCPU.
        put: writes it.
        question: what the structure holds when it is to be read; zeros if empty.
        answer: what ``get`` and ``put`` return when they have done all they were asked.
        comparable: takes out what may differ between a write and the next read.
    """

    format: RegisterFormat
    get: Request
    put: Request
    question: bytes = b""
    answer: int = 0
    comparable: Callable[[bytes], bytes] = bytes

    @property
    def name(self) -> str:
        """Of the set."""
        return self.format.name


_SREGS: Final = RegisterFormat("sregs", kvm_abi.SREGS, kvm_abi.SREGS_FIELDS)
_REGS: Final = RegisterFormat("regs", kvm_abi.REGS, kvm_abi.REGS_FIELDS)
_XCRS: Final = RegisterFormat("xcrs", kvm_abi.XCRS, kvm_abi.XCRS_FIELDS)
_XSAVE: Final = RegisterFormat("xsave", kvm_abi.XSAVE, ("region",))
_MP_STATE: Final = RegisterFormat("mp_state", kvm_abi.MP_STATE, ("mp_state",))
_EVENTS: Final = RegisterFormat("vcpu_events", kvm_abi.VCPU_EVENTS, kvm_abi.VCPU_EVENTS_FIELDS)
_DEBUG: Final = RegisterFormat("debugregs", kvm_abi.DEBUGREGS, kvm_abi.DEBUGREGS_FIELDS)

REGISTER_SETS: Final = (
    RegisterSet(_SREGS, kvm_abi.GET_SREGS, kvm_abi.SET_SREGS),
    RegisterSet(_REGS, kvm_abi.GET_REGS, kvm_abi.SET_REGS),
    RegisterSet(_XCRS, kvm_abi.GET_XCRS, kvm_abi.SET_XCRS),
    RegisterSet(_XSAVE, kvm_abi.GET_XSAVE, kvm_abi.SET_XSAVE, comparable=_blank(_XSAVE_MXCSR_MASK, _XSAVE_SOFTWARE)),
    RegisterSet(
        _MSR_FORMAT, kvm_abi.GET_MSRS, kvm_abi.SET_MSRS, _MSR_QUESTION, len(MSRS), comparable=_blank(_TSC_DATA)
    ),
    RegisterSet(_MP_STATE, kvm_abi.GET_MP_STATE, kvm_abi.SET_MP_STATE),
    RegisterSet(_EVENTS, kvm_abi.GET_VCPU_EVENTS, kvm_abi.SET_VCPU_EVENTS),
    RegisterSet(_DEBUG, kvm_abi.GET_DEBUGREGS, kvm_abi.SET_DEBUGREGS),
)
# The other sets must be read after mp_state: reading that one lets the kernel act on a pending INIT or SIPI.
_READING_ORDER: Final = tuple(sorted(REGISTER_SETS, key=lambda entry: entry.name != "mp_state"))

LAYOUT: Final = tuple(entry.format for entry in REGISTER_SETS)

REQUIRED_CAPABILITIES: Final = {
    "KVM_CAP_USER_MEMORY": kvm_abi.CAP_USER_MEMORY,
    "KVM_CAP_MP_STATE": kvm_abi.CAP_MP_STATE,
    "KVM_CAP_VCPU_EVENTS": kvm_abi.CAP_VCPU_EVENTS,
    "KVM_CAP_DEBUGREGS": kvm_abi.CAP_DEBUGREGS,
    "KVM_CAP_XSAVE": kvm_abi.CAP_XSAVE,
    "KVM_CAP_XCRS": kvm_abi.CAP_XCRS,
    "KVM_CAP_IMMEDIATE_EXIT": kvm_abi.CAP_IMMEDIATE_EXIT,
}


def read_registers(vcpu: int) -> dict[str, bytes]:
    """Read every set of the table from a vCPU that does not run; any thread will do.

    The kernel takes these ioctls from any thread, but makes one wait that comes while another thread is in KVM_RUN, and
    asks that one thread keep to one vCPU for speed: the first ioctl from a new thread pays for moving the vCPU's state
    between processors.

    Arguments:
        vcpu: its descriptor.
    """
    found: dict[str, bytes] = {}
    for entry in _READING_ORDER:
        buffer = bytearray(entry.question or entry.format.struct.size)
        if kvm_abi.call(vcpu, entry.get, buffer) != entry.answer:
            raise DeviceError(f"{entry.get.name} read only part of the set: this host's KVM lacks one of its registers")
        found[entry.name] = bytes(buffer)
    return found


def write_registers(vcpu: int, registers: Mapping[str, bytes]) -> None:
    """Load every set of the table into a vCPU, in the table's order.

    Arguments:
        vcpu: its descriptor.
        registers: by name, each as long as the kernel's structure.

    Raises:
        DeviceError: the kernel refused a value; the message names the ioctl.
    """
    for entry in REGISTER_SETS:
        if kvm_abi.call(vcpu, entry.put, bytearray(registers[entry.name])) != entry.answer:
            raise DeviceError(f"{entry.put.name} took only part of the set: this host's KVM lacks one of its registers")
