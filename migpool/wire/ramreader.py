"""Reads the payload of RAM sections, and what else consists of its words; :mod:`migpool.wire.ram` has the layout.

What a reader gives:

* Pages come in batches, one event for up to ``batch`` pages of one block. Where a batch ends depends on the stream
  alone, never on the pieces in which it arrived; only the end of an input that was cut ends one, too.
* A batch that lies within one piece of input is a view of it; only one that straddles pieces is joined.
* What is kept between batches is the list of blocks: a recording of any size is walked in constant memory.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from functools import cache, reduce
from itertools import islice
from operator import or_
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.pageruns import count_pages
from migpool.wire.pagesize import FLAGS_UNSURE, SMALLEST, candidates, fits, needed
from migpool.wire.ram import (
    CONTINUE,
    EOS,
    HOOK,
    MEM_SIZE,
    MULTIFD_FLUSH,
    PAGE,
    RAM_VERSION,
    ZERO,
    ZERO_PAGE,
    CountedPages,
    MultifdFlush,
    RamBlock,
    RamBlocks,
    RamEvent,
    RamPages,
    RamSection,
    RamSectionEnd,
)
from migpool.wire.ramforms import PACKED, read_map, read_packed
from migpool.wire.sections import Footers, SectionHead, ascii_text
from migpool.wire.unread import Need, Steps, Unread, take

UNSTATED: Final = 1 << 63
"""The used length of a block of which only the name is known."""

_U64 = struct.Struct(">Q")
_WORD: Final = 8
_BLOCK_LIMIT: Final = 4096
_NAMES_SHOWN: Final = 8
_NAME_LIMIT: Final = 255
_PAGE_KINDS: Final = frozenset({PAGE, ZERO, PAGE | CONTINUE, ZERO | CONTINUE})
_KINDS: Final = frozenset({PAGE, ZERO, MEM_SIZE, EOS, HOOK, MULTIFD_FLUSH, *PACKED})
_RUN: Final = 64
_NO_CONTENTS: Final = -1
"""No flags: while the size of a page is not known."""


@cache
def _run_of(page_size: int) -> struct.Struct:
    """The words of pages that stand one behind the other."""
    return struct.Struct(">" + f"Q{page_size}x" * _RUN)


class RamReader:
    """What must be remembered from one RAM section to the next.

    Arguments:
        page_size: bytes of a page, a power of two.
        gpa: whether the block list gives guest-physical addresses (the capability x-ignore-shared).
        batch: how many pages one event may have.
        footers: whether sections have footers.
        mapped: whether pages stand at fixed places of the file (the capability mapped-ram).
        sure: whether ``page_size`` was stated; else it is only what most machines have, and told from the first page
            that is there with its contents.
        multifd: whether there are multifd channels. If the START section has no flush then, as of machine types up to
            8.0, the end of each section is one, and told as such: before its footer, which may wait at the source.

    Attributes:
        host_pages: the sizes of the pages of the source's memory, as POSTCOPY_ADVISE gives them: one bit each.
        counts: nobody asks for the pages' contents and addresses: they are only counted, as many as follow one another.
    """

    __slots__ = ("_batch", "_between", "_block", "_end", "_footers", "_gpa", "_lengths", "_mapped", "_mask",
                 "_multifd", "_multiples", "_page_size", "_passed", "_run", "_sure",
                 "counts", "host_pages")  # fmt: skip

    def __init__(
        self,
        page_size: int,
        gpa: bool,
        batch: int,
        footers: Footers,
        *,
        mapped: bool = False,
        sure: bool = True,
        multifd: bool = False,
    ) -> None:
        self._multifd = multifd
        self._footers = footers
        self._mapped = mapped
        self.host_pages = 0
        self.counts = False
        self._between = False
        self._passed = 0
        self._page_size = page_size
        self._sure = sure
        self._mask = page_size - 1 if sure else FLAGS_UNSURE
        self._multiples = 0
        self._run = _run_of(page_size)
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

    def name_block(self, name: str) -> None:
        """Know a block whose size is not stated: the list of all stands on a channel that broke."""
        self._lengths[name] = UNSTATED

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
            if not self._sure and (word & PAGE or word & ~CONTINUE & self._mask not in _KINDS):
                yield from self._settle(unread, word)
            flags = word & self._mask
            if flags in _PAGE_KINDS:
                pages = self._counted if self.counts and self._sure else self._pages
                yield (yield from pages(unread, flags))
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
                self._multifd = False  # this source says it
                yield MultifdFlush(offset)
            elif word == EOS:
                unread.skip(_WORD)
                if head is None:
                    continue
                if self._multifd:
                    yield MultifdFlush(offset)
                yield from self._footers.check(unread, head)
                yield RamSectionEnd(head, offset)
                return
            elif flags == HOOK:
                raise ProtocolError(offset, item, "pages in the stream; flag 080 says that they went over RDMA instead")
            else:
                right = "flags 002, 004, 008, 010, 022, 028, 040, 060, 100, 120 or 200"
                raise ProtocolError(offset, item, f"{right}, found {word:016x}")

    def _settle(self, unread: Unread, word: int) -> Steps[None]:
        """Find out how large a page is, at the first word that cannot be understood without it."""
        sizes = candidates(self._page_size, self._multiples | word & ~FLAGS_UNSURE)
        flags = word & FLAGS_UNSURE
        if flags & ~CONTINUE != PAGE:  # bits of an address stand where larger pages have flags
            sizes = [size for size in sizes if word & ~CONTINUE & (size - 1) in _KINDS]
        else:
            page_at, block = _WORD, self._block
            if not flags & CONTINUE:
                for _ in range(2):  # the length of the name, and then all of it
                    if unread.available < page_at + 1:
                        yield Need(page_at + 1, "RAM page")
                    page_at = _WORD + 1 + unread.peek(_WORD + 1)[_WORD]
                block = bytes(unread.peek(page_at)[_WORD + 1 :]).decode("ascii", "replace")
            end = self._lengths.get(block, 0)
            for size in sizes if len(sizes) > 1 else ():
                if unread.available < needed(page_at, size):
                    yield Need(needed(page_at, size), "RAM page", retry_at_end=True)
                view = unread.peek(min(unread.available, needed(page_at, size) + _NAME_LIMIT))
                if fits(view, page_at, size, end, self._lengths):
                    sizes = [size]
        if sizes:
            self._know(sizes[0])

    def _know(self, page_size: int) -> None:
        self._page_size, self._mask, self._sure = page_size, page_size - 1, True
        self._run = _run_of(page_size)

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
            if used > total or used & (self._mask if self._sure else SMALLEST - 1):
                right = f"whole pages of {self._page_size} bytes, at most {total} bytes as is left of the total"
                raise ProtocolError(offset, item, f"{right}, found {used} in block {name!r}")
            if len(blocks) == _BLOCK_LIMIT:
                raise ProtocolError(offset, item, f"at most {_BLOCK_LIMIT} blocks, found more")
            self._multiples |= used
            mapped = None
            if self._mapped:
                page_size, mapped = yield from read_map(unread, name, used, self._page_size if self._sure else None)
                self._know(page_size)
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
        if not self._sure:
            self._multiples = reduce(or_, addresses, self._multiples)
        return RamPages(self._block, named, self._page_size, tuple(addresses), tuple(positions), data, offset)

    def _counted(self, unread: Unread, flags: int) -> Steps[CountedPages]:
        """Count pages from the word of the first one on, up to what is none, or wrong."""
        normal = zero = 0
        offset = unread.offset
        if not flags & CONTINUE:
            unread.skip((yield from self._named_page(unread, flags, [], [])))
            normal, zero = (1, 0) if flags & PAGE else (0, 1)
        elif not self._block:
            raise ProtocolError(offset, "RAM page", "the name of a block before the first CONTINUE")
        while True:
            self._between = True
            whole = yield from self._whole_page(unread, bool(normal or zero))
            self._between = False
            normal, self._passed = normal + self._passed, 0
            if not whole:
                break
            view = unread.first()
            size, more, zeros = count_pages(view, self._page_size, self._end)
            if not size:
                if not (normal or zero):
                    (word,) = _U64.unpack_from(view)
                    self._check(word & ~self._mask, word & self._mask, view[_WORD], unread.offset)
                break
            unread.skip(size)
            normal, zero = normal + more, zero + zeros
        return CountedPages(self._block, self._page_size, normal, zero, offset)

    def between_pages(self) -> tuple[int, int] | None:
        """Bytes of a page and the used length of the block, where the next page of a block may begin and none has come.

        Then pages with their contents that continue those before may be passed over, whoever has looked at them.
        """
        return (self._page_size, self._end) if self._between else None

    def pass_pages(self, count: int) -> None:
        """Count pages that were passed over."""
        self._passed += count

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
        if flags & PAGE and not self._sure:
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
        contents = PAGE | CONTINUE if self._sure else _NO_CONTENTS
        last = len(view) - _WORD
        room = self._batch - len(addresses)
        while room and at <= last:
            (word,) = unpack(view, at)
            flags = word & mask
            if flags == contents:
                if room >= _RUN and len(view) - at >= _RUN * (_WORD + size):
                    # Mostly one page follows the other, and their words can be had together.
                    words = self._run.unpack_from(view, at)
                    if words == tuple(range(word, word + _RUN * size, size)) and words[-1] - flags < limit:
                        end = at + _RUN * (_WORD + size)
                        addresses.extend(range(word - flags, word - flags + _RUN * size, size))
                        positions.extend(range(base + at + _WORD, base + end, _WORD + size))
                        room -= _RUN
                        at = end
                        continue
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
