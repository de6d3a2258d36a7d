"""The payload of RAM sections (idstr ``ram``, version 4): its events and its writers.

The payload is u64 words, big-endian, address | flags in the low bits of a page, until EOS (QEMU 10.0)::

    004 MEM_SIZE       the address part is the total; then per block u8 n, name[n], u64 used length
                       (u64 size of the host's pages after POSTCOPY_ADVISE, if they are huge ones;
                       u64 guest-physical address with x-ignore-shared), until the total is used up
    002 ZERO           [u8 n, name[n] unless CONTINUE], u8 00
    008 PAGE           [u8 n, name[n] unless CONTINUE], one page
    020 CONTINUE       with the two above: in the block of the entry before
    200 MULTIFD_FLUSH  nothing follows; every multifd channel carries one SYNC for it
    010 EOS            end of the payload
    040, 100           packed pages, and pages at fixed places of a file: ramforms.py

With multifd the pages travel elsewhere and only MEM_SIZE, MULTIFD_FLUSH and EOS stand here.

Here are the events and what writes them; :mod:`migpool.wire.ramreader` makes events of bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from migpool.wire.ramforms import RamPacked
from migpool.wire.sections import Headed, SectionHead, counted, footer
from migpool.wire.unread import Buffer

RAM_IDSTR: Final = "ram"
RAM_VERSION: Final = 4

ZERO: Final = 0x002
MEM_SIZE: Final = 0x004
PAGE: Final = 0x008
EOS: Final = 0x010
CONTINUE: Final = 0x020
HOOK: Final = 0x080
MULTIFD_FLUSH: Final = 0x200

ZERO_PAGE: Final = -1
"""The position of a page that is not in the stream because it holds zeros alone."""

_U64 = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class RamBlock:
    """One block of RAM.

    Arguments:
        name: the block's name, 1 to 255 bytes of ASCII.
        used_length: how many bytes of it are in use; a multiple of the page size.
        gpa: its guest-physical address; None unless the capability x-ignore-shared is on.
        host_page: bytes of a page of the memory behind it, if the source says so: huge ones, with postcopy.
        mapped: how many of its pages stand at fixed places of the file; None unless the capability mapped-ram is on.
    """

    name: str
    used_length: int
    gpa: int | None = None
    host_page: int | None = None
    mapped: int | None = None


class RamSection(Headed):
    """A section of RAM begins; its payload follows as events, and ``RamSectionEnd`` after it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class RamBlocks:
    """The list of all blocks (MEM_SIZE)."""

    blocks: tuple[RamBlock, ...]
    offset: int = 0


@dataclass(frozen=True, slots=True)
class RamPages:
    """Consecutive pages of one block, at most as many as the reader was told to put together.

    Arguments:
        block: the block's name.
        named: whether the stream names the block before the first page; else that page continues the block before.
        page_size: bytes of a page.
        addresses: where each page belongs in the block, in bytes.
        positions: where each page begins in ``data``; -1 for a page of zeros.
        data: the bytes of the stream from the first page's word to the end of the last page, in one piece.
        offset: where in the channel ``data`` began.
    """

    block: str
    named: bool
    page_size: int
    addresses: tuple[int, ...]
    positions: tuple[int, ...]
    data: memoryview
    offset: int = 0

    def __iter__(self) -> Iterator[tuple[int, memoryview | None]]:
        """Each page's address, and its bytes as a view; None for a page of zeros."""
        data, size = self.data, self.page_size
        for address, position in zip(self.addresses, self.positions, strict=True):
            yield address, None if position == ZERO_PAGE else data[position : position + size]


@dataclass(frozen=True, slots=True)
class CountedPages:
    """Consecutive pages of one block that were only counted.

    Arguments:
        block: the block's name.
        page_size: bytes of a page.
        normal: how many are there with their contents.
        zero: how many are zeros.
        offset: where in the channel the first one's word began.
    """

    block: str
    page_size: int
    normal: int
    zero: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class MultifdFlush:
    """Every multifd channel has a SYNC here."""

    offset: int = 0


@dataclass(frozen=True, slots=True)
class RamSectionEnd:
    """A section of RAM has ended, and its footer was right.

    Arguments:
        head: the section's head.
        offset: where in the channel its EOS stood.
    """

    head: SectionHead
    offset: int = 0


RamEvent: TypeAlias = RamSection | RamBlocks | RamPages | CountedPages | RamPacked | MultifdFlush | RamSectionEnd


def block_list(blocks: Sequence[RamBlock]) -> bytes:
    """The MEM_SIZE word and the list of all blocks, whose pages follow as entries (not at fixed places)."""
    parts = [_U64.pack(sum(block.used_length for block in blocks) | MEM_SIZE)]
    for block in blocks:
        parts += [counted(block.name, "a block's name"), _U64.pack(block.used_length)]
        parts += [_U64.pack(number) for number in (block.host_page, block.gpa) if number is not None]
    return b"".join(parts)


def pages(block: str, entries: Iterable[tuple[int, Buffer | None]], *, named: bool = True) -> list[Buffer]:
    """Pages of one block, as buffers for ``sendmsg``; pages are passed on as they are.

    Arguments:
        block: the block's name.
        entries: address in bytes, and the page's bytes or None for zeros, of each.
        named: name the block before the first page; without it the block of the page sent before continues.
    """
    buffers: list[Buffer] = []
    name = counted(block, "a block's name") if named else b""
    flag = 0 if named else CONTINUE
    for address, page in entries:
        if page is None:
            buffers.append(_U64.pack(address | ZERO | flag) + name + b"\0")
        else:
            buffers += [_U64.pack(address | PAGE | flag) + name, page]
        name, flag = b"", CONTINUE
    return buffers


def multifd_flush() -> bytes:
    """The word that says that every multifd channel has a SYNC here."""
    return _U64.pack(MULTIFD_FLUSH)


def ram_section_end(section_id: int, *, footers: bool = True) -> bytes:
    """The end of a RAM section's payload, and its footer if sections have one."""
    return _U64.pack(EOS) + (footer(section_id) if footers else b"")
