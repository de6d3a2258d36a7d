"""The two parts of a main channel: its front, which can be understood without knowing the devices, and the rest.

RAM comes first in a stream and says how long it is. So do the sections of VFIO devices, and of other iterable devices
whose forms are known (:mod:`migpool.streams.inspect.iterables`). What comes after RAM's END is the devices' states, and
nothing in the stream says where one ends. So a stream falls into two parts::

    header, configuration, commands, START ram, PART ram ..., SWITCHOVER_START, END ram | devices, EOF, VMDESC
    the front: events                                                                   | the rest: bytes

The front also ends before the first FULL section and before EOF: a source need not end RAM by an END section. A device
that is sent before RAM (virtio-mem is) ends it so early that RAM belongs to the rest. That does for a stream that is
passed on as it is, but not where pages travel on multifd channels: :meth:`Front.check_ram`.

The states of devices are opaque, so EOF cannot be told from any other zero byte; and a source that has a return path
keeps the connection open until the destination says SHUT. The end is therefore recognised by what a stream ends with::

    00                       EOF
    06, u32 length, JSON     VMDESC: an object with "page_size" and "devices"

When the last byte that has come is the last of such a JSON text, as its length field says, and the text is a
description of a machine, then the stream is whole. This needs no waiting, and no state of a device looks so: it would
have to hold the description of a machine with EOF and the right length before it, and to end with it.

A stream may also end without a description, or with an empty one. Then the last section's footer stands before EOF,
but these few bytes also occur by chance: they count only once the source has closed the connection.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from typing import Final

from migpool.errors import ProtocolError, UsageError
from migpool.streams.inspect.iterables import SIZES
from migpool.wire.commands import Command
from migpool.wire.configuration import Configuration
from migpool.wire.ram import RamBlocks, RamSectionEnd
from migpool.wire.sections import Kind, Schema, Section
from migpool.wire.stream import EOF, DeviceSection, StreamEvent, StreamReader

_BATCH: Final = 128
_BEFORE: Final = 6  # EOF, the type and the length of VMDESC
_MARK: Final = re.compile(rb"(?=\x00\x06([\x00-\x0f][\x00-\xff]{3})\{)", re.DOTALL)
_MARK_SIZE: Final = _BEFORE + 1
_CANDIDATES: Final = 64
_BARE_END: Final = re.compile(rb"\x7e[\x00-\xff]{4}\x00(\x06\x00{4})?\Z", re.DOTALL)
_BARE_SIZE: Final = 11


class _NoDevices(Schema):
    """The schema of a front: devices that would need one are an error, by name."""

    def measure(self, idstr: str, instance_id: int, version: int, kind: Kind, data: memoryview, /) -> int | None:
        del version
        if idstr in SIZES and kind is not Kind.FULL:
            return SIZES[idstr](data, kind)
        right = "RAM, a VFIO device or one that says how long its sections are, as nothing else does"
        raise ProtocolError(
            0, f"{kind.name} section before the end of RAM", f"{right}, found {idstr!r} ({instance_id})"
        )


class Front:
    """Reads the front of a main channel from bytes that come in any pieces.

    Take all events before feeding again; when there are none, look whether ``rest`` has become something.

    Arguments:
        multifd: whether there are multifd channels beside it.

    Attributes:
        rest: None while the front lasts; then what of the input so far lies behind it. Later input belongs to it too.
    """

    __slots__ = ("_boundary", "_ram_ended", "_ram_known", "_reader", "rest")

    def __init__(self, *, multifd: bool = False) -> None:
        self._reader = StreamReader(_NoDevices(), batch=_BATCH, multifd=multifd)
        self._boundary = -1  # where an item ended; what follows may have begun to be read since
        self._ram_ended = False
        self._ram_known = False
        self.rest: bytes | None = None

    @property
    def offset(self) -> int:
        """How many bytes have been understood."""
        return self._reader.offset

    def feed(self, data: bytes) -> None:
        """Add input.

        Raises:
            UsageError: the front has ended.
        """
        if self.rest is not None:
            raise UsageError("the front of the stream has ended: what comes is the devices' states")
        self._reader.feed(data)

    def next_event(self) -> StreamEvent | None:
        """The next event, or None if more input is needed or the front has ended.

        Raises:
            ProtocolError: the bytes are no stream, or hold a section before the end of RAM whose length nothing says.
        """
        if self.rest is not None or (self.offset == self._boundary and self._ends_here()):
            return None
        event = self._reader.next_event()
        if event is not None:
            if isinstance(event, Configuration | Command | Section | DeviceSection | RamSectionEnd):
                self._boundary = self.offset
            self._ram_known = self._ram_known or isinstance(event, RamBlocks)
            self._ram_ended = isinstance(event, RamSectionEnd) and event.head.kind is Kind.END
        return event

    def check_ram(self) -> None:
        """See to it that the front, which has ended, had RAM in it.

        Raises:
            ProtocolError: a device comes before RAM.
        """
        if not self._ram_known:
            right = "RAM before all devices, found a device that is sent earlier: this goes without multifd only"
            raise ProtocolError(self.offset, "FULL section", right)

    def end(self) -> None:
        """Declare that no more input comes.

        Raises:
            ProtocolError: the stream has no rest.
        """
        if self.rest is None:
            self._reader.end()
            raise ProtocolError(self.offset, "next item", "a section, found the end of the input")

    def _ends_here(self) -> bool:
        waiting = self._reader.pending
        if self._ram_ended or (waiting and self._reader.ahead(1)[0] in (Kind.FULL, EOF)):
            self.rest = self._reader.ahead(waiting)
            return True
        if waiting:
            self._boundary = -1  # the next item's type is known, and it belongs to the front
        return False


class EndFinder:
    """Watches the devices' states go by and says whether a stream that ends here would be whole.

    It keeps a few bytes and a few numbers, however much goes by.

    Arguments:
        read: gives bytes that have gone by once more: where they begin, counted as ``feed`` counts, and how many.
    """

    __slots__ = ("_candidates", "_read", "_tail", "_total")

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._total = 0
        self._tail = b""
        self._candidates: deque[tuple[int, int]] = deque(maxlen=_CANDIDATES)

    def feed(self, data: bytes | memoryview) -> None:
        """Note the bytes that come next."""
        joined = self._tail + bytes(data)
        base = self._total - len(self._tail)
        self._total += len(data)
        for found in _MARK.finditer(joined, max(0, len(self._tail) - _MARK_SIZE + 1)):
            begin = base + found.start() + _BEFORE
            self._candidates.append((begin, begin + int.from_bytes(found[1], "big")))
        while self._candidates and self._candidates[0][1] < self._total:
            self._candidates.popleft()
        self._tail = joined[-_BARE_SIZE:]

    @property
    def described(self) -> bool:
        """Whether the bytes so far end with EOF and the description of a machine: nothing can follow."""
        return any(end == self._total and self._is_description(begin, end) for begin, end in self._candidates)

    @property
    def whole(self) -> bool:
        """Whether a stream that is known to have ended here is whole: described, or EOF behind a footer."""
        return self.described or _BARE_END.search(self._tail) is not None

    def _is_description(self, begin: int, end: int) -> bool:
        try:
            value = json.loads(self._read(begin, end - begin))
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and "page_size" in value and "devices" in value
