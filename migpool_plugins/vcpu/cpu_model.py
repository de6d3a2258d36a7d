"""The CPU that the guest sees under KVM: a small x86-64 with SSE2, the same on every host, or that with AVX.

A vCPU that showed the guest everything the host's CPU has could only move to a host that has all of it. This one
shows the features that every 64-bit x86 CPU has, so that its state loads wherever KVM runs.

It begins in 64-bit user mode and needs no boot code, no descriptor tables and no interrupts: the segment registers are
loaded in their hidden parts directly, and 512 pages of 2 MiB map the first GiB, linear address = physical address.
"""

from __future__ import annotations

import mmap
from struct import pack_into
from typing import Final, Literal

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_abi

CpuChoice = Literal["small", "avx"]

_MAX_ENTRIES: Final = 256

# Leaf 1, EDX: FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP PGE CMOV PAT MMX FXSR SSE SSE2.
_FEATURES: Final = sum(1 << bit for bit in (0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 23, 24, 25, 26))
# Leaf 0x80000001, EDX: SYSCALL, NX, long mode.
_EXTENDED: Final = 1 << 11 | 1 << 20 | 1 << 29
# Leaf 1, ECX: TSC deadline, XSAVE, AVX.
_AVX_FEATURES: Final = 1 << 24 | 1 << 26 | 1 << 28
_XCR0_AVX: Final = 0b111
"""x87, SSE and AVX."""
_BY_INDEX: Final = 1
"""KVM_CPUID_FLAG_SIGNIFCANT_INDEX: the leaf has one entry for each value of ECX."""

_PRESENT_WRITABLE_USER: Final = 0x7
_LARGE_PAGE: Final = 0x80
_LARGE_PAGE_SIZE: Final = 2 << 20
_ENTRIES: Final = 512

_CR0: Final = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 31
"""PE, MP, ET, NE, PG."""
_CR4: Final = 1 << 5 | 1 << 9 | 1 << 10
"""PAE, OSFXSR, OSXMMEXCPT."""
_CR4_OSXSAVE: Final = 1 << 18
_EFER: Final = 1 << 8 | 1 << 10
"""LME, LMA."""

_USER: Final = 3
_CODE_SELECTOR: Final = 0x30 | _USER
_DATA_SELECTOR: Final = 0x28 | _USER
_CODE_TYPE: Final = 11
"""Execute, read, accessed."""
_DATA_TYPE: Final = 3
"""Read, write, accessed."""


def first_xcr0(cpu: CpuChoice) -> int:
    """Return the value of XCR0 with which the guest begins; 0 for a CPU without XSAVE."""
    return _XCR0_AVX if cpu == "avx" else 0


