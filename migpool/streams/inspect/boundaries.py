"""Where the payloads of device sections end: by the stream's description or, without one, by their footers.

A section says nothing about its length. The description at the stream's end does; in a file it can be found first, from
a pipe it comes when everything else has come, so that the sections are kept until then. Without a description the end
of a section is where its footer stands **and** an item that can come next begins behind it. That is a guess, since
both can occur in a payload; it is made only if there is exactly one such place in all that is left of the stream.

A ``dirty-bitmap`` section (the capability dirty-bitmaps) says itself how long it is, as seen with QEMU 10.0: records
until EOS, each a u8 of flags and then, in this order, what the flags say (big-endian)::

    08 DEVICE_NAME  u8 n, name[n]
    04 BITMAP_NAME  u8 n, name[n]
    10 START        u32 granularity, u8 flags of the bitmap
    20 COMPLETE     nothing
    40 BITS         u64 first sector, u32 sectors; without 02 ZEROES also u64 size, bits[size]
    01 EOS          alone: the end of the payload
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from struct import Struct
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.inspect.summary import DescriptionSummary, Framing
from migpool.wire.records import Mark, begins_with_record, records_size
from migpool.wire.sections import Kind, Schema, SectionHead, footer
from migpool.wire.stream import StreamReader
from migpool.wire.vmdesc import find, parse, payload_size

BITMAP_IDSTR: Final = "dirty-bitmap"
PATIENCE: Final = 16 << 20
"""Bytes of a pipe after which the end of a section is guessed instead of waited for."""
IMPATIENT_GUESSES: Final = 16
"""How often that may happen, since each looks through as many bytes."""

# What may come behind a section: another one with a name, PART or END, a command, EOF, the end of a package.
_NEXT: Final = (
    rb"(?=[\x01\x04][\s\S]{4}[\x01-\xff][!-~]"
    rb"|[\x02\x03][\s\S]{4}"
    rb"|\x08\x00[\x01-\x0b]"
    rb"|\x00(?:\Z|\x06[\s\S]{4})"
    rb"|\Z)"
)
_ANY_FOOTER: Final = re.compile(rb"\x7e([\s\S]{4})" + _NEXT)
_LENGTH: Final = Struct(">I")
_END_MARK: Final = Mark.END.to_bytes(8, "big")

_EOS, _ZEROES, _BITMAP_NAME, _DEVICE_NAME, _START, _COMPLETE, _BITS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
_BITMAP_KINDS: Final = frozenset({_START, _COMPLETE, _BITS, _BITS | _ZEROES})
_RECORD_LIMIT: Final = 1 << 16


class Boundaries(Schema):
    """The schema with which a stream is inspected.

    Arguments:
        text: the stream's description, if it is known beforehand.
        offset: where in the stream its item begins.

    Attributes:
        reader: who asks; to be set before the first event is read.
        ended: there is nothing behind the bytes that the reader has.
        fault: why the description cannot be used.
        description: what was known of it beforehand.
        page_size: bytes of a page of RAM, as the description says.
        looks_ahead: with the last bytes a description may come.
    """

    def __init__(self, text: bytes | None = None, offset: int = 0) -> None:
        self.reader: StreamReader | None = None
        self.ended = False
        self.fault: str | None = None
        self.looks_ahead = text is None
        self._framings: dict[int, Framing] = {}
        self._sizes: dict[tuple[str, int], tuple[int, Framing]] = {}
        self._candidates: dict[bytes, list[int]] | None = None
        self._impatient = IMPATIENT_GUESSES
        self.page_size = 4096
        self.description: DescriptionSummary | None = None
        if text is not None:
            self.description = self.learn(text, offset)

    @contextmanager
    def package(self) -> Iterator[None]:
        """While it is entered, the bytes of one package are all there is."""
        before = self.ended, self.looks_ahead, self._candidates
        self.ended, self.looks_ahead, self._candidates = True, False, None
        yield
        self.ended, self.looks_ahead, self._candidates = before

    def framing(self, head: SectionHead) -> Framing:
        """How the end of a section was found."""
        return self._framings.pop(head.offset, Framing.SELF)

    def measure(self, idstr: str, instance_id: int, version: int, kind: Kind, data: memoryview, /) -> int | None:
        """How long the payload is; the reader knows VFIO devices, other iterable ones begin with a record."""
        del version
        assert self.reader is not None
        assert self.reader.section is not None
        head = self.reader.section
        if idstr == BITMAP_IDSTR:
            return bitmaps_size(data)
        if kind is not Kind.FULL and begins_with_record(data):
            return records_size(data)
        if self.ended and self.looks_ahead:
            self.looks_ahead = False
            self._look_for_description(data)
        known = self._sizes.get((idstr, instance_id))
        if known is not None and kind is Kind.FULL:
            self._framings[head.offset] = known[1]
            return known[0]
        if idstr.endswith("/vfio"):
            size = self._end_of_config(data, head)
        else:
            size = self._counted(data, head) if kind is Kind.START else None
            if size is None:
                size = self._by_footer(data, head)
        if size is not None:
            self._framings[head.offset] = Framing.GUESSED
        return size

    def learn(self, text: bytes, offset: int = 0) -> DescriptionSummary:
        """Take the sizes out of a description whose item begins at ``offset``."""
        if not text:
            return DescriptionSummary(offset, 0, 0)
        try:
            description = parse(text)
        except ProtocolError as error:
            self.fault = error.expected
            return DescriptionSummary(offset, len(text), None, error.expected)
        self.page_size = description.page_size
        for device in description.devices:
            framing = Framing.OPAQUE if device.layout is None else Framing.DESCRIBED
            self._sizes[device.name, device.instance_id] = payload_size(device), framing
        over_multifd = len(description.over_multifd)
        return DescriptionSummary(offset, len(text), len(description.devices), over_multifd=over_multifd)

    def _look_for_description(self, data: memoryview) -> None:
        with suppress(ProtocolError):
            self.learn(find(bytes(data))[1])

    def _end_of_config(self, data: memoryview, head: SectionHead) -> int | None:
        """A VFIO device's config ends with the end mark, behind which the section's footer stands."""
        found = bytes(data).find(_END_MARK + footer(head.section_id))
        if found < 0 and self.ended:
            raise ProtocolError(0, f"config of {head}", "the end mark and the section's footer, found neither")
        return None if found < 0 else found

    def _counted(self, data: memoryview, head: SectionHead) -> int | None:
        """The set-up data of a device that is not iterable: migpool puts its length before it."""
        size = _LENGTH.size + _LENGTH.unpack_from(data)[0] if len(data) >= _LENGTH.size else 0
        end = footer(head.section_id)
        return size if size and data[size : size + len(end)] == end else None

    def _by_footer(self, data: memoryview, head: SectionHead) -> int | None:
        item = f"payload of {head}"
        why = "the stream has no description (VMDESC) of it"
        if self.fault is not None:
            why = f"the stream's description cannot be used ({self.fault})"
        elif self._sizes:
            why = "the stream's description does not have it"
        if self.ended:
            if self.reader is not None and self.reader.footers is False:
                raise ProtocolError(0, item, f"a known length: {why}, and sections have no footers")
            ends = self._ends_at_last(data, head)
        elif len(data) > PATIENCE and self._impatient:
            self._impatient -= 1
            pattern = re.compile(re.escape(footer(head.section_id)) + _NEXT)
            ends = [found.start() for found in pattern.finditer(data)]
        else:
            return None
        if len(ends) == 1:
            return ends[0]
        found = f"{len(ends)} of them" if ends else f"none in {len(data)} bytes and the end of the input"
        mark = footer(head.section_id).hex()
        raise ProtocolError(0, item, f"one footer {mark} with an item behind it, since {why}; found {found}")

    def _ends_at_last(self, data: memoryview, head: SectionHead) -> list[int]:
        """Where the payload may end, once ``data`` is all that is left.

        Every footer with an item behind it is gathered in one pass for all sections, by section id and with its
        distance from the end, so that many sections cost no more than one.
        """
        if self._candidates is None:
            self._candidates = {}
            for match in _ANY_FOOTER.finditer(data):
                self._candidates.setdefault(match[1], []).append(len(data) - match.start())
        left = len(data)
        return [left - place for place in self._candidates.get(footer(head.section_id)[1:], []) if place <= left]


def bitmaps_size(data: memoryview) -> int | None:
    """How long the payload is that begins ``data``; None if ``data`` ends before it.

    Raises:
        ProtocolError: no such payload begins so; its offset is counted from the beginning of ``data``.
    """
    at = 0
    for _ in range(_RECORD_LIMIT):
        if at >= len(data):
            return None
        start, flags = at, data[at]
        at += 1
        if flags == _EOS:
            return at
        if flags & ~(_BITMAP_NAME | _DEVICE_NAME) not in _BITMAP_KINDS:
            raise ProtocolError(start, "record of dirty bitmaps", f"flags 01, 10, 20, 40 or 42, found {flags:02x}")
        for flag in (_DEVICE_NAME, _BITMAP_NAME):
            if flags & flag:
                if at >= len(data):
                    return None
                at += 1 + data[at]
        if flags & _START:
            at += 5
        if flags & _BITS:
            at += 12
            if not flags & _ZEROES:
                at += 8
                if at > len(data):
                    return None
                at += int.from_bytes(data[at - 8 : at], "big")
    raise ProtocolError(at, "record of dirty bitmaps", f"at most {_RECORD_LIMIT} records in one section, found more")
