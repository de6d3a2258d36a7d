"""What an inspection finds. Values only, filled in by the walk; offsets and sizes are bytes of the main channel."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from migpool.wire.configuration import Configuration

OVER_MULTIFD: Final = "MULTIFD"
"""The kind of what is no section: the config of a device that is not iterable, out of the multifd channels' packets."""


def uuid_text(uuid: bytes) -> str:
    """Sixteen bytes as a UUID is written."""
    digits = uuid.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


class Framing(StrEnum):
    """How it was known where a section's payload ends."""

    SELF = "self-delimiting"
    """RAM, records of an iterable device, dirty bitmaps: the payload itself says it."""
    DESCRIBED = "described"
    """The stream's description names every field."""
    OPAQUE = "opaque"
    """The stream's description knows the size alone: the device was registered in the old style. Or it is an iterable
    device whose form is not known, and the section ends at its footer."""
    GUESSED = "guessed"
    """Nothing describes it. Its footer was found, with a plausible item behind it, in exactly one place."""


@dataclass(slots=True)
class BlockSummary:
    """One block of RAM.

    Arguments:
        name: the block's name.
        used_length: its size in bytes.
        gpa: its guest-physical address, if the stream says it.
        normal: how many of its pages are in the stream with their content, repetitions counted; with mapped-ram, how
            many its bitmap says are in the file.
        zero: how many are there as pages of zeros.
        xbzrle: how many are there as a difference from what was sent before.
        zlib: how many are there compressed, one by one.
    """

    name: str
    used_length: int
    gpa: int | None
    normal: int = 0
    zero: int = 0
    xbzrle: int = 0
    zlib: int = 0

    @property
    def pages(self) -> int:
        """How many of its pages are in the stream, of all kinds."""
        return self.normal + self.zero + self.xbzrle + self.zlib

    def add(self, other: BlockSummary) -> None:
        """Count the pages of another summary, too."""
        self.normal += other.normal
        self.zero += other.zero
        self.xbzrle += other.xbzrle
        self.zlib += other.zlib


@dataclass(slots=True)
class SectionSummary:
    """One section, or all PART sections of one device together.

    Arguments:
        kind: START, PART, END or FULL; or :data:`OVER_MULTIFD`, which has no section id, and of which ``count`` is the
            number of packets and ``offset`` that of the first one in its channel.
        section_id, idstr, instance_id, version: as its header says, or that of its START.
        offset: where the section, or the first of them, began.
        size: bytes of payload, of all together.
        count: how many sections these are.
        framing: how their ends were known.
    """

    kind: str
    section_id: int
    idstr: str
    instance_id: int
    version: int
    offset: int
    size: int
    count: int = 1
    framing: Framing = Framing.SELF


@dataclass(slots=True)
class CommandSummary:
    """One command, or equal ones in a row.

    Arguments:
        name: which one.
        data: its data, of the first one; of a package the first bytes only.
        size: bytes of data, of all together; with what follows outside of the command.
        offset: where the first one began.
        count: how many.
    """

    name: str
    data: bytes
    size: int
    offset: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class DescriptionSummary:
    """The VM description at the stream's end.

    Arguments:
        offset: where the item began.
        size: bytes of JSON; may be 0.
        devices: how many devices it describes; None if it could not be used.
        fault: why not.
        over_multifd: how many more it describes that are no sections, but crossed over the multifd channels.
    """

    offset: int
    size: int
    devices: int | None
    fault: str | None = None
    over_multifd: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the walk ended early.

    Arguments:
        offset: at which byte.
        item: what was being read.
        expected: what would have been right there, and what was found.
    """

    offset: int
    item: str
    expected: str

    def __str__(self) -> str:
        return f"{self.item} at byte {self.offset}: {self.expected}"

    @property
    def ambiguous(self) -> bool:
        """Whether the walk ended because more than one length of a payload was possible: nothing need be wrong."""
        return self.item.startswith("payload of ") and self.expected.endswith("of them")


@dataclass(frozen=True, slots=True)
class Piece:
    """One record of an iterable device's section, or one of its packets on a multifd channel.

    Arguments:
        what: which mark it has; of a packet, its index and flags.
        size: bytes of state, without marks and headers.
        offset: where it begins in its channel.
        channel: the multifd channel's number; ``None``: the main channel.
    """

    what: str
    size: int
    offset: int
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class KeptSection:
    """A section whose payload was asked for.

    Arguments:
        summary: whose it is.
        payload: a copy; of an iterable device, its config, if it is here.
        pieces: of an iterable device, what its state consists of; its state itself is not kept.
    """

    summary: SectionSummary
    payload: bytes
    pieces: tuple[Piece, ...] = ()


@dataclass(slots=True)
class StreamSummary:
    """A whole stream, or as much of it as could be read.

    Arguments:
        size: bytes that were there.
        walked: bytes that were understood; with a whole stream the same.
        header_version: of the file header; None if there was none.
        configuration: None if the stream has none.
        footers: whether sections have footers; None if no section was read.
        commands, sections: in the order of the stream.
        blocks: of RAM, in the order of its list.
        page_size: bytes of a page of RAM.
        flushes: how often every multifd channel was to be waited for.
        eof: where the EOF item stood; None if the walk did not come so far.
        description: None if the stream has none.
        described: the text of the description, if it can be used.
        kept: the sections whose payloads were asked for.
        problem: why the walk ended early; None if it came to the last byte.
        notes: what is unusual without being wrong, a sentence each.
        envelope: what the stream was wrapped in, from the outside in.
        xml: the machine's definition, if a libvirt save image had it.
    """

    size: int = 0
    walked: int = 0
    header_version: int | None = None
    configuration: Configuration | None = None
    footers: bool | None = None
    commands: list[CommandSummary] = field(default_factory=list)
    sections: list[SectionSummary] = field(default_factory=list)
    blocks: list[BlockSummary] = field(default_factory=list)
    page_size: int = 4096
    flushes: int = 0
    eof: int | None = None
    description: DescriptionSummary | None = None
    described: bytes | None = None
    kept: list[KeptSection] = field(default_factory=list)
    problem: Problem | None = None
    notes: list[str] = field(default_factory=list)
    envelope: list[str] = field(default_factory=list)
    xml: str | None = None
