"""The RAM in a recorded stream: its blocks, and what stood in them.

RAM comes before the devices, whose sections nothing measures here, and ends with its END section or with the first of
them. A page that the source sent again stands there again, later: the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from migpool.errors import DescriptionError, ProtocolError
from migpool.vmsd.jsonform import StreamBytes
from migpool.wire.configuration import Configuration
from migpool.wire.ram import RamBlocks, RamPages, RamSectionEnd
from migpool.wire.ramforms import RamPacked
from migpool.wire.sections import Kind, Schema
from migpool.wire.stream import StreamEvent, StreamReader

__all__ = ["CapturedRam", "captured_ram"]

_PIECE: Final = 1 << 20


class _DeviceBegins(Exception):
    """A device's section has come, and with it the end of RAM."""


class _NoDevices(Schema):
    def measure(self, *_: object) -> int | None:
        raise _DeviceBegins


@dataclass(frozen=True, slots=True)
class CapturedRam:
    """The RAM of a recorded machine.

    Arguments:
        page_size: bytes of a page.
        blocks: bytes of each block, by its name, in the stream's order.
        pages: the pages as they stand in the stream, once: block, address in it, and content, ``None`` for zeros.
    """

    page_size: int
    blocks: Mapping[str, int]
    pages: Iterator[tuple[str, int, memoryview | None]]


def captured_ram(data: StreamBytes, where: str) -> CapturedRam:
    """Read the RAM of a recorded stream: the list of its blocks at once, its pages as they are taken.

    Arguments:
        data: the stream; of which no more is read than is needed.
        where: how to call it in an error.

    Raises:
        DescriptionError: it has no RAM, or a device before it; the pages raise it, too, for what cannot be read.
    """
    events = _events(data, where)
    page_size = 0
    for event in events:
        if isinstance(event, Configuration):
            page_size = event.page_size
        if isinstance(event, RamBlocks):
            blocks = {block.name: block.used_length for block in event.blocks}
            return CapturedRam(page_size, blocks, _pages(events))
    raise DescriptionError(f"{where}: the stream has no RAM, or a device before it")


def _events(data: StreamBytes, where: str) -> Iterator[StreamEvent]:
    """The stream up to the end of RAM."""
    reader = StreamReader(_NoDevices())
    try:
        for begin in range(0, len(data), _PIECE):
            reader.feed(data[begin : begin + _PIECE])
            for event in reader.events():
                yield event
                if isinstance(event, RamSectionEnd) and event.head.kind is Kind.END:
                    return
        reader.end()
    except _DeviceBegins:
        return
    except ProtocolError as error:
        raise DescriptionError(f"{where}: its RAM cannot be read: {error}") from None


def _pages(events: Iterator[StreamEvent]) -> Iterator[tuple[str, int, memoryview | None]]:
    for event in events:
        if isinstance(event, RamPages):
            yield from ((event.block, address, page) for address, page in event)
        elif isinstance(event, RamPacked):
            raise DescriptionError(f"its RAM is packed page by page (byte {event.offset}): record it without xbzrle")
