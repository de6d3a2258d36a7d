"""Numbers and structures of the KVM interface, written down from the kernel's uAPI documentation.

Only what this plug-in calls stands here. Structures are ``struct`` formats (native x86-64 layout, little endian, every
pad written out), because an ioctl then needs one ``bytearray`` and no object per field. The tests compare every number
and size with the installed kernel headers.
"""

from __future__ import annotations

import errno
import os
from struct import Struct
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.ioctl import Request, ioctl

API_VERSION: Final = 12

_KVMIO: Final = 0xAE
_NONE, _WRITE, _READ = 0, 1, 2


def _request(name: str, number: int, direction: int = _NONE, size: int = 0) -> Request:
    return Request(name, direction << 30 | size << 16 | _KVMIO << 8 | number)


def _pair(name: str, get: int, put: int, form: Struct) -> tuple[Request, Request]:
    """The requests that read a structure and write it."""
    return _request(f"KVM_GET_{name}", get, _READ, form.size), _request(f"KVM_SET_{name}", put, _WRITE, form.size)


# Structures ---------------------------------------------------------------------------------------------------------

REGS: Final = Struct("<18Q")
SEGMENT: Final = Struct("<QIH9Bx")
DTABLE: Final = Struct("<QH6x")
SREGS_BASE: Final = Struct("<" + SEGMENT.format[1:] * 8 + DTABLE.format[1:] * 2 + "7Q")
"""What ``kvm_sregs`` and ``kvm_sregs2`` begin with."""
SREGS: Final = Struct(SREGS_BASE.format + "4Q")
SREGS2: Final = Struct(SREGS_BASE.format + "5Q")
FPU: Final = Struct("<128sHHBxHQQ256sI4x")
MSRS_HEAD: Final = Struct("<I4x")
MSR_ENTRY: Final = Struct("<I4xQ")
MP_STATE: Final = Struct("<I")
VCPU_EVENTS: Final = Struct("<4BI4B4BII4BB26xBQ")
DEBUGREGS: Final = Struct("<7Q72x")
XCRS: Final = Struct("<II" + "I4xQ" * 16 + "128x")
XSAVE: Final = Struct("4096s")
LAPIC: Final = Struct("<" + "I12x" * 64)
IRQCHIP_HEAD: Final = Struct("<I4x")
PIC: Final = Struct("<16B")
IOAPIC: Final = Struct("<QIII4x24Q")
IRQCHIP: Final = Struct(IRQCHIP_HEAD.format + "512s")
PIT_CHANNEL: Final = Struct("<IH10Bq")
PIT2: Final = Struct("<" + PIT_CHANNEL.format[1:] * 3 + "I36x")
PIT_CONFIG: Final = Struct("<I60x")
CLOCK: Final = Struct("<QI4xQQ16x")
ENABLE_CAP: Final = Struct("<II4Q64x")
USER_MEMORY_REGION: Final = Struct("<IIQQQ")
DIRTY_LOG: Final = Struct("<I4xQ")
CLEAR_LOG: Final = Struct("<IIQQ")
DIRTY_GFN: Final = Struct("<IIQ")
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
PIC_FIELDS: Final = (
    *("last_irr", "irr", "imr", "isr", "priority_add", "irq_base", "read_reg_select", "poll", "special_mask"),
    *("init_state", "auto_eoi", "rotate_on_auto_eoi", "special_fully_nested_mode", "init4", "elcr", "elcr_mask"),
)
IOAPIC_FIELDS: Final = (*("base_address", "ioregsel", "id", "irr"), *(f"redirection_{pin}" for pin in range(24)))
PIT_CHANNEL_FIELDS: Final = (
    *("count", "latched_count", "count_latched", "status_latched", "status", "read_state", "write_state"),
    *("write_latch", "rw_mode", "mode", "bcd", "gate", "count_load_time"),
)
PIT2_FIELDS: Final = (*(f"channel{number}_{field}" for number in range(3) for field in PIT_CHANNEL_FIELDS), "flags")
DIRTY_GFN_FIELDS: Final = ("flags", "slot", "offset")

