"""Unwraps a stream, whatever it is wrapped in, layer by layer."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from migpool.errors import ProtocolError, UsageError
from migpool.streams.envelope.source import DamagedData, FileSource, PipeSource, SeekableSource, Source
from migpool.wire.stream import FILE_MAGIC
from migpool.wire.vmdesc import find

_LAYERS: Final = 4
_LOOK: Final = 512
_BEGINNING: Final = 4 << 20
_ZEROS: Final = 16 << 20
"""How many zeros may stand before a stream: where ``file:NAME,offset=N`` left room."""
_TAIL: Final = 256 << 10
_TAIL_LIMIT: Final = 64 << 20


@dataclass(slots=True)
class Opened:
    """A stream without its wrappings.

    Attributes:
        source: its bytes.
        envelope: what it was wrapped in, a sentence each, from the outside in.
        xml: the machine's definition, if a libvirt save image had it.
        first: its first bytes.
        begin: how many bytes of the source have been read as wrappings.
    """

    source: Source
    envelope: list[str] = field(default_factory=list)
    xml: str | None = None
    first: bytes = b""
    begin: int = 0

    def beginning(self) -> bytes:
        """The first bytes, as many as can be had again."""
        source = self.source
        if isinstance(source, SeekableSource) and not self.envelope:
            return source.at(source.begin, _BEGINNING)
        return self.first

    def description(self) -> tuple[int, bytes] | None:
        """Where the description at the stream's end is and its text, if that can be had without reading all before it.

        JSON has no byte 06, and a description begins with one: so a piece of the end that has a 06 decides.
        """
        size = _TAIL
        while (last := self.source.last(size)) is not None:
            begin, data = last
            try:
                at, text = find(data)
                return (begin + at - self.begin, text) if begin + at >= self.begin else None
            except ProtocolError:
                if not begin or size >= _TAIL_LIMIT or b"\x06" in data[8:]:
                    return None
            size *= 2
        return None


def open_descriptor(descriptor: int, where: str, *, offset: int | None = None, snapshot: str | None = None) -> Opened:
    """Unwrap what an open file has, from its beginning on if it can be read from any place.

    Arguments:
        descriptor: of the file, which stays open, and the caller's.
        where: how to call it.
        offset: where in the file the stream begins; by default behind zeros, if there are any.
        snapshot: which one of a qcow2 image.

    Raises:
        UsageError: it is empty, or wrapped in what cannot be undone.
    """
    kind = os.fstat(descriptor).st_mode
    # What somebody has read of a file is gone, as of a pipe.
    seekable = (stat.S_ISREG(kind) or stat.S_ISBLK(kind)) and not os.lseek(descriptor, 0, os.SEEK_CUR)
    source: Source = FileSource(descriptor, offset or 0) if seekable else PipeSource(_Descriptor(descriptor))
    if not seekable and offset:
        _skip(source, offset)
    if not source.peek(1):
        raise UsageError(
            f"{where} is empty: there is no stream in it" if not offset else f"{where} ends before --offset"
        )
    return unwrapped(source, where, offset=offset, snapshot=snapshot)


def unwrapped(source: Source, where: str, *, offset: int | None = None, snapshot: str | None = None) -> Opened:
    """Unwrap a source; the arguments are those of :func:`open_descriptor`."""
    opened = Opened(source)
    if offset:
        opened.envelope.append(f"begins at byte {offset} of the file")
    for _ in range(_LAYERS):
        try:
            opened.first = opened.source.peek(_LOOK)
        except DamagedData as error:
            raise UsageError(f"{where} cannot be decompressed: {error}") from None
        if not opened.first:
            raise UsageError(f"{where} is empty: there is no stream in it ({', '.join(opened.envelope)})")
        if not _unwrap(opened, where, offset, snapshot):
            break
    opened.begin = opened.source.position
    return opened


def _unwrap(opened: Opened, where: str, offset: int | None, snapshot: str | None) -> bool:
    """Take one layer off; whether there was one."""
    source, first = opened.source, opened.first
    if first.startswith(FILE_MAGIC):
        return False
    # Most streams are wrapped in nothing, and need none of these.
    from migpool.streams.envelope import libvirt, qcow2
    from migpool.streams.envelope.compression import COMPRESSIONS, Unpacked, compression_of

    begin = (offset or 0) + source.position
    if first.startswith((libvirt.WHOLE, libvirt.PARTIAL)):
        image = libvirt.read_image(source, where)
        opened.envelope.append(str(image))
        opened.xml = image.xml
        if image.form in COMPRESSIONS:
            begin = (offset or 0) + source.position
            opened.source = Unpacked(source, COMPRESSIONS[image.form], where, begin)
        elif not source.peek(1)[:1]:
            raise UsageError(f"{where} is a {image} that ends before the stream")
        return True
    if first.startswith(qcow2.MAGIC) and isinstance(source, SeekableSource) and not source.position:
        image_of = qcow2.Image(source, where)
        chosen = image_of.choose(snapshot)
        opened.envelope.append(f"snapshot {chosen.name!r} of {len(image_of.snapshots)} inside of a qcow2 image")
        opened.source = qcow2.SnapshotState(image_of, chosen)
        return True
    how = compression_of(first)
    if how is not None:
        opened.envelope.append(f"compressed with {how.name}")
        opened.source = Unpacked(source, how, where, begin)
        return True
    if first and not any(first) and offset is None:
        zeros = _zeros_before(source)
        if zeros:
            opened.envelope.append(f"begins behind {zeros} zeros")
            return True
    return False


def _zeros_before(source: Source) -> int:
    """Pass over zeros before a stream; how many there were, 0 if there is none behind them."""
    size = _LOOK
    while size <= _ZEROS:
        size *= 2
        ahead = source.peek(size)
        rest = ahead.lstrip(b"\0")
        if len(rest) >= len(FILE_MAGIC) or (rest and len(ahead) < size):
            zeros = len(ahead) - len(rest)
            if not rest.startswith(FILE_MAGIC):
                return 0
            _skip(source, zeros)
            return zeros
        if len(ahead) < size:
            return 0
    return 0


def _skip(source: Source, count: int) -> None:
    while count and (piece := source.read(count)):
        count -= len(piece)


@contextmanager
def open_path(path: Path, *, offset: int | None = None, snapshot: str | None = None) -> Iterator[Opened]:
    """Open and unwrap a file or a named pipe, as long as it is entered.

    Raises:
        UsageError: it cannot be read, is empty, or is wrapped in what cannot be undone.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            raise UsageError(f"{path} is a device that gives bytes without end: name a file, or pipe it into -")
        try:
            opened = open_descriptor(descriptor, str(path), offset=offset, snapshot=snapshot)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
        yield opened
    finally:
        os.close(descriptor)


class _Descriptor:
    """A descriptor as a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int, /) -> bytes:
        return os.read(self._descriptor, size)
