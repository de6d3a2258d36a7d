"""Reads a stream from a file or a pipe into its summary.

A file is mapped into memory and fed in slices without a copy; what has been walked is given back to the system, so a
recording of any size takes constant memory. Of a pipe, pages of RAM are let go at once and the device sections behind
them are kept until the description has come: at most ``limit`` bytes.
"""

from __future__ import annotations

import gzip
import mmap
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from migpool.errors import ProtocolError, UsageError
from migpool.streams.inspect.boundaries import Boundaries
from migpool.streams.inspect.summary import StreamSummary
from migpool.streams.inspect.walk import StreamWalk, Wanted
from migpool.wire.stream import StreamReader
from migpool.wire.unread import Buffer
from migpool.wire.vmdesc import find

LIMIT: Final = 256 << 20
"""Bytes that one payload, package or description may have, and that are kept of a pipe."""

_SLICE: Final = 8 << 20
_CHUNK: Final = 1 << 20
_BATCH: Final = 1024
_GZIP: Final = b"\x1f\x8b"
MULTIFD_MAGIC: Final = bytes.fromhex("11223344")
_CHANNEL: Final = "this begins as a multifd channel does: inspect the main channel's file, or the whole recording"


class Readable(Protocol):
    """A pipe."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        ...


def nothing_wanted(idstr: str, instance_id: int) -> bool:
    """Keep no payload."""
    del idstr, instance_id
    return False


def inspect_file(path: Path, wanted: Wanted = nothing_wanted, *, limit: int = LIMIT) -> StreamSummary:
    """Inspect a file, a named pipe, or a file compressed with gzip.

    Arguments:
        path: where it is.
        wanted: which sections' payloads to keep.
        limit: how many bytes one payload may have.

    Raises:
        UsageError: it cannot be read, or is empty. Wrong bytes raise nothing: the summary has the problem.
    """
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return inspect_pipe(file, wanted, limit=limit)
            return inspect_mapped(file.fileno(), str(path), wanted, limit)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None


def inspect_mapped(descriptor: int, where: str, wanted: Wanted, limit: int) -> StreamSummary:
    """Inspect an open regular file from its beginning on.

    Raises:
        UsageError: it is empty, or not what gzip makes although it begins so.
    """
    size = os.fstat(descriptor).st_size
    if not size:
        raise UsageError(f"{where} is empty: there is no stream in it")
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapped:
        if mapped[:2] == _GZIP:
            try:
                with os.fdopen(os.dup(descriptor), "rb") as file, gzip.GzipFile(fileobj=file) as unpacked:
                    return inspect_pipe(unpacked, wanted, limit=limit)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise UsageError(f"{where} cannot be decompressed: {error}") from None
        with memoryview(mapped) as view:
            return _inspect(mapped, _slices(view, mapped), wanted, limit)


def inspect_bytes(stream: bytes, wanted: Wanted = nothing_wanted) -> StreamSummary:
    """Inspect a whole stream that is in memory."""
    return _inspect(stream, iter([stream]), wanted, LIMIT)


def inspect_pipe(pipe: Readable, wanted: Wanted = nothing_wanted, *, limit: int = LIMIT) -> StreamSummary:
    """Inspect what comes out of a pipe, to its end.

    Arguments:
        pipe: where from. It has no time limit: its writer's end is the stream's.
        wanted: which sections' payloads to keep.
        limit: how many bytes one payload may have, and how many are kept until the description comes.
    """
    return _walk(Boundaries(), iter(lambda: pipe.read(_CHUNK), b""), wanted, limit)


def _inspect(stream: bytes | mmap.mmap, slices: Iterator[Buffer], wanted: Wanted, limit: int) -> StreamSummary:
    """Look for the description at the end, then walk."""
    try:
        offset, text = find(stream)
        boundaries = Boundaries(text, offset)
    except ProtocolError:
        boundaries = Boundaries()
    return _walk(boundaries, slices, wanted, limit)


def _slices(view: memoryview, mapped: mmap.mmap) -> Iterator[Buffer]:
    """The file in slices; what was handed out two slices ago has been walked, and its memory is given back."""
    for at in range(0, len(view), _SLICE):
        if at >= 2 * _SLICE:
            mapped.madvise(mmap.MADV_DONTNEED, at - 2 * _SLICE, _SLICE)
        with view[at : at + _SLICE] as part:
            yield part


def _walk(boundaries: Boundaries, pieces: Iterator[Buffer], wanted: Wanted, limit: int) -> StreamSummary:
    page_size = boundaries.page_size
    if not 1 << 10 <= page_size <= 1 << 19 or page_size & (page_size - 1):
        page_size = 4096  # no page is of the size that is stated
    reader = StreamReader(boundaries, limit=limit, batch=_BATCH, older=True, page_size=page_size)
    boundaries.reader = reader
    walk = StreamWalk(boundaries, wanted)
    size = 0
    error: ProtocolError | None = None
    begins = b""
    for piece in pieces:
        size += len(piece)
        begins = begins or bytes(piece[:4])
        if error is None:
            reader.feed(piece)
            error = _take(reader, walk)
    if error is None:
        boundaries.ended = True
        error = _end(reader, walk)
    summary = walk.summary(reader, size, error, [_CHANNEL] if begins == MULTIFD_MAGIC else [])
    boundaries.reader = None
    return summary


def _take(reader: StreamReader, walk: StreamWalk) -> ProtocolError | None:
    try:
        for event in reader.events():
            walk.take(event, reader)
    except ProtocolError as error:
        return _freed(error)
    return None


def _end(reader: StreamReader, walk: StreamWalk) -> ProtocolError | None:
    """Declare the end, and take the events that only then can be had."""
    ended: ProtocolError | None = None
    try:
        reader.end()
    except ProtocolError as error:
        ended = _freed(error)
    again = _take(reader, walk)
    return ended or again


def _freed(error: ProtocolError) -> ProtocolError:
    """Without the frames that it came through: they have views of the mapped file, which then could not be closed."""
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None:
            waiting += [each.__cause__, each.__context__]
            each.__traceback__ = each.__cause__ = each.__context__ = None
    return error
