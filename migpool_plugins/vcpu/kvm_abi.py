"""Numbers and structures of the KVM interface, written down from the kernel's uAPI documentation.

Only what this plug-in calls stands here. Structures are ``struct`` formats (native x86-64 layout, little endian, every
pad written out), because an ioctl then needs one ``bytearray`` and no object per field. The tests compare every number
and size with the installed kernel headers.
"""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass
from struct import Struct
from typing import Final

from migpool.device import DeviceError

API_VERSION: Final = 12

_KVMIO: Final = 0xAE
_NONE, _WRITE, _READ = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Request:
    """One ioctl: its name in the kernel's headers, and its number."""

    name: str
    number: int


def _request(name: str, number: int, direction: int = _NONE, size: int = 0) -> Request:
    return Request(name, direction << 30 | size << 16 | _KVMIO << 8 | number)


# Structures ---------------------------------------------------------------------------------------------------------

REGS: Final = Struct("<18Q")
SEGMENT: Final = Struct("<QIH9Bx")
DTABLE: Final = Struct("<QH6x")
SREGS: Final = Struct("<" + SEGMENT.format[1:] * 8 + DTABLE.format[1:] * 2 + "7Q" + "4Q")
MSRS_HEAD: Final = Struct("<I4x")
MSR_ENTRY: Final = Struct("<I4xQ")
MP_STATE: Final = Struct("<I")
VCPU_EVENTS: Final = Struct("<4BI4B4BII4BB26xBQ")
DEBUGREGS: Final = Struct("<7Q72x")
XCRS: Final = Struct("<II" + "I4xQ" * 16 + "128x")
XSAVE: Final = Struct("4096s")
USER_MEMORY_REGION: Final = Struct("<IIQQQ")
DIRTY_LOG: Final = Struct("<I4xQ")
CLEAR_LOG: Final = Struct("<IIQQ")
CAPABILITY: Final = Struct("<II4Q64x")
CPUID_HEAD: Final = Struct("<I4x")
CPUID_ENTRY: Final = Struct("<7I12x")
MSR_LIST_HEAD: Final = Struct("<I")

# The names of the values in each structure, in its order.
REGS_FIELDS: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)
SEGMENT_FIELDS: Final = (
    *("base", "limit", "selector", "type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable"),
)
SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
CONTROL_FIELDS: Final = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")
SREGS_FIELDS: Final = (
    *(f"{segment}_{field}" for segment in SEGMENTS for field in SEGMENT_FIELDS),
    *("gdt_base", "gdt_limit", "idt_base", "idt_limit"),
    *CONTROL_FIELDS,
    *(f"interrupt_bitmap_{word}" for word in range(4)),
)
VCPU_EVENTS_FIELDS: Final = (
    *(f"exception_{field}" for field in ("injected", "nr", "has_error_code", "pending", "error_code")),
    *(f"interrupt_{field}" for field in ("injected", "nr", "soft", "shadow")),
    *(f"nmi_{field}" for field in ("injected", "pending", "masked", "pad")),
    *("sipi_vector", "flags"),
    *(f"smi_{field}" for field in ("smm", "pending", "smm_inside_nmi", "latched_init")),
    *("triple_fault_pending", "exception_has_payload", "exception_payload"),
)
DEBUGREGS_FIELDS: Final = ("db0", "db1", "db2", "db3", "dr6", "dr7", "flags")
XCRS_FIELDS: Final = (
    *("nr_xcrs", "flags"),
    *(f"{field}_{number}" for number in range(16) for field in ("xcr", "value")),
)

MEM_LOG_DIRTY_PAGES: Final = 1 << 0
"""A flag of a memory region."""

# struct kvm_run lies in memory that is shared with the kernel, so its few fields of interest are used in place.
RUN_IMMEDIATE_EXIT: Final = 1
RUN_EXIT_REASON: Final = 8
RUN_MMIO: Final = 32
RUN_MMIO_FIELDS: Final = Struct("<Q8sIB")
EXIT_MMIO: Final = 6
EXIT_REASONS: Final = {
    0: "unknown",
    1: "exception",
    2: "port I/O",
    3: "hypercall",
    4: "debug",
    5: "halt",
    6: "memory-mapped I/O",
    7: "interrupt window open",
    8: "shutdown (triple fault)",
    9: "failed entry",
    10: "interrupted",
    17: "internal error",
}

# Requests -----------------------------------------------------------------------------------------------------------

