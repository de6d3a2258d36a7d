"""Puts an x86 CPU straight into 64-bit user mode: identity page tables in guest memory, and the special registers.

A guest that starts here needs no boot code, no descriptor tables and no interrupts: the segment registers are loaded
in their hidden parts directly, and 512 pages of 2 MiB map the first GiB, linear address = physical address.
"""

from __future__ import annotations

import mmap
from struct import pack_into
from typing import Final

from migpool_plugins.vcpu import kvm_abi

_PRESENT_WRITABLE_USER: Final = 0x7
_LARGE_PAGE: Final = 0x80

_LARGE_PAGE_SIZE: Final = 2 << 20
_ENTRIES: Final = 512

MAPPED: Final = _ENTRIES * _LARGE_PAGE_SIZE
"""How many bytes the page tables map, from address 0."""

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
