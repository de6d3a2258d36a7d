"""How long the payload of a ``dirty-bitmap`` section is (the capability dirty-bitmaps), as seen with QEMU 10.0.

Records until EOS, each a u8 of flags and then, in this order, what the flags say (big-endian)::

    08 DEVICE_NAME  u8 n, name[n]
    04 BITMAP_NAME  u8 n, name[n]
    10 START        u32 granularity, u8 flags of the bitmap
    20 COMPLETE     nothing
    40 BITS         u64 first sector, u32 sectors; without 02 ZEROES also u64 size, bits[size]
    01 EOS          alone: the end of the payload
"""

from __future__ import annotations

from typing import Final

from migpool.errors import ProtocolError

BITMAP_IDSTR: Final = "dirty-bitmap"
EOS, ZEROES, BITMAP_NAME, DEVICE_NAME, START, COMPLETE, BITS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
_KINDS: Final = frozenset({START, COMPLETE, BITS, BITS | ZEROES})
_RECORD_LIMIT: Final = 1 << 16


def bitmaps_size(data: memoryview) -> int | None:
    """How long the payload is that begins ``data``; None if ``data`` ends before it.

    Raises:
        ProtocolError: no such payload begins so; its offset is counted from the beginning of ``data``.
    """
    at = 0
    for _ in range(_RECORD_LIMIT):
        if at >= len(data):
            return None
        start, flags = at, data[at]
        at += 1
        if flags == EOS:
            return at
        if flags & ~(BITMAP_NAME | DEVICE_NAME) not in _KINDS:
            raise ProtocolError(start, "record of dirty bitmaps", f"flags 01, 10, 20, 40 or 42, found {flags:02x}")
        for flag in (DEVICE_NAME, BITMAP_NAME):
            if flags & flag:
                if at >= len(data):
                    return None
                at += 1 + data[at]
        if flags & START:
            at += 5
        if flags & BITS:
            at += 12
            if not flags & ZEROES:
                at += 8
                if at > len(data):
                    return None
                at += int.from_bytes(data[at - 8 : at], "big")
    raise ProtocolError(at, "record of dirty bitmaps", f"at most {_RECORD_LIMIT} records in one section, found more")
