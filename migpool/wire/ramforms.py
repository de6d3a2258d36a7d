"""Rarer forms of RAM in a stream: pages that are packed one by one, and pages at fixed places of a file.

Packed pages, big-endian, as entries between those of :mod:`migpool.wire.ram`::

    040 XBZRLE    [u8 n, name[n] unless CONTINUE], u8 01, u16 size, a difference from the page sent before
    100 COMPRESS  [u8 n, name[n] unless CONTINUE], u32 size, the page packed by zlib (QEMU 2.x to 9.0)

With the capability ``mapped-ram`` the list of blocks is laid out over the file, and no page stands between words::

    u8 n, name[n], u64 used length, [u64 guest-physical address]
    u32 version 1, u64 page size, u64 place of the bitmap, u64 place of the pages
    the bitmap: a bit for each page, in words of 64 bits; set: the page is in the file
    the pages, each at its own place, from a multiple of 1 MiB on; behind the last one, the next block
    of a block that is shared (x-ignore-shared), both places are 0, and the next block follows at once

Both places are counted from the beginning of the file, which need not be that of the stream: the bitmap stands right
behind the four numbers, so that difference is known. So a pipe can be walked as well, to its end and without keeping
anything.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.configuration import possible_page_size
from migpool.wire.sections import ascii_text
from migpool.wire.unread import Need, Steps, Unread, skip, take

XBZRLE: Final = 0x040
COMPRESS: Final = 0x100
PACKED: Final = {XBZRLE: "xbzrle", COMPRESS: "zlib"}
"""The flags of packed pages, and how they are packed."""

_WORD: Final = struct.Struct(">Q")
_XBZRLE_HEAD: Final = struct.Struct(">BH")
_ENCODING: Final = 1
_COMPRESS_HEAD: Final = struct.Struct(">I")
_MAP: Final = struct.Struct(">IQQQ")
_MAP_VERSION: Final = 1
_PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class RamPacked:
    """One page that is packed.

    Arguments:
        block: the block's name.
        address: where the page belongs in the block, in bytes.
        form: how it is packed: "xbzrle" or "zlib".
        data: the bytes of the stream, from the page's word to its end.
        offset: where in the channel ``data`` began.
    """

    block: str
    address: int
    form: str
    data: memoryview
    offset: int = 0


def read_packed(
    unread: Unread, flag: int, named: bool, address: int, block: str, lengths: Mapping[str, int], page_size: int
) -> Steps[RamPacked]:
    """Read a packed page, from its word on.

    Arguments:
        unread: where from.
        flag: how it is packed.
        named: whether the stream names the block.
        address: as the word says.
        block: the block of the entry before.
        lengths: the used length of every block.
        page_size: bytes of a page.

    Raises:
        ProtocolError: no such block, a page outside of it, another encoding, more bytes than a packed page can have.
    """
    item, start = f"RAM page packed by {PACKED[flag]}", unread.offset
    at = _WORD.size
    if named:
        yield from _whole(unread, at + 1, item)
        end = at + 1 + unread.peek(at + 1)[at]
        yield from _whole(unread, end, item)
        block, at = ascii_text(unread.peek(end)[at + 1 :], start + at + 1, "RAM block name"), end
    if block not in lengths:
        raise ProtocolError(start, item, f"a block of the list of blocks, found {block!r}")
    if address >= lengths[block]:
        right = f"an address below {lengths[block]:#x}, the used length of block {block!r}"
        raise ProtocolError(start, item, f"{right}, found {address:#x}")
    head = _XBZRLE_HEAD if flag == XBZRLE else _COMPRESS_HEAD
    yield from _whole(unread, at + head.size, item)
    *encoding, size = head.unpack_from(unread.peek(at + head.size), at)
    if encoding not in ([], [_ENCODING]):
        raise ProtocolError(start + at, item, f"encoding {_ENCODING}, found {encoding[0]}")
    if not 0 < size <= 2 * page_size:
        raise ProtocolError(start + at, item, f"1 to {2 * page_size} bytes, found {size}")
    return RamPacked(block, address, PACKED[flag], (yield from take(unread, at + head.size + size, item)), start)


def read_map(unread: Unread, name: str, used: int, page_size: int | None) -> Steps[tuple[int, int]]:
    """Pass over one block's pages at fixed places.

    Arguments:
        unread: behind the block's entry.
        name: of the block.
        used: its used length, in bytes.
        page_size: bytes of a page, if that is known.

    Returns:
        bytes of a page, and how many of the block's pages are in the file.

    Raises:
        ProtocolError: another version, another page size, or places that cannot be.
    """
    item, start = f"map of RAM block {name!r}", unread.offset
    version, size, bitmap_at, pages_at = _MAP.unpack((yield from take(unread, _MAP.size, item)))
    if version != _MAP_VERSION:
        raise ProtocolError(start, item, f"version {_MAP_VERSION}, found {version}")
    if size != page_size if page_size is not None else not possible_page_size(size):
        raise ProtocolError(start + 4, item, f"pages of {page_size or 'a power of two'} bytes, found {size}")
    page_size = int(size)
    if not bitmap_at and not pages_at:
        return page_size, 0
    bitmap = -(-(used // page_size) // 64) * 8
    gap = pages_at - bitmap_at - bitmap
    if gap < 0 or bitmap_at < unread.offset:
        right = f"a bitmap of {bitmap} bytes from here on, and the pages behind it"
        raise ProtocolError(start + 12, item, f"{right}, found them at {bitmap_at} and {pages_at}")
    present, left = 0, bitmap
    while left:
        piece = yield from take(unread, min(left, _PIECE), f"bitmap of RAM block {name!r}")
        present += int.from_bytes(piece, "big").bit_count()
        left -= len(piece)
    if present > used // page_size:
        raise ProtocolError(start + _MAP.size, item, f"at most {used // page_size} pages, found {present}")
    yield from skip(unread, gap + used, f"pages of RAM block {name!r}")
    return page_size, present


def _whole(unread: Unread, count: int, item: str) -> Steps[None]:
    if unread.available < count:
        yield Need(count, item)
