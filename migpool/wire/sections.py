"""Sections of the main channel: their heads and footers, and the subsection headers inside their payloads.

Big-endian, as in QEMU 10.0::

    START 01, FULL 04   u8 type, u32 section id, u8 n, idstr[n], u32 instance id, u32 version id, payload, footer
    PART 02, END 03     u8 type, u32 section id, payload, footer
    footer              u8 7e, u32 section id; old machine types (before 2.4) write none
    SUBSECTION 05       u8 05, u8 n, name[n], u32 version id; inside a payload or the configuration, without a footer

Nothing says how long a payload is. A mark that is known beforehand follows it (its footer), but its bytes may occur
inside it. So the mark says when to ask a :class:`Schema`, and the schema's answer decides (:func:`measured`):

* A schema is asked again only when the mark has come in since, or the waiting bytes have doubled, or the input has
  ended. A payload that is whole has its mark behind it, so a reader on a live connection never waits for bytes that the
  peer will not send; and however small the pieces are, the work stays linear in the input.
* What waits is bounded: a payload over the limit is an error, also before its length is known.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from migpool.errors import ProtocolError
from migpool.wire.unread import Buffer, Need, Steps, Unread, take

_SHORT = struct.Struct(">BI")
_NUMBERS = struct.Struct(">II")
_VERSION = struct.Struct(">I")

SUBSECTION: Final = 0x05
FOOTER: Final = 0x7E
FOOTER_SIZE: Final = 5
DEFAULT_LIMIT: Final = 256 << 20
"""Bytes that one payload may have, unless a reader is told otherwise."""
_ASKS_PER_DOUBLING: Final = 64
_SECTION_LIMIT: Final = 1 << 16
_AFTER_A_SECTION: Final = frozenset({0x00, 0x01, 0x02, 0x03, 0x04, 0x08})  # EOF, another section, a command


class Kind(IntEnum):
    """The types of sections."""

    START = 0x01
    PART = 0x02
    END = 0x03
    FULL = 0x04


@dataclass(frozen=True, slots=True)
class SectionHead:
    """Whose section it is.

    Arguments:
        kind: START, PART, END or FULL.
        section_id: the number that ties PART and END to their START. Numbers need not be contiguous.
        idstr: the device's name; a reader fills it in for PART and END too.
        instance_id: tells devices of one idstr apart; filled in likewise.
        version: the version of the payload's layout; filled in likewise.
        offset: where in the channel the section began.
    """

    kind: Kind
    section_id: int
    idstr: str
    instance_id: int
    version: int
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.kind.name} section {self.section_id} of {self.idstr!r} ({self.instance_id})"


@dataclass(frozen=True, slots=True)
class Headed:
    """An event that begins with the head of a section.

    Arguments:
        head: whose section it is.
    """

    head: SectionHead

    @property
    def offset(self) -> int:
        """Where in the channel the section began."""
        return self.head.offset


@dataclass(frozen=True, slots=True)
class Section(Headed):
    """A section with its whole payload; its footer was right.

    Arguments:
        payload: a read-only view, in one piece.
    """

    payload: Buffer


def counted(text: str, item: str) -> bytes:
    """A name as the stream has it: its length in one byte, then ASCII."""
    raw = text.encode("ascii", "replace")
    if not 0 < len(raw) <= 255 or raw.decode("ascii") != text:
        raise ValueError(f"{item} must be 1 to 255 bytes of ASCII, not {text!r}")
    return bytes((len(raw),)) + raw


def ascii_text(raw: Buffer, offset: int, item: str) -> str:
    """Decode a name that a peer sent; it must be ASCII and not empty."""
    data = bytes(raw)
    if not data or not data.isascii():
        raise ProtocolError(offset, item, f"a name in ASCII, found {data!r}")
    return data.decode("ascii")


def head_bytes(head: SectionHead) -> bytes:
    """The bytes before a section's payload."""
    short = _SHORT.pack(head.kind, head.section_id)
    if head.kind in (Kind.PART, Kind.END):
        return short
    return short + counted(head.idstr, "an idstr") + _NUMBERS.pack(head.instance_id, head.version)


def footer(section_id: int) -> bytes:
    """The five bytes after a section's payload."""
    return _SHORT.pack(FOOTER, section_id)


def section(head: SectionHead, payload: Buffer | Sequence[Buffer], *, footers: bool = True) -> list[Buffer]:
    """A whole section as buffers for ``sendmsg``; the payload's are passed on as they are."""
    pieces = [payload] if isinstance(payload, bytes | bytearray | memoryview) else payload
    return [head_bytes(head), *pieces, *([footer(head.section_id)] if footers else ())]


def section_part(section_id: int, payload: Buffer | Sequence[Buffer]) -> list[Buffer]:
    """A section between a device's START and its END."""
    return section(SectionHead(Kind.PART, section_id, "", 0, 0), payload)


def section_end(section_id: int, payload: Buffer | Sequence[Buffer]) -> list[Buffer]:
    """The last section of a device that began with START."""
    return section(SectionHead(Kind.END, section_id, "", 0, 0), payload)


def subsection_header(name: str, version: int) -> bytes:
    """The bytes before the fields of a subsection."""
    return bytes((SUBSECTION,)) + counted(name, "a subsection's name") + _VERSION.pack(version)


