"""RAM packets in the data path: :mod:`migpool.wire.ramheader`'s header, written and read without a loop over pages.

What never changes is written once; a packet costs the source one ``pack_into`` and one copy of its offsets. The
destination finds the block by the raw bytes of its name and checks all offsets with a few calls of numpy; pages that
lie side by side, which is most of them, with one comparison.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from migpool.errors import ProtocolError
from migpool.wire.multifd import (
    BYTES_PER_RAM_PACKET,
    MAGIC,
    RAM_HEADER_FIXED,
    SYNC,
    VERSION,
    padded_name,
    ram_header_size,
)
from migpool.wire.ramheader import FIXED, parse_ram_header
from migpool.wire.unread import Buffer

_VARIABLE: Final = struct.Struct(">IIQI")
"""Normal pages, payload size, packet number, zero pages: from byte 16 on."""
_VARIABLE_AT: Final = 16
_NUMBER: Final = struct.Struct(">Q")
_NUMBER_AT: Final = 24
_NAME_AT: Final = 64
_NAME_END: Final = 320
_NOTHING: Final = bytes(28)
_OFFSET: Final = struct.Struct(">Q")

_NO_PAGES: Final[NDArray[np.intp]] = np.zeros(0, dtype=np.intp)

B = TypeVar("B")
Runs: TypeAlias = list[tuple[int, int]]


def packet_number(buffer: Buffer) -> int:
    """The number of a packet whose header has been checked."""
    number: int = _NUMBER.unpack_from(buffer, _NUMBER_AT)[0]
    return number


def runs_of(pages: NDArray[np.intp]) -> Runs:
    """Consecutive numbers as (first, one past the last), in the order in which they stand."""
    count = len(pages)
    if not count:
        return []
    first, last = int(pages[0]), int(pages[-1])
    breaks = np.flatnonzero(np.diff(pages) != 1)
    if not len(breaks):
        return [(first, last + 1)]
    begins = pages[np.concatenate(([0], breaks + 1))].tolist()
    ends = (pages[np.concatenate((breaks, [count - 1]))] + 1).tolist()
    return list(zip(begins, ends, strict=True))


class PagePacket:
    """Pages of one block for one packet.

    Attributes:
        block: the block's place in the device's ``blocks``.
        offsets: of the pages in the block, in bytes, big-endian 64 bits each: those in ``views``, then those of zeros.
        normal: how many pages have their content in ``views``.
        zero: how many hold zeros alone.
        views: the content, in the order of ``offsets``; pages that lie side by side are one view.
        size: bytes in ``views``.
    """

    __slots__ = ("block", "normal", "offsets", "size", "views", "zero")

    def __init__(
        self, block: int, offsets: bytes | memoryview, normal: int, zero: int, views: list[memoryview], size: int
    ) -> None:
        self.block = block
        self.offsets = offsets
        self.normal = normal
        self.zero = zero
        self.views = views
        self.size = size


class RamPacketWriter:
    """The header before the pages of one packet, ready for ``sendmsg([writer.buffer, *pages])``.

    It belongs to whoever sends: ``pack`` overwrites the same buffer, so the packet before must be out.

    Arguments:
        names: of the blocks.
        page_size: bytes of a page.

    Attributes:
        buffer: the header. Its size is a multiple of 32.
    """

    __slots__ = ("_names", "buffer")

    def __init__(self, names: list[str], page_size: int = 4096) -> None:
        self._names = [padded_name(name, "a block's name") for name in names]
        self.buffer = bytearray(ram_header_size(page_size))
        allocated = BYTES_PER_RAM_PACKET // page_size
        FIXED.pack_into(self.buffer, 0, MAGIC, VERSION, 0, allocated, 0, 0, 0, 0, b"", b"")

    def pack(self, number: int, block: int, normal: int, zero: int, size: int, offsets: bytes | memoryview) -> None:
        """Write what differs from packet to packet.

        Arguments:
            number: of the packet.
            block: its place in ``names``.
            normal: how many pages are in the payload.
            zero: how many pages hold zeros alone.
            size: bytes of payload.
            offsets: of the pages, as they stand in the header.
        """
        buffer = self.buffer
        _VARIABLE.pack_into(buffer, _VARIABLE_AT, normal, size, number, zero)
        buffer[_NAME_AT:_NAME_END] = self._names[block]
        buffer[RAM_HEADER_FIXED : RAM_HEADER_FIXED + len(offsets)] = offsets


class RamPacketParser(Generic[B]):
    """Reads headers, for a destination that knows its memory. Compressed packets are refused.

    Arguments:
        blocks: for each block's name, its length in bytes and what to return for it.
        page_size: bytes of a page.
    """

    __slots__ = ("_blocks", "_page_size", "_room", "_steps")

    def __init__(self, blocks: Mapping[str, tuple[int, B]], page_size: int = 4096) -> None:
        self._blocks = {padded_name(name, "a block's name"): found for name, found in blocks.items()}
        self._page_size = page_size
        self._room = BYTES_PER_RAM_PACKET // page_size
        self._steps = np.arange(self._room, dtype=np.uint64) * np.uint64(page_size)

    def parse(self, buffer: Buffer, offset: int = 0) -> tuple[B, Runs, NDArray[np.intp]] | None:
        """Read one header.

        Arguments:
            buffer: the packet from its beginning, the whole header.
            offset: where in the channel the packet begins, for errors.

        Returns:
            What stands for the block, the pages in the payload as runs of consecutive numbers (first, one past the
            last), and the numbers of pages of zeros; ``None`` for a packet without pages, as a SYNC is, though that of
            an older QEMU may have some.

        Raises:
            ProtocolError: the header is not right, its block is unknown, or a page lies outside of it.
        """
        magic, version, flags, _, normal, size, _, zero, padding, name = FIXED.unpack_from(buffer)
        count = normal + zero
        if magic != MAGIC or version != VERSION or flags or count > self._room or padding != _NOTHING:
            self._refuse(buffer, offset)
        if not count:
            return None
        found = self._blocks.get(name)
        if found is not None and not zero and size == normal * self._page_size:
            first = self._side_by_side(buffer, normal, found[0])
            if first is not None:
                return found[1], [(first, first + normal)], _NO_PAGES
        offsets = np.frombuffer(buffer, dtype=">u8", count=count, offset=RAM_HEADER_FIXED).astype(np.uint64)
        if (
            found is None
            or size != normal * self._page_size
            or int(offsets.max()) >= found[0]
            or int(np.bitwise_or.reduce(offsets)) & (self._page_size - 1)
        ):
            raise self._explain(buffer, offset)
        pages = (offsets // np.uint64(self._page_size)).astype(np.intp)
        return found[1], runs_of(pages[:normal]), pages[normal:]

    def _side_by_side(self, buffer: Buffer, count: int, length: int) -> int | None:
        """The first page's number, if all of them lie one behind the other and in a block so long."""
        size = self._page_size
        (first,) = _OFFSET.unpack_from(buffer, RAM_HEADER_FIXED)
        if first % size or first + count * size > length:
            return None
        wanted = (self._steps[:count] + np.uint64(first)).astype(">u8").tobytes()
        found = buffer[RAM_HEADER_FIXED : RAM_HEADER_FIXED + len(wanted)]
        return first // size if found == wanted else None

    def _refuse(self, buffer: Buffer, offset: int) -> None:
        header = parse_ram_header(buffer, self._page_size, offset)
        if header.flags & ~SYNC:
            raise ProtocolError(offset + 8, "RAM packet", f"no compression, found {header.compression.name.lower()}")

    def _explain(self, buffer: Buffer, offset: int) -> ProtocolError:
        """Find out what is wrong: apart, so that the way of a good header stays short."""
        try:
            header = parse_ram_header(buffer, self._page_size, offset)
        except ProtocolError as error:
            return error
        known = {name.rstrip(b"\0").decode("ascii"): length for name, (length, _) in self._blocks.items()}
        if header.block not in known:
            return ProtocolError(
                offset + _NAME_AT, "RAM packet", f"a block of this machine ({', '.join(known)}), found {header.block!r}"
            )
        largest = max(header.normal + header.zero)
        return ProtocolError(
            offset + RAM_HEADER_FIXED,
            "RAM packet",
            f"pages inside the {known[header.block]} bytes of {header.block}, found one at {largest}",
        )
