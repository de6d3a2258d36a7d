"""Reads a stream, whatever it is wrapped in, into its summary.

Of a file, the description is looked for at its end first, and then it is read once, in pieces that are let go when they
have been walked: a recording of any size takes constant memory. Long runs of pages in a large one are found by others
(:mod:`scouts`) and passed over. Of a pipe, and of what is compressed, pages of RAM are let go at once and the device
sections behind them are kept until the description has come: at most ``limit`` bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

from migpool.errors import ProtocolError
from migpool.streams.envelope.foreign import foreign
from migpool.streams.envelope.opening import Opened
from migpool.streams.envelope.source import PIECE, BytesSource, DamagedData, FileSource, PipeSource
from migpool.streams.inspect.boundaries import Boundaries
from migpool.streams.inspect.summary import StreamSummary
from migpool.streams.inspect.walk import StreamWalk, Wanted
from migpool.wire.pageruns import WORD
from migpool.wire.stream import POSTCOPY_RESUMED, StreamEvent, StreamReader, header

if TYPE_CHECKING:
    from migpool.streams.inspect.scouts import Scouts

LIMIT: Final = 256 << 20
"""Bytes that one payload, package or description may have, and that are kept of a pipe."""

_BATCH: Final = 1024
_SHORT: Final = 16 << 10
"""How much of a file is read behind a long run of pages that was passed over."""
_LONG_RUN: Final = 64
_LARGE: Final = 32 << 20
"""Bytes of a file in which others go ahead of who reads it."""
FILE_HEADER: Final = header()
MULTIFD_MAGIC: Final = bytes.fromhex("11223344")
_CHANNEL: Final = "this begins as a multifd channel does: inspect the main channel's file, or the whole recording"


def nothing_wanted(idstr: str, instance_id: int) -> bool:
    """Keep no payload."""
    del idstr, instance_id
    return False


def inspect_bytes(stream: bytes, wanted: Wanted = nothing_wanted) -> StreamSummary:
    """Inspect a whole stream that is in memory, wrapped in nothing."""
    return Inspection(Opened(BytesSource(stream), first=stream[:512]), wanted).summary()


class Inspection:
    """A walk through a stream that has been unwrapped, to its end or to the first error.

    Arguments:
        opened: the stream.
        wanted: which sections' payloads to keep.
        limit: how many bytes one payload may have, and how many are kept of a pipe.
    """

    def __init__(self, opened: Opened, wanted: Wanted = nothing_wanted, *, limit: int = LIMIT) -> None:
        self._opened = opened
        known = opened.description()
        boundaries = Boundaries() if known is None else Boundaries(known[1], known[0])
        page_size = boundaries.page_size
        reader = StreamReader(boundaries, limit=limit, batch=_BATCH, older=True, stored=True, page_size=page_size)
        boundaries.reader = reader
        self._boundaries, self._reader = boundaries, reader
        self._walk = StreamWalk(boundaries, wanted)
        self._size = 0
        self._damage: list[str] = []
        self._error: ProtocolError | None = None
        self._items: Iterator[StreamEvent] = self._events()
        self._scouts: Scouts | None = None
        self._summary: StreamSummary | None = None

    @property
    def offset(self) -> int:
        """How many bytes have been understood so far."""
        return self._reader.offset

    def __iter__(self) -> Iterator[StreamEvent]:
        """Every event that has not been had yet, in the order of the stream; those of a package behind it.

        An error ends it, and stands in the summary.
        """
        return self._items

    def summary(self) -> StreamSummary:
        """What is in the stream; what has not been walked yet is walked now, and its pages are only counted."""
        if self._summary is None:
            self._reader.count_pages()
            with self._scouted():
                for _ in self._items:
                    pass
            opened, error = self._opened, self._error
            notes = [_CHANNEL] if opened.first.startswith(MULTIFD_MAGIC) else self._damage
            summary = self._walk.summary(self._reader, self._size, error, [*notes])
            summary.envelope, summary.xml = list(opened.envelope), opened.xml
            self._summary = summary
        return self._summary

    def _scouted(self) -> AbstractContextManager[object]:
        """Scouts, if there is a large file that has not been read yet."""
        source = self._opened.source
        if self._size or not isinstance(source, FileSource) or source.end - source.place < _LARGE:
            return nullcontext()
        from migpool.streams.inspect.scouts import Scouts, can_fork  # small streams do without

        if not can_fork():
            return nullcontext()
        self._scouts = Scouts(source.descriptor, source.end, len(os.sched_getaffinity(0)))
        return self._scouts

    def _events(self) -> Iterator[StreamEvent]:
        opened, reader = self._opened, self._reader
        for piece in self._pieces():
            self._size += len(piece)
            if self._error is None:
                reader.feed(piece)
                yield from self._taken()
            if self._error is not None and not isinstance(opened.source, PipeSource):
                self._size += opened.source.left() or 0  # which nobody will look at, and of what is packed nobody knows
                break
        if self._error is None:
            self._boundaries.ended = True
            ended: ProtocolError | None = None
            try:
                reader.end()
            except ProtocolError as error:
                ended = error
            yield from self._taken()  # what can be had only now
            self._error = ended or self._error
        if self._error is None and self._damage:
            self._error = ProtocolError(reader.offset, "compressed data", self._damage[0])
        begins = POSTCOPY_RESUMED if opened.first.startswith(POSTCOPY_RESUMED) else FILE_HEADER
        if self._error is not None and not opened.first.startswith(begins[: max(1, len(opened.first))]):
            right = f"a migration stream (QEVM), found {foreign(opened.beginning())}"
            self._error = ProtocolError(0, "file header", right)
        self._boundaries.reader = None

    def _pieces(self) -> Iterator[bytes]:
        """What there is to read; why no more can be read is kept."""
        source = self._opened.source
        try:
            if isinstance(source, FileSource) and self._scouts is not None:
                yield from self._between_runs(source, self._scouts)
            while piece := source.read():
                yield piece
        except DamagedData as error:
            self._damage.append(str(error))

    def _between_runs(self, source: FileSource, scouts: Scouts) -> Iterator[bytes]:
        """What must be read of a file when long runs of pages, of which none follows another, are passed over."""
        size = _SHORT
        while piece := source.read(size):
            yield piece
            if (waiting := self._reader.between_pages()) is None:
                continue
            page_size, used = waiting
            pending = self._reader.pending
            count = scouts.count(source.place - pending, page_size, used)
            if count:
                passed = count * (WORD + page_size)
                self._reader.pass_pages(count, passed)
                source.leap(passed - pending)
                self._size += passed - pending
            size = _SHORT if count >= _LONG_RUN else min(2 * size, PIECE)

    def _taken(self) -> Iterator[StreamEvent]:
        try:
            for event in self._reader.events():
                yield from self._walk.take(event, self._reader)
        except ProtocolError as error:
            self._error = error
