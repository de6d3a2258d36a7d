"""Payloads of iterable devices that are neither RAM nor records: they say themselves how long they are.

None of them has a description in the stream. All integers are big-endian; each function says how long the payload is
that begins its argument, ``None`` if the argument ends before it, and raises what it does not know.

``dirty-bitmap`` (the capability dirty-bitmaps): records until EOS, each a u8 of flags and then, in this order, what the
flags say::

    08 DEVICE_NAME  u8 n, name[n]
    04 BITMAP_NAME  u8 n, name[n]
    10 START        u32 granularity, u8 flags of the bitmap
    20 COMPLETE     nothing
    40 BITS         u64 first sector, u32 sectors; without 02 ZEROES also u64 size, bits[size]
    01 EOS          alone: the end of the payload

``s390-storage_attributes``: u64 words, an address and flags in its low bits, until EOS::

    02 MORE         u64 count, a byte for each page
    01 EOS, 04 ERROR, 08 DONE: nothing; EOS ends the payload, and so do the others if it does not follow

``spapr/htab`` (POWER's hash table): START is a u32, its size as a power of two; PART and END are a u32 of zeros, then
runs of u32 index, u16 valid, u16 invalid, 16 bytes for each valid entry; a run of three zeros ends it. With a radix
guest the u32 is all ones, and nothing follows.

``block`` (disks, QEMU 2.x to 9.0): u64 words, a sector and flags in the low 9 bits, until EOS::

    01 DEVICE       u8 n, name[n], and 1 MiB of the disk, without it if 08 ZERO is set too
    04 PROGRESS     nothing
    02 EOS          the end of the payload
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.sections import FOOTER, Kind

_U64: Final = Struct(">Q")
_RUN: Final = Struct(">IHH")
_RECORD_LIMIT: Final = 1 << 16

_EOS, _ZEROES, _BITMAP_NAME, _DEVICE_NAME, _START, _COMPLETE, _BITS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
_BITMAP_KINDS: Final = frozenset({_START, _COMPLETE, _BITS, _BITS | _ZEROES})
_ATTRIBUTES_MORE, _ATTRIBUTES_EOS, _ATTRIBUTES_LAST = 0x02, 0x01, (0x04, 0x08)
_FOOTER_BEGINS: Final = bytes((FOOTER,))
_RADIX: Final = 0xFFFFFFFF
_ENTRY: Final = 16
_BLOCK_DEVICE, _BLOCK_EOS, _BLOCK_PROGRESS, _BLOCK_ZERO = 0x01, 0x02, 0x04, 0x08
_BLOCK_SIZE: Final = 1 << 20


def bitmaps_size(data: memoryview, kind: Kind = Kind.PART) -> int | None:
    """The length of a payload of dirty bitmaps.

    Raises:
        ProtocolError: no such payload begins so; its offset is counted from the beginning of ``data``.
    """
    del kind
    at = 0
    for _ in range(_RECORD_LIMIT):
        if at >= len(data):
            return None
        start, flags = at, data[at]
        at += 1
        if flags == _EOS:
            return at
        if flags & ~(_BITMAP_NAME | _DEVICE_NAME) not in _BITMAP_KINDS:
            raise ProtocolError(start, "record of dirty bitmaps", f"flags 01, 10, 20, 40 or 42, found {flags:02x}")
        for flag in (_DEVICE_NAME, _BITMAP_NAME):
            if flags & flag:
                if at >= len(data):
                    return None
                at += 1 + data[at]
        if flags & _START:
            at += 5
        if flags & _BITS:
            at += 12
            if not flags & _ZEROES:
                at += 8
                if at > len(data):
                    return None
                at += int.from_bytes(data[at - 8 : at], "big")
    raise ProtocolError(at, "record of dirty bitmaps", f"at most {_RECORD_LIMIT} records in one section, found more")


def attributes_size(data: memoryview, kind: Kind) -> int | None:
    """The length of a payload of s390's storage attributes."""
    del kind
    at = 0
    while at + _U64.size <= len(data):
        flags = int(_U64.unpack_from(data, at)[0]) & 0xFFF
        start, at = at, at + _U64.size
        if flags == _ATTRIBUTES_EOS:
            return at
        if flags in _ATTRIBUTES_LAST and data[at : at + 1] == _FOOTER_BEGINS:
            return at
        if flags == _ATTRIBUTES_MORE:
            if at + _U64.size > len(data):
                return None
            at += _U64.size + int(_U64.unpack_from(data, at)[0])
        elif flags not in _ATTRIBUTES_LAST:
            raise ProtocolError(start, "word of storage attributes", f"flags 1, 2, 4 or 8, found {flags:x}")
    return None


def htab_size(data: memoryview, kind: Kind) -> int | None:
    """The length of a payload of POWER's hash table."""
    if len(data) < 4:
        return None
    head, at = int.from_bytes(data[:4], "big"), 4
    if kind is Kind.START or head == _RADIX:
        return at
    if head:
        raise ProtocolError(0, "hash table", f"a number of zero first, found {head}")
    while at + _RUN.size <= len(data):
        index, valid, invalid = map(int, _RUN.unpack_from(data, at))
        at += _RUN.size + _ENTRY * valid
        if not (index or valid or invalid):
            return at
    return None


def blocks_size(data: memoryview, kind: Kind) -> int | None:
    """The length of a payload of disks' blocks."""
    del kind
    at = 0
    while at + _U64.size <= len(data):
        flags = int(_U64.unpack_from(data, at)[0]) & 0x1FF
        start, at = at, at + _U64.size
        if flags & _BLOCK_EOS:
            return at
        if flags & _BLOCK_DEVICE:
            if at >= len(data):
                return None
            at += 1 + data[at] + (0 if flags & _BLOCK_ZERO else _BLOCK_SIZE)
        elif not flags & _BLOCK_PROGRESS:
            raise ProtocolError(start, "block of a disk", f"flags 1, 2, 4 or 9, found {flags:x}")
    return None


SIZES: Final[Mapping[str, Callable[[memoryview, Kind], int | None]]] = {
    "dirty-bitmap": bitmaps_size,
    "s390-storage_attributes": attributes_size,
    "spapr/htab": htab_size,
    "block": blocks_size,
}
"""By the idstr of the device."""
