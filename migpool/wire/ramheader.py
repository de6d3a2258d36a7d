"""The header of a RAM packet on a multifd channel; SYNC packets have the same header.

A SYNC of QEMU 8.2 and later has no pages. Of older ones it rides on the last packet of a round, which may have some.
They also leave the payload size of the packet before in one without pages, and nothing stands behind that.

Layout (QEMU 10.0; all integers big-endian), 320 bytes and 8 for every page that 512 KiB hold, 1344 for 4 KiB pages::

      0  u32  magic 11223344         24  u64   packet number: unique over all channels, rising on each
      4  u32  version 1              32  u32   zero pages
      8  u32  flags                  36  [28]  zeros
     12  u32  pages allocated        64  [256] block name, padded with NUL
     16  u32  normal pages          320  u64   offset in the block of each page: normal ones, then zero ones
     20  u32  payload size               the payload: the normal pages in the same order

Offsets after the last zero page mean nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.configuration import DEFAULT_PAGE_SIZE, possible_page_size
from migpool.wire.multifd import (
    BYTES_PER_RAM_PACKET,
    COMPRESSION_MASK,
    DEVICE_STATE,
    MAGIC,
    PREFIX_SIZE,
    RAM_HEADER_FIXED,
    SYNC,
    VERSION,
    Compression,
    packet_flags,
)
from migpool.wire.sections import ascii_text
from migpool.wire.unread import Buffer

FIXED = struct.Struct(">IIIIIIQI28s256s")
ALLOCATED_END: Final = 16
_ITEM: Final = "RAM packet"


@dataclass(frozen=True, slots=True)
class RamPacketHeader:
    """What a RAM or SYNC packet says before its payload.

    Arguments:
        flags: SYNC (0x01) and the way of compression.
        packet_number: rises on each channel.
        block: the RAM block of all its pages; empty if there are none.
        normal: where in the block each page of the payload belongs, in bytes.
        zero: where in the block pages of zeros are, in bytes.
        payload_size: bytes of payload; 0 without normal pages, whatever the field says.
        allocated: how many pages a packet of this source can hold.
    """

    flags: int
    packet_number: int
    block: str = ""
    normal: tuple[int, ...] = ()
    zero: tuple[int, ...] = ()
    payload_size: int = 0
    allocated: int = 128

    @property
    def sync(self) -> bool:
        """Whether this is a SYNC packet."""
        return bool(self.flags & SYNC)

    @property
    def compression(self) -> Compression:
        """How the payload is packed."""
        return Compression(self.flags & COMPRESSION_MASK)


def ram_header(header: RamPacketHeader, page_size: int = 4096) -> bytes:
    """The bytes of a header.

    Raises:
        ValueError: more pages than a packet holds, or a block name that does not fit.
        struct.error: a number does not fit its field.
    """
    room = BYTES_PER_RAM_PACKET // page_size
    offsets = header.normal + header.zero
    name = header.block.encode("ascii")
    if len(offsets) > room or len(name) > 255:
        raise ValueError(
            f"a packet holds {room} pages of a block with a name of 255 bytes, not {len(offsets)}, {len(name)}"
        )
    fixed = FIXED.pack(
        MAGIC,
        VERSION,
        header.flags,
        header.allocated,
        len(header.normal),
        header.payload_size,
        header.packet_number,
        len(header.zero),
        b"",
        name,
    )
    return fixed + struct.pack(f">{room}Q", *offsets, *(0,) * (room - len(offsets)))


def sync_header(packet_number: int, page_size: int = 4096) -> bytes:
    """A SYNC packet."""
    allocated = BYTES_PER_RAM_PACKET // page_size
    return ram_header(RamPacketHeader(SYNC, packet_number, allocated=allocated), page_size)


def page_size_of(buffer: Buffer) -> int | None:
    """Bytes of a page, by how many pages the packet that begins here can hold; None if it does not say it, as a SYNC.

    Arguments:
        buffer: the packet's first :data:`ALLOCATED_END` bytes, or more.
    """
    allocated = int.from_bytes(memoryview(buffer)[PREFIX_SIZE:ALLOCATED_END], "big")
    if not allocated:
        return None
    size = BYTES_PER_RAM_PACKET // allocated
    return size if possible_page_size(size) and size * allocated == BYTES_PER_RAM_PACKET else DEFAULT_PAGE_SIZE


def parse_ram_header(
    buffer: Buffer, page_size: int = 4096, offset: int = 0, limit: int = 2 * BYTES_PER_RAM_PACKET
) -> RamPacketHeader:
    """Read a header.

    Arguments:
        buffer: the packet from its beginning, ``ram_header_size(page_size)`` bytes or more.
        page_size: bytes of a page.
        offset: where in the channel the packet begins, for errors.
        limit: how long the payload may be, in bytes.

    Raises:
        ProtocolError: wrong magic, version or flags; more pages than fit; a payload over the limit or, without
            compression, of another size than its pages; an offset inside a page; a name that is none.
    """
    flags = packet_flags(buffer, offset)
    if flags & DEVICE_STATE:
        raise ProtocolError(offset + 8, _ITEM, "a RAM or SYNC packet, found the flag DEVICE_STATE")
    _, _, _, allocated, normal, size, number, zero, padding, raw = FIXED.unpack_from(buffer)
    room = BYTES_PER_RAM_PACKET // page_size
    if allocated > room:
        raise ProtocolError(offset + 12, _ITEM, f"at most {room} pages allocated, found {allocated}")
    if normal + zero > allocated:
        raise ProtocolError(offset + 16, _ITEM, f"at most {allocated} pages, found {normal} and {zero} of zeros")
    if any(padding):
        raise ProtocolError(offset + 36, _ITEM, f"28 zero bytes, found {padding.hex()}")
    offsets: tuple[int, ...] = struct.unpack_from(f">{normal + zero}Q", buffer, RAM_HEADER_FIXED)
    for n, address in enumerate(offsets):
        if address & (page_size - 1):
            at = offset + RAM_HEADER_FIXED + 8 * n
            raise ProtocolError(at, _ITEM, f"the offset of a page of {page_size} bytes, found {address:#x}")
    size = size if normal else 0
    _check_payload(flags, normal, size, page_size, offset, limit)
    block = _block_name(raw, bool(offsets), offset)
    return RamPacketHeader(flags, number, block, offsets[:normal], offsets[normal:], size, allocated)


def _check_payload(flags: int, normal: int, size: int, page_size: int, offset: int, limit: int) -> None:
    if not flags & COMPRESSION_MASK and size != normal * page_size:
        raise ProtocolError(offset + 20, _ITEM, f"a payload of {normal} pages of {page_size} bytes, found {size} bytes")
    if size > limit:
        raise ProtocolError(offset + 20, _ITEM, f"a payload of at most {limit} bytes, found {size}")


def _block_name(raw: bytes, needed: bool, offset: int) -> str:
    name, nul, _ = raw.partition(b"\0")
    if not nul:
        raise ProtocolError(offset + 64, f"{_ITEM} block name", "a NUL within 256 bytes, found none")
    if not name and not needed:
        return ""
    return ascii_text(name, offset + 64, f"{_ITEM} block name")