_LAPIC_NAMES: Final = dict(
    (
        *((0x020, "id"), (0x030, "version"), (0x080, "tpr"), (0x090, "apr"), (0x0A0, "ppr"), (0x0B0, "eoi")),
        *((0x0D0, "ldr"), (0x0E0, "dfr"), (0x0F0, "svr"), (0x280, "esr"), (0x300, "icr_low"), (0x310, "icr_high")),
        *((0x2F0, "lvt_cmci"), (0x320, "lvt_timer"), (0x330, "lvt_thermal"), (0x340, "lvt_performance")),
        *((0x350, "lvt_lint0"), (0x360, "lvt_lint1"), (0x370, "lvt_error"), (0x380, "initial_count")),
        *((0x390, "current_count"), (0x3E0, "divide_configuration")),
        *((0x100 + 16 * n, f"isr{n}") for n in range(8)),
        *((0x180 + 16 * n, f"tmr{n}") for n in range(8)),
        *((0x200 + 16 * n, f"irr{n}") for n in range(8)),
    )
)
LAPIC_FIELDS: Final = tuple(_LAPIC_NAMES.get(at, f"reserved_{at:03x}") for at in range(0, 0x400, 16))
"""The local APIC's registers stand 16 bytes apart, at the offsets that they have in its page."""

MEM_LOG_DIRTY_PAGES: Final = 1 << 0
"""A flag of a memory region."""
DIRTY_LOG_PAGE_OFFSET: Final = 64
"""Where a vCPU's dirty ring lies in what its descriptor maps, in pages; on x86."""
DIRTY_GFN_F_DIRTY: Final = 1 << 0
DIRTY_GFN_F_RESET: Final = 1 << 1

# struct kvm_run lies in memory that is shared with the kernel, so its few fields of interest are used in place.
RUN_IMMEDIATE_EXIT: Final = 1
RUN_EXIT_REASON: Final = 8
RUN_MMIO: Final = 32
RUN_MMIO_FIELDS: Final = Struct("<Q8sIB")
EXIT_MMIO: Final = 6
EXIT_DIRTY_RING_FULL: Final = 31
EXIT_REASONS: Final = dict(
    (
        *((0, "unknown"), (1, "exception"), (2, "port I/O"), (3, "hypercall"), (4, "debug"), (5, "halt")),
        *((6, "memory-mapped I/O"), (7, "interrupt window open"), (8, "shutdown (triple fault)"), (9, "failed entry")),
        *((10, "interrupted"), (17, "internal error"), (31, "dirty ring full")),
    )
)

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
CREATE_IRQCHIP: Final = _request("KVM_CREATE_IRQCHIP", 0x60)
GET_IRQCHIP: Final = _request("KVM_GET_IRQCHIP", 0x62, _READ | _WRITE, IRQCHIP.size)
# The kernel's headers have this one as a read, though it writes.
SET_IRQCHIP: Final = _request("KVM_SET_IRQCHIP", 0x63, _READ, IRQCHIP.size)
CREATE_PIT2: Final = _request("KVM_CREATE_PIT2", 0x77, _WRITE, PIT_CONFIG.size)
GET_CLOCK, SET_CLOCK = _pair("CLOCK", 0x7C, 0x7B, CLOCK)
RUN: Final = _request("KVM_RUN", 0x80)
GET_DIRTY_LOG: Final = _request("KVM_GET_DIRTY_LOG", 0x42, _WRITE, DIRTY_LOG.size)
CLEAR_DIRTY_LOG: Final = _request("KVM_CLEAR_DIRTY_LOG", 0xC0, _READ | _WRITE, CLEAR_LOG.size)
RESET_DIRTY_RINGS: Final = _request("KVM_RESET_DIRTY_RINGS", 0xC7)
GET_REGS, SET_REGS = _pair("REGS", 0x81, 0x82, REGS)
GET_SREGS, SET_SREGS = _pair("SREGS", 0x83, 0x84, SREGS)
GET_MSRS: Final = _request("KVM_GET_MSRS", 0x88, _READ | _WRITE, MSRS_HEAD.size)
SET_MSRS: Final = _request("KVM_SET_MSRS", 0x89, _WRITE, MSRS_HEAD.size)
GET_FPU, SET_FPU = _pair("FPU", 0x8C, 0x8D, FPU)
GET_LAPIC, SET_LAPIC = _pair("LAPIC", 0x8E, 0x8F, LAPIC)
SET_CPUID2: Final = _request("KVM_SET_CPUID2", 0x90, _WRITE, CPUID_HEAD.size)
GET_MP_STATE, SET_MP_STATE = _pair("MP_STATE", 0x98, 0x99, MP_STATE)
GET_VCPU_EVENTS, SET_VCPU_EVENTS = _pair("VCPU_EVENTS", 0x9F, 0xA0, VCPU_EVENTS)
GET_PIT2, SET_PIT2 = _pair("PIT2", 0x9F, 0xA0, PIT2)
GET_DEBUGREGS, SET_DEBUGREGS = _pair("DEBUGREGS", 0xA1, 0xA2, DEBUGREGS)
SET_TSC_KHZ: Final = _request("KVM_SET_TSC_KHZ", 0xA2)
GET_TSC_KHZ: Final = _request("KVM_GET_TSC_KHZ", 0xA3)
ENABLE_CAPABILITY: Final = _request("KVM_ENABLE_CAP", 0xA3, _WRITE, ENABLE_CAP.size)
GET_XSAVE, SET_XSAVE = _pair("XSAVE", 0xA4, 0xA5, XSAVE)
GET_XCRS, SET_XCRS = _pair("XCRS", 0xA6, 0xA7, XCRS)
GET_SREGS2, SET_SREGS2 = _pair("SREGS2", 0xCC, 0xCD, SREGS2)
GET_XSAVE2: Final = _request("KVM_GET_XSAVE2", 0xCF, _READ, XSAVE.size)


