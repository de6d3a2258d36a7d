"""The payload of RAM sections (idstr ``ram``, version 4): its events, its writers and its reader.

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

What a reader gives:

* Pages come in batches, one event for up to ``batch`` pages of one block. Where a batch ends depends on the stream
  alone, never on the pieces in which it arrived.
* A batch that lies within one piece of input is a view of it; only one that straddles pieces is joined.
* What is kept between batches is the list of blocks: a recording of any size is walked in constant memory.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

from migpool.errors import ProtocolError
from migpool.wire.ramforms import PACKED, RamPacked, read_map, read_packed
from migpool.wire.sections import Footers, Headed, SectionHead, ascii_text, counted, footer
from migpool.wire.unread import Buffer, Need, Steps, Unread, take

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
_WORD: Final = 8
_BLOCK_LIMIT: Final = 4096
_NAMES_SHOWN: Final = 8
_PAGE_KINDS: Final = frozenset({PAGE, ZERO, PAGE | CONTINUE, ZERO | CONTINUE})


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


RamEvent: TypeAlias = RamSection | RamBlocks | RamPages | RamPacked | MultifdFlush | RamSectionEnd


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


class RamReader:
    """What must be remembered from one RAM section to the next.

    Arguments:
        page_size: bytes of a page, a power of two.
        gpa: whether the block list gives guest-physical addresses (the capability x-ignore-shared).
        batch: how many pages one event may have.
        footers: whether sections have footers.
        mapped: whether pages stand at fixed places of the file (the capability mapped-ram).

    Attributes:
        host_pages: the sizes of the pages of the source's memory, as POSTCOPY_ADVISE gives them: one bit each.
    """

    __slots__ = ("_batch", "_block", "_end", "_footers", "_gpa", "_lengths", "_mapped", "_mask", "_page_size",
                 "host_pages")  # fmt: skip

    def __init__(self, page_size: int, gpa: bool, batch: int, footers: Footers, *, mapped: bool = False) -> None:
        self._footers = footers
        self._mapped = mapped
        self.host_pages = 0
        self._page_size = page_size
        self._mask = page_size - 1
        self._gpa = gpa
        self._batch = batch
        self._lengths: dict[str, int] = {}
        self._block = ""
        self._end = 0

    def section(self, unread: Unread, head: SectionHead) -> Generator[Need | RamEvent, None, None]:
        """Read a RAM section from behind its head to behind its footer, as events."""
        if head.version != RAM_VERSION:
            raise ProtocolError(head.offset, f"{head}", f"version {RAM_VERSION}, found {head.version}")
        yield RamSection(head)
        yield from self._words(unread, f"word of {head}", head)

    def beside(self, unread: Unread, blocks: Sequence[RamBlock]) -> Generator[Need | RamEvent, None, None]:
        """Read the pages on a channel of their own (postcopy's preempt channel): words without sections, to its end.

        Arguments:
            unread: at the channel's first byte.
            blocks: the list, which stands on the main channel.
        """
        self._lengths = {block.name: block.used_length for block in blocks}
        yield from self._words(unread, "word of the preempt channel", None)

    def _words(self, unread: Unread, item: str, head: SectionHead | None) -> Generator[Need | RamEvent, None, None]:
        """Read words up to the end of the section of ``head``, or to the end of the input."""
        while True:
            if head is None and not unread.available:
                yield Need(1, item, clean=True)
            if unread.available < _WORD:
                yield Need(_WORD, item)
            offset = unread.offset
            (word,) = _U64.unpack(unread.peek(_WORD))
            flags = word & self._mask
            if flags in _PAGE_KINDS:
                yield (yield from self._pages(unread, flags))
            elif (packing := flags & ~CONTINUE) in PACKED:
                named = not flags & CONTINUE
                where = word - flags, self._block
                packed = yield from read_packed(unread, packing, named, *where, self._lengths, self._page_size)
                self._block, self._end = packed.block, self._lengths[packed.block]
                yield packed
            elif flags == MEM_SIZE:
                yield (yield from self._block_list(unread, word - flags))
            elif word == MULTIFD_FLUSH:
                unread.skip(_WORD)
                yield MultifdFlush(offset)
            elif word == EOS:
                unread.skip(_WORD)
                if head is None:
                    continue
                yield from self._footers.check(unread, head)
                yield RamSectionEnd(head, offset)
                return
            elif flags == HOOK:
                raise ProtocolError(offset, item, "pages in the stream; flag 080 says that they went over RDMA instead")
            else:
                right = "flags 002, 004, 008, 010, 022, 028, 040, 060, 100, 120 or 200"
                raise ProtocolError(offset, item, f"{right}, found {word:016x}")

    def _block_list(self, unread: Unread, total: int) -> Steps[RamBlocks]:
        """Read the list of blocks, from its word on."""
        item = "RAM block list"
        start = unread.offset
        unread.skip(_WORD)
        blocks: dict[str, RamBlock] = {}
        while total:
            offset = unread.offset
            (length,) = yield from take(unread, 1, item)
            name = ascii_text((yield from take(unread, length, item)), offset + 1, item)
            (used,) = _U64.unpack((yield from take(unread, _WORD, item)))
            host_page = yield from self._host_page(unread, item)
            gpa = int.from_bytes((yield from take(unread, _WORD, item)), "big") if self._gpa else None
            if name in blocks:
                raise ProtocolError(offset, item, f"each block once, found a second {name!r}")
            if used > total or used & self._mask:
                right = f"whole pages of {self._page_size} bytes, at most {total} bytes as is left of the total"
                raise ProtocolError(offset, item, f"{right}, found {used} in block {name!r}")
            if len(blocks) == _BLOCK_LIMIT:
                raise ProtocolError(offset, item, f"at most {_BLOCK_LIMIT} blocks, found more")
            mapped = (yield from read_map(unread, name, used, self._page_size)) if self._mapped else None
            blocks[name] = RamBlock(name, used, gpa, host_page, mapped)
            total -= used
        self._lengths = {block.name: block.used_length for block in blocks.values()}
        self._block, self._end = "", 0
        return RamBlocks(tuple(blocks.values()), start)

    def _host_page(self, unread: Unread, item: str) -> Steps[int | None]:
        """Read the size of the host's pages, if it stands here: of blocks with huge ones only.

        Nothing says whether it does, so it is told from what else could stand here: a name's length (never 0), or a
        word with flags. With guest-physical addresses in the list it cannot be told, and QEMU has not both.
        """
        if not self.host_pages & (self.host_pages - 1) or self._gpa:
            return None
        if not unread.available:
            yield Need(1, item)
        if unread.peek(1)[0]:
            return None
        if unread.available < _WORD:
            yield Need(_WORD, item)
        (size,) = _U64.unpack(unread.peek(_WORD))
        if size & (size - 1) or size <= self._mask or not size & self.host_pages:
            return None
        unread.skip(_WORD)
        return int(size)

    def _pages(self, unread: Unread, flags: int) -> Steps[RamPages]:
        """Read one batch, from the word of its first page on."""
        offset = unread.offset
        named = not flags & CONTINUE
        addresses: list[int] = []
        positions: list[int] = []
        parts: list[memoryview] = []
        base = 0
        start = 0
        if named:
            start = yield from self._named_page(unread, flags, addresses, positions)
        elif not self._block:
            raise ProtocolError(offset, "RAM page", "the name of a block before the first CONTINUE")
        while len(addresses) < self._batch and (start or (yield from self._whole_page(unread, bool(addresses)))):
            view = unread.first()
            end = self._scan(view, start, offset, base, addresses, positions)
            parts.append(view[:end])
            unread.skip(end)
            base += end
            start = 0
        if start:
            parts.append(unread.take(start))
        data = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
        return RamPages(self._block, named, self._page_size, tuple(addresses), tuple(positions), data, offset)

    def _named_page(self, unread: Unread, flags: int, addresses: list[int], positions: list[int]) -> Steps[int]:
        """Read a page that names its block; leave it in the unread, in one piece, and return its length there."""
        item = "RAM page"
        if unread.available < _WORD + 1:
            yield Need(_WORD + 1, item)
        at = _WORD + 1 + unread.peek(_WORD + 1)[_WORD]
        length = at + (self._page_size if flags & PAGE else 1)
        if unread.available < length:
            yield Need(length, item)
        view = unread.peek(length)
        self._block = ascii_text(view[_WORD + 1 : at], unread.offset + _WORD + 1, "RAM block name")
        if self._block not in self._lengths:
            names = [repr(name) for name in islice(self._lengths, _NAMES_SHOWN)]
            more = [f"{len(self._lengths) - len(names)} more"] if len(self._lengths) > len(names) else []
            known = ", ".join(names + more) or "none, as there was no list of blocks"
            raise ProtocolError(unread.offset, item, f"a block of the list ({known}), found {self._block!r}")
        self._end = self._lengths[self._block]
        (word,) = _U64.unpack_from(view)
        self._check(word - flags, flags, view[at], unread.offset)
        addresses.append(word - flags)
        positions.append(at if flags & PAGE else ZERO_PAGE)
        return length

    def _whole_page(self, unread: Unread, begun: bool) -> Steps[bool]:
        """Wait until the next entry is there in one piece; False if it does not continue a batch that has begun.

        At the end of an input that was cut, the batch is what there is.
        """
        if unread.available < _WORD:
            yield Need(_WORD, "RAM word", retry_at_end=begun)
            if unread.available < _WORD:
                return False
        (word,) = _U64.unpack(unread.peek(_WORD))
        flags = word & self._mask
        if flags != PAGE | CONTINUE and flags != ZERO | CONTINUE:
            return False
        length = _WORD + (self._page_size if flags & PAGE else 1)
        if unread.available < length:
            yield Need(length, "RAM page", retry_at_end=begun)
            if unread.available < length:
                return False
        unread.peek(length)
        return True

    def _scan(
        self, view: memoryview, at: int, offset: int, base: int, addresses: list[int], positions: list[int]
    ) -> int:
        """Gather what continues the batch and lies whole within ``view``; return where it ends. The hot loop."""
        size, mask, limit, unpack = self._page_size, self._mask, self._end, _U64.unpack_from
        last = len(view) - _WORD
        room = self._batch - len(addresses)
        while room and at <= last:
            (word,) = unpack(view, at)
            flags = word & mask
            if flags == PAGE | CONTINUE:
                end = at + _WORD + size
                if end > len(view):
                    break
                positions.append(base + at + _WORD)
            elif flags == ZERO | CONTINUE:
                end = at + _WORD + 1
                if end > len(view):
                    break
                if view[at + _WORD]:
                    self._check(word - flags, flags, view[at + _WORD], offset + base + at)
                positions.append(ZERO_PAGE)
            else:
                break
            address = word - flags
            if address >= limit:
                self._check(address, flags, 0, offset + base + at)
            addresses.append(address)
            room -= 1
            at = end
        return at

    def _check(self, address: int, flags: int, fill: int, offset: int) -> None:
        if address >= self._end:
            right = f"an address below {self._end:#x}, the used length of block {self._block!r}"
            raise ProtocolError(offset, "RAM page", f"{right}, found {address:#x}")
        if flags & ZERO and fill:
            raise ProtocolError(offset, "RAM page of zeros", f"a zero byte, found {fill:#04x}")
