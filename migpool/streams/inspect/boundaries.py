"""Where the payloads of device sections end: by the stream's description or, without one, by their footers.

A section says nothing about its length. The description at the stream's end does; in a file it can be found first, from
a pipe it comes when everything else has come, so that the sections are kept until then. Without a description the end
of a section is where its footer stands **and** an item that can come next begins behind it (:mod:`next_items`). Since
both can occur in a payload,

* a FULL section ends so only if there is exactly one such place in all that is left of the stream, and is called a
  guess;
* the START, PART and END sections of an iterable device end at the first such place, and are called opaque. There are
  many of them, so what is left of the stream has many footers of theirs; and they are walked before what is behind them
  has come.

Iterable devices whose form is known need neither: :mod:`iterables`, and the records of VFIO devices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from struct import Struct
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.inspect.iterables import SIZES
from migpool.streams.inspect.next_items import ANY_FOOTER, can_follow
from migpool.streams.inspect.summary import DescriptionSummary, Framing
from migpool.wire.configuration import possible_page_size
from migpool.wire.records import CONFIG_FRAME, Mark, begins_with_record, records_size
from migpool.wire.sections import FOOTER_SIZE, Kind, Schema, SectionHead, footer
from migpool.wire.stream import VFIO_SUFFIX, StreamReader
from migpool.wire.unread import Buffer
from migpool.wire.vmdesc import DESCRIPTION_FOLLOWS, DESCRIPTION_HEAD, parse, payload_size

PATIENCE: Final = 16 << 20
"""Bytes of a pipe after which the end of a section is guessed instead of waited for."""
IMPATIENT_GUESSES: Final = 16
"""How often that may happen, since each looks through as many bytes."""

_NOTES: Final = 8
_LENGTH: Final = Struct(">I")
_END_MARK: Final = Mark.END.to_bytes(8, "big")


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
        text: the description itself, if it can be used.
        notes: what is wrong with it, a sentence each.
        page_size: bytes of a page of RAM, as the description says; ``None`` without one, or if no page is so large.
    """

    def __init__(self, text: bytes | None = None, offset: int = 0) -> None:
        self.reader: StreamReader | None = None
        self.ended = False
        self.fault: str | None = None
        self._looks_ahead = text is None
        self._looked = 0
        self._framings: dict[int, Framing] = {}
        self._sizes: dict[tuple[str, int], tuple[int, Framing]] = {}
        self._candidates: dict[bytes, list[int]] | None = None
        self._impatient = IMPATIENT_GUESSES
        self.page_size: int | None = None
        self.text: bytes | None = None
        self.notes: list[str] = []
        self.description: DescriptionSummary | None = None
        if text is not None:
            self.description = self.learn(text, offset)

    @contextmanager
    def package(self) -> Iterator[None]:
        """While it is entered, the bytes of one package are all there is."""
        before = self.ended, self._looks_ahead, self._candidates
        self.ended, self._looks_ahead, self._candidates = True, False, None
        yield
        self.ended, self._looks_ahead, self._candidates = before

    def framing(self, head: SectionHead) -> Framing:
        """How the end of a section was found."""
        return self._framings.pop(head.offset, Framing.SELF)

    def measure(self, idstr: str, instance_id: int, version: int, kind: Kind, data: memoryview, /) -> int | None:
        """How long the payload is."""
        del version
        assert self.reader is not None
        assert self.reader.section is not None
        head = self.reader.section
        if self._looks_ahead:
            self._look_for_description(data)
        described = self._sizes.get((idstr, instance_id)) if kind is Kind.FULL else None
        with suppress(ProtocolError):  # another form than the one that is known, so it ends at its footer
            if idstr in SIZES:
                size = SIZES[idstr](data, kind)
                if size is None or not self._misses_footer(data, head, size):
                    return size
            if begins_with_record(data, config=True) and (kind is not Kind.FULL or idstr.endswith(VFIO_SUFFIX)):
                return self._records(data, head, None if described is None else described[0])
        if described is not None:
            return self._as_described(data, head, *described)
        size = self._counted(data, head) if kind is Kind.START else None
        if size is None:
            size = self._first_footer(data, head) if kind is not Kind.FULL else self._only_footer(data, head)
        if size is not None:
            self._framings[head.offset] = Framing.GUESSED if kind is Kind.FULL else Framing.OPAQUE
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
        self.page_size = description.page_size if possible_page_size(description.page_size) else None
        self.text = text
        for device in description.devices:
            framing = Framing.OPAQUE if device.layout is None else Framing.DESCRIBED
            self._sizes[device.name, device.instance_id] = payload_size(device), framing
        over_multifd = len(description.over_multifd)
        return DescriptionSummary(offset, len(text), len(description.devices), over_multifd=over_multifd)

    def _as_described(self, data: memoryview, head: SectionHead, size: int, framing: Framing) -> int | None:
        """The length that the description says, if a footer stands there.

        Descriptions of older QEMUs are wrong about arrays with null pointers. Then the section ends where its only
        footer is; without one, it is damaged, and the footer that is missing will be named.
        """
        assert self.reader is not None
        if len(data) < size + FOOTER_SIZE and not self.ended and self.reader.footers is not False:
            return None
        found: int | None = size
        if self._misses_footer(data, head, size):
            with suppress(ProtocolError):
                found = self._only_footer(data, head)
        if found is not None:
            self._framings[head.offset] = framing if found == size else Framing.GUESSED
            if found != size and len(self.notes) < _NOTES:
                self.notes.append(f"{head} is described with {size} bytes and has {found}: the description is wrong")
        return found

    def _misses_footer(self, data: memoryview, head: SectionHead, size: int) -> bool:
        """Whether it is certain that no footer stands behind so many bytes, though there must be one."""
        assert self.reader is not None
        there = data[size : size + FOOTER_SIZE]
        return (
            bool(self.reader.footers) and there != footer(head.section_id) and (self.ended or len(there) == FOOTER_SIZE)
        )

    def _look_for_description(self, data: memoryview) -> None:
        """Take the description out of what has come already."""
        assert self.reader is not None
        for found in DESCRIPTION_FOLLOWS.finditer(data, max(0, self._looked - self.reader.offset)):
            begin = found.end() - 1
            text = bytes(data[begin : begin + _LENGTH.unpack(found[1])[0]])
            if len(text) < _LENGTH.unpack(found[1])[0]:
                break
            with suppress(ProtocolError):
                if parse(text).devices:
                    self._looks_ahead = False
                    self.description = self.learn(text, self.reader.offset + found.start() + 1)
                    return
        else:
            self._looked = self.reader.offset + max(0, len(data) - DESCRIPTION_HEAD)

    def _records(self, data: memoryview, head: SectionHead, described: int | None) -> int | None:
        """The length of a payload of records. Nothing in it says how long a config is.

        Its description does, with the marks before and behind it; else the end mark and the footer behind it do.
        """

        def config(rest: Buffer) -> int | None:
            end = _END_MARK + footer(head.section_id)
            for size in () if described is None else (described - CONFIG_FRAME, described):
                if size >= 0 and rest[size : size + len(end)] == end:
                    return size
            found = bytes(rest).find(end)
            if found >= 0:
                return found
            if self.ended:
                raise ProtocolError(0, f"config of {head}", "the end mark and the section's footer, found neither")
            return None

        size = records_size(data, config)
        if head.kind is Kind.FULL and size is not None and size > CONFIG_FRAME:
            self._framings[head.offset] = Framing.GUESSED if described is None else Framing.DESCRIBED
        return size

    def _counted(self, data: memoryview, head: SectionHead) -> int | None:
        """The set-up data of a device that is not iterable: migpool puts its length before it."""
        size = _LENGTH.size + _LENGTH.unpack_from(data)[0] if len(data) >= _LENGTH.size else 0
        end = footer(head.section_id)
        return size if size and data[size : size + len(end)] == end else None

    def _first_footer(self, data: memoryview, head: SectionHead) -> int | None:
        """The first end of an iterable device's section."""
        assert self.reader is not None
        if self.reader.footers is False:
            raise ProtocolError(0, f"payload of {head}", f"a known length: {self._why()}, and sections have no footers")
        mark, at = re.escape(footer(head.section_id)), 0
        for found in re.finditer(mark, data):
            at = found.start()
            follows = can_follow(data, found.end(), self.reader.known, ended=self.ended)
            if follows is None:
                return None
            if follows:
                return at
        if self.ended:
            raise self._not_found(data, head, 0)
        return None

    def _only_footer(self, data: memoryview, head: SectionHead) -> int | None:
        """The only end that a section can have."""
        assert self.reader is not None
        if self.ended:
            if self.reader.footers is False:
                right = f"a known length: {self._why()}, and sections have no footers"
                raise ProtocolError(0, f"payload of {head}", right)
            places = self._ends_at_last(data, head)
        elif len(data) > PATIENCE and self._impatient:
            self._impatient -= 1
            places = [found.start() for found in re.finditer(re.escape(footer(head.section_id)), data)]
        else:
            return None
        size = len(footer(head.section_id))
        ends = [at for at in places if can_follow(data, at + size, self.reader.known, ended=self.ended)]
        if len(ends) == 1:
            return ends[0]
        raise self._not_found(data, head, len(ends))

    def _why(self) -> str:
        if self.fault is not None:
            return f"the stream's description cannot be used ({self.fault})"
        if self._sizes:
            return "the stream's description does not have it"
        return "the stream has no description (VMDESC) of it"

    def _not_found(self, data: memoryview, head: SectionHead, count: int) -> ProtocolError:
        found = f"{count} of them" if count else f"none in {len(data)} bytes and the end of the input"
        right = f"one footer {footer(head.section_id).hex()} with an item behind it, since {self._why()}; found {found}"
        return ProtocolError(0, f"payload of {head}", right)

    def _ends_at_last(self, data: memoryview, head: SectionHead) -> list[int]:
        """Where the payload may end, once ``data`` is all that is left.

        Every footer with an item behind it is gathered in one pass for all sections, by section id and with its
        distance from the end, so that many sections cost no more than one.
        """
        if self._candidates is None:
            self._candidates = {}
            for match in ANY_FOOTER.finditer(data):
                self._candidates.setdefault(match[1], []).append(len(data) - match.start())
        left = len(data)
        return [left - place for place in self._candidates.get(footer(head.section_id)[1:], []) if place <= left]