CAPABILITIES: Final = {
    "KVM_CAP_IRQCHIP": 0,
    "KVM_CAP_USER_MEMORY": 3,
    "KVM_CAP_MP_STATE": 14,
    "KVM_CAP_PIT2": 33,
    "KVM_CAP_PIT_STATE2": 35,
    "KVM_CAP_ADJUST_CLOCK": 39,
    "KVM_CAP_VCPU_EVENTS": 41,
    "KVM_CAP_DEBUGREGS": 50,
    "KVM_CAP_XSAVE": 55,
    "KVM_CAP_XCRS": 56,
    "KVM_CAP_GET_TSC_KHZ": 61,
    "KVM_CAP_MAX_VCPUS": 66,
    "KVM_CAP_CHECK_EXTENSION_VM": 105,
    "KVM_CAP_IMMEDIATE_EXIT": 136,
    "KVM_CAP_EXCEPTION_PAYLOAD": 164,
    "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2": 168,
    "KVM_CAP_DIRTY_LOG_RING": 192,
    "KVM_CAP_SREGS2": 200,
    "KVM_CAP_XSAVE2": 208,
    "KVM_CAP_X86_TRIPLE_FAULT_EVENT": 218,
}

IRQCHIP_PIC_MASTER: Final = 0
IRQCHIP_PIC_SLAVE: Final = 1
IRQCHIP_IOAPIC: Final = 2
MP_STATE_RUNNABLE: Final = 0
VCPUEVENT_VALID_PAYLOAD: Final = 0x10
VCPUEVENT_VALID_TRIPLE_FAULT: Final = 0x20


def call(fd: int, request: Request, argument: int | bytearray = 0) -> int:
    """Make one ioctl on the descriptor of /dev/kvm, of a VM or of a vCPU, and return what it returned.

    Arguments:
        argument: a number, or a ``bytearray`` that the kernel reads or fills.

    Raises:
        DeviceError: the kernel refused; the message names the ioctl and the errno.
    """
    try:
        return ioctl(fd, request.number, argument)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise DeviceError(f"{request.name} failed with {code}: {os.strerror(error.errno or 0)}") from error


def extension(fd: int, capability: str) -> int:
    """Ask what a host, or a VM, has of a capability; 0: nothing."""
    return call(fd, CHECK_EXTENSION, CAPABILITIES[capability])


def enable(vm: int, capability: str, argument: int) -> None:
    """Turn a capability of a VM on."""
    call(vm, ENABLE_CAPABILITY, bytearray(ENABLE_CAP.pack(CAPABILITIES[capability], 0, argument, 0, 0, 0)))