GET_API_VERSION: Final = _request("KVM_GET_API_VERSION", 0x00)
CREATE_VM: Final = _request("KVM_CREATE_VM", 0x01)
GET_MSR_INDEX_LIST: Final = _request("KVM_GET_MSR_INDEX_LIST", 0x02, _READ | _WRITE, MSR_LIST_HEAD.size)
CHECK_EXTENSION: Final = _request("KVM_CHECK_EXTENSION", 0x03)
GET_VCPU_MMAP_SIZE: Final = _request("KVM_GET_VCPU_MMAP_SIZE", 0x04)
GET_SUPPORTED_CPUID: Final = _request("KVM_GET_SUPPORTED_CPUID", 0x05, _READ | _WRITE, CPUID_HEAD.size)
CREATE_VCPU: Final = _request("KVM_CREATE_VCPU", 0x41)
SET_USER_MEMORY_REGION: Final = _request("KVM_SET_USER_MEMORY_REGION", 0x46, _WRITE, USER_MEMORY_REGION.size)
SET_TSS_ADDR: Final = _request("KVM_SET_TSS_ADDR", 0x47)
RUN: Final = _request("KVM_RUN", 0x80)
GET_DIRTY_LOG: Final = _request("KVM_GET_DIRTY_LOG", 0x42, _WRITE, DIRTY_LOG.size)
CLEAR_DIRTY_LOG: Final = _request("KVM_CLEAR_DIRTY_LOG", 0xC0, _READ | _WRITE, CLEAR_LOG.size)
ENABLE_CAP: Final = _request("KVM_ENABLE_CAP", 0xA3, _WRITE, CAPABILITY.size)
GET_REGS: Final = _request("KVM_GET_REGS", 0x81, _READ, REGS.size)
SET_REGS: Final = _request("KVM_SET_REGS", 0x82, _WRITE, REGS.size)
GET_SREGS: Final = _request("KVM_GET_SREGS", 0x83, _READ, SREGS.size)
SET_SREGS: Final = _request("KVM_SET_SREGS", 0x84, _WRITE, SREGS.size)
GET_MSRS: Final = _request("KVM_GET_MSRS", 0x88, _READ | _WRITE, MSRS_HEAD.size)
SET_MSRS: Final = _request("KVM_SET_MSRS", 0x89, _WRITE, MSRS_HEAD.size)
SET_CPUID2: Final = _request("KVM_SET_CPUID2", 0x90, _WRITE, CPUID_HEAD.size)
GET_MP_STATE: Final = _request("KVM_GET_MP_STATE", 0x98, _READ, MP_STATE.size)
SET_MP_STATE: Final = _request("KVM_SET_MP_STATE", 0x99, _WRITE, MP_STATE.size)
GET_VCPU_EVENTS: Final = _request("KVM_GET_VCPU_EVENTS", 0x9F, _READ, VCPU_EVENTS.size)
SET_VCPU_EVENTS: Final = _request("KVM_SET_VCPU_EVENTS", 0xA0, _WRITE, VCPU_EVENTS.size)
GET_DEBUGREGS: Final = _request("KVM_GET_DEBUGREGS", 0xA1, _READ, DEBUGREGS.size)
SET_DEBUGREGS: Final = _request("KVM_SET_DEBUGREGS", 0xA2, _WRITE, DEBUGREGS.size)
GET_XSAVE: Final = _request("KVM_GET_XSAVE", 0xA4, _READ, XSAVE.size)
SET_XSAVE: Final = _request("KVM_SET_XSAVE", 0xA5, _WRITE, XSAVE.size)
GET_XCRS: Final = _request("KVM_GET_XCRS", 0xA6, _READ, XCRS.size)
SET_XCRS: Final = _request("KVM_SET_XCRS", 0xA7, _WRITE, XCRS.size)

CAP_USER_MEMORY: Final = 3
CAP_NR_VCPUS: Final = 9
CAP_MP_STATE: Final = 14
CAP_VCPU_EVENTS: Final = 41
CAP_DEBUGREGS: Final = 50
CAP_XSAVE: Final = 55
CAP_XCRS: Final = 56
CAP_MAX_VCPUS: Final = 66
CAP_IMMEDIATE_EXIT: Final = 136
CAP_MANUAL_DIRTY_LOG_PROTECT2: Final = 168


def call(fd: int, request: Request, argument: int | bytearray = 0) -> int:
    """Make one ioctl on a KVM descriptor.

    Arguments:
        fd: of /dev/kvm, of a VM or of a vCPU.
        request: which.
        argument: a number, or a ``bytearray`` that the kernel reads or fills.

    Returns:
        What the ioctl returned.

    Raises:
        DeviceError: the kernel refused; the message names the ioctl and the errno.
    """
    try:
        return fcntl.ioctl(fd, request.number, argument)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise DeviceError(f"{request.name} failed with {code}: {os.strerror(error.errno or 0)}") from error