def read_head(unread: Unread, kind: Kind, known: Mapping[int, SectionHead]) -> Steps[SectionHead]:
    """Read what stands before a payload.

    Arguments:
        unread: at the type byte.
        kind: the type that the byte says.
        known: what earlier START and FULL sections said, by section id.

    Raises:
        ProtocolError: PART or END of an unknown id, or an id that already belongs to another device.
    """
    offset = unread.offset
    item = f"{kind.name} section"
    _, section_id = _SHORT.unpack((yield from take(unread, _SHORT.size, item)))
    begun = known.get(section_id)
    if kind in (Kind.PART, Kind.END):
        if begun is None:
            raise ProtocolError(offset + 1, item, f"the id of a section that began before, found {section_id}")
        return SectionHead(kind, section_id, begun.idstr, begun.instance_id, begun.version, offset)
    (length,) = yield from take(unread, 1, item)
    raw = yield from take(unread, length + _NUMBERS.size, item)
    if begun is None and len(known) == _SECTION_LIMIT:
        raise ProtocolError(offset, item, f"at most {_SECTION_LIMIT} section ids, found more")
    idstr = ascii_text(raw[:length], offset + 6, f"{item} idstr")
    instance_id, version = _NUMBERS.unpack(raw[length:])
    if begun is not None and (begun.idstr, begun.instance_id) != (idstr, instance_id):
        raise ProtocolError(offset + 1, item, f"a new section id, found {section_id}, which is that of the {begun}")
    return SectionHead(kind, section_id, idstr, instance_id, version, offset)


class Footers:
    """Whether the sections of a stream have footers, and the check of each.

    Arguments:
        present: whether they have; None: as the byte behind the first section shows. No item begins with 7e, so a
            section that was measured right leaves no doubt.
    """

    __slots__ = ("present",)

    def __init__(self, present: bool | None = True) -> None:
        self.present = present

    def mark(self, section_id: int) -> bytes:
        """What follows a section's payload for certain: its footer, or nothing if there may be none."""
        return footer(section_id) if self.present else b""

    def check(self, unread: Unread, head: SectionHead) -> Steps[None]:
        """Read the footer of a section, if there is to be one.

        Raises:
            ProtocolError: something else stands there. Most often the payload was longer or shorter than its schema
                says.
        """
        if self.present is None:
            if not unread.available:
                yield Need(1, f"footer of {head}")
            self.present = unread.peek(1)[0] not in _AFTER_A_SECTION
        if not self.present:
            return
        offset = unread.offset
        raw = bytes((yield from take(unread, FOOTER_SIZE, f"footer of {head}")))
        right = footer(head.section_id)
        if raw != right:
            raise ProtocolError(offset, f"footer of {head}", f"{right.hex()}, found {raw.hex()}")


class Schema(Protocol):
    """What knows the layout of devices' payloads. RAM is not asked for: a reader knows it."""

    def iterable(self, idstr: str, instance_id: int, /) -> bool:
        """Say whether this device's sections consist of records (:mod:`migpool.wire.records`); by default, of none."""
        del idstr, instance_id
        return False

    def measure(self, idstr: str, instance_id: int, version: int, kind: Kind, data: memoryview, /) -> int | None:
        """Say how long the payload is that begins ``data``.

        Arguments:
            idstr, instance_id, version, kind: the section's head.
            data: bytes from the payload's beginning on, read-only. It goes on after the payload, or ends before.

        Returns:
            the length in bytes; it may be more than ``data`` holds, if it is certain already. None if more bytes are
            needed to tell.

        Raises:
            ProtocolError: no payload of this device begins so; its offset is counted from the beginning of ``data``.
        """
        ...


def measured(unread: Unread, head: SectionHead, schema: Schema, limit: int, mark: bytes) -> Steps[memoryview]:
    """Read a payload whose length ``schema`` knows; ``mark``, which may be empty, follows it and is left in place.

    Raises:
        ProtocolError: the schema refuses the bytes, or the payload is longer than ``limit``.
    """
    item = f"payload of {head}"
    if unread.available < max(1, len(mark)):
        yield Need(max(1, len(mark)), item)
    asked = doubled = len(unread.first())
    asks = 1
    size = _ask(unread, head, schema, unread.first())
    while size is None:
        if asked > limit + len(mark):
            raise ProtocolError(unread.offset, item, f"at most {limit} bytes, found no end within {asked}")
        yield from _until_worth_asking(unread, asked, 2 * doubled, mark if asks < _ASKS_PER_DOUBLING else None, item)
        ended = unread.ended
        asked = unread.available
        asks += 1
        if asked >= 2 * doubled:
            doubled, asks = asked, 0
        size = _ask(unread, head, schema, unread.peek(asked))
        if size is None and ended:
            raise ProtocolError(unread.offset, item, f"a whole payload, found {asked} bytes and the end of the input")
    if not 0 <= size <= limit:
        raise ProtocolError(unread.offset, item, f"at most {limit} bytes, found {size}")
    return (yield from take(unread, size, item))


def _ask(unread: Unread, head: SectionHead, schema: Schema, data: memoryview) -> int | None:
    try:
        return schema.measure(head.idstr, head.instance_id, head.version, head.kind, data)
    except ProtocolError as error:
        raise ProtocolError(unread.offset + error.offset, error.item, error.expected) from error


def _until_worth_asking(unread: Unread, asked: int, enough: int, mark: bytes | None, item: str) -> Steps[None]:
    """Wait for ``enough`` bytes, or for ``mark`` beyond the first ``asked``, or for the end of the input."""
    searched = asked
    while unread.available < enough and not unread.ended:
        waiting = unread.available
        if mark is not None and waiting > searched and mark in unread.last(waiting - searched + len(mark) - 1):
            return
        searched = waiting
        yield Need(waiting + 1, item, retry_at_end=True)