def cpu_model(kvm: int, cpu: CpuChoice = "small") -> bytes:
    """Return ``struct kvm_cpuid2`` for KVM_SET_CPUID2.

    Arguments:
        kvm: the descriptor of /dev/kvm. The host says its vendor, which decides between the few instructions that AMD
            and Intel do differently; the rest is fixed.
        cpu: "small", or "avx" for one that also has XSAVE, AVX and an APIC timer with a deadline.

    Raises:
        DeviceError: the host's CPU lacks something of the model.
    """
    buffer = bytearray(kvm_abi.CPUID_HEAD.size + _MAX_ENTRIES * kvm_abi.CPUID_ENTRY.size)
    kvm_abi.CPUID_HEAD.pack_into(buffer, 0, _MAX_ENTRIES)
    kvm_abi.call(kvm, kvm_abi.GET_SUPPORTED_CPUID, buffer)
    (count,) = kvm_abi.CPUID_HEAD.unpack_from(buffer)
    head, size = kvm_abi.CPUID_HEAD.size, kvm_abi.CPUID_ENTRY.size
    # Each entry: function, index, flags, eax, ebx, ecx, edx.
    host: dict[int, tuple[int, ...]] = {}
    for number in range(count):
        entry = kvm_abi.CPUID_ENTRY.unpack_from(buffer, head + number * size)
        host.setdefault(entry[0], entry)
    for leaf, wanted in ((1, _FEATURES), (0x80000001, _EXTENDED)):
        offered = host[leaf][6] if leaf in host else 0
        if wanted & ~offered:
            raise DeviceError(
                f"KVM on this host lacks CPUID leaf {leaf:#x} EDX bits {wanted & ~offered:#x}: use the Unicorn backend"
            )
    if cpu == "avx" and (0xD not in host or host[0xD][3] & _XCR0_AVX != _XCR0_AVX):
        # Leaf 1 is no witness: some hosts below another hypervisor leave XSAVE and AVX out there and yet have them.
        raise DeviceError('KVM on this host has no AVX (CPUID leaf 0xd): set cpu = "small"')
    xsave = (
        (0xD, 0, _BY_INDEX, _XCR0_AVX, 832, 832, 0),
        (0xD, 1, _BY_INDEX, 0, 0, 0, 0),
        (0xD, 2, _BY_INDEX, 256, 576, 0, 0),
    )
    entries = (
        (0, 0, 0, 0xD if cpu == "avx" else 1, *host[0][4:]),
        (1, 0, 0, host[1][3], 0, _AVX_FEATURES if cpu == "avx" else 0, _FEATURES),
        *(xsave if cpu == "avx" else ()),
        (0x80000000, 0, 0, 0x80000008, 0, 0, 0),
        (0x80000001, 0, 0, 0, 0, 0, _EXTENDED),
        # 36 bits of physical and 48 of linear address.
        (0x80000008, 0, 0, 48 << 8 | 36, 0, 0, 0),
    )
    return kvm_abi.CPUID_HEAD.pack(len(entries)) + b"".join(kvm_abi.CPUID_ENTRY.pack(*entry) for entry in entries)


def write_page_tables(memory: mmap.mmap | bytearray, address: int) -> None:
    """Write three page-aligned tables that map the first GiB onto itself, whether or not there is memory behind it."""
    pointers, directory = address + 0x1000, address + 0x2000
    pack_into("<Q", memory, address, pointers | _PRESENT_WRITABLE_USER)
    pack_into("<Q", memory, pointers, directory | _PRESENT_WRITABLE_USER)
    flags = _PRESENT_WRITABLE_USER | _LARGE_PAGE
    pack_into(f"<{_ENTRIES}Q", memory, directory, *(n * _LARGE_PAGE_SIZE | flags for n in range(_ENTRIES)))


def special_registers(reset: bytes, page_tables: int, *, xsave: bool = False) -> bytes:
    """Return the special registers (``struct kvm_sregs`` without its bitmap) for 64-bit user mode.

    Arguments:
        reset: the vCPU's own after its reset. What this does not set (TR, LDT, the descriptor tables,
            the APIC base, which differs between the first vCPU and the others) stays as it is there.
        page_tables: where :func:`write_page_tables` wrote.
        xsave: whether XCR0 is to decide what the guest's FPU has.
    """
    fields = list(kvm_abi.SREGS_BASE.unpack(reset))
    width = len(kvm_abi.SEGMENT_FIELDS)
    # base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable
    code = [0, 0xFFFFFFFF, _CODE_SELECTOR, _CODE_TYPE, 1, _USER, 0, 1, 1, 1, 0, 0]
    data = [0, 0xFFFFFFFF, _DATA_SELECTOR, _DATA_TYPE, 1, _USER, 1, 1, 0, 1, 0, 0]
    for position, name in enumerate(kvm_abi.SEGMENTS[:6]):
        fields[position * width : (position + 1) * width] = code if name == "cs" else data
    controls = len(kvm_abi.SEGMENTS) * width + 4
    new = {"cr0": _CR0, "cr3": page_tables, "cr4": _CR4 | (_CR4_OSXSAVE if xsave else 0), "efer": _EFER}
    for offset, name in enumerate(kvm_abi.CONTROL_FIELDS):
        fields[controls + offset] = new.get(name, fields[controls + offset])
    return kvm_abi.SREGS_BASE.pack(*fields)
