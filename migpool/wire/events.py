"""The events of the main channel, and the bytes that each stands for.

A :class:`migpool.wire.stream.StreamReader` makes events of bytes; :func:`emit` makes the same bytes of events.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from migpool.errors import ProtocolError
from migpool.wire.commands import Command, Packaged, command, packaged
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.multifd import MAGIC
from migpool.wire.ram import (
    MultifdFlush,
    RamBlocks,
    RamPages,
    RamSection,
    RamSectionEnd,
    block_list,
    multifd_flush,
    pages,
    ram_section_end,
)
from migpool.wire.records import Record, payload_of
from migpool.wire.sections import Section, SectionHead, head_bytes, section
from migpool.wire.unread import Buffer

FILE_MAGIC: Final = b"QEVM"
FILE_VERSION: Final = 3
MAIN_MAGIC_SIZE: Final = len(FILE_MAGIC)
"""How many bytes :func:`begins_main_channel` looks at. They belong to the channel and must be fed to its reader."""
EOF: Final = 0x00
VMDESC: Final = 0x06
VMDESC_HEAD: Final = struct.Struct(">BI")


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The first eight bytes."""

    version: int = FILE_VERSION
    offset: int = 0


@dataclass(frozen=True, slots=True)
class DeviceSection:
    """A section of an iterable device; its footer was right.

    Arguments:
        head: whose it is.
        records: the whole payload; the last record is the mark that ended it.
    """

    head: SectionHead
    records: tuple[Record, ...]

    @property
    def offset(self) -> int:
        """Where in the channel the section began."""
        return self.head.offset


@dataclass(frozen=True, slots=True)
class Eof:
    """No more sections come."""

    offset: int = 0


@dataclass(frozen=True, slots=True)
class VmDescription:
    """The description of all payloads, for tools; ``vmdesc.parse`` reads it.

    Arguments:
        text: JSON as bytes; may be empty.
        offset: where in the channel the item began; ``text`` begins 5 bytes later.
    """

    text: Buffer
    offset: int = 0


StreamEvent: TypeAlias = (
    FileHeader
    | Configuration
    | Section
    | DeviceSection
    | RamSection
    | RamBlocks
    | RamPages
    | MultifdFlush
    | RamSectionEnd
    | Command
    | Packaged
    | Eof
    | VmDescription
)


def begins_main_channel(first: Buffer) -> bool:
    """Whether a connection that begins with ``first`` (4 bytes or more) is a main channel; else it is a multifd one.

    Raises:
        ProtocolError: neither kind of channel begins so.
    """
    magic, multifd = bytes(memoryview(first)[:MAIN_MAGIC_SIZE]), MAGIC.to_bytes(4, "big")
    if magic not in (FILE_MAGIC, multifd):
        right = f"{FILE_MAGIC.hex()} (main channel) or {multifd.hex()} (multifd channel)"
        raise ProtocolError(0, "first bytes of a connection", f"{right}, found {magic.hex() or 'nothing'}")
    return magic == FILE_MAGIC


def header() -> bytes:
    """The eight bytes with which a main channel begins."""
    return FILE_MAGIC + FILE_VERSION.to_bytes(4, "big")


def eof() -> bytes:
    """The byte after the last section."""
    return bytes((EOF,))


def vm_description(text: Buffer) -> list[Buffer]:
    """The last item: two buffers, of which the second is ``text`` itself."""
    return [VMDESC_HEAD.pack(VMDESC, len(text)), text]


def emit(event: StreamEvent, *, footers: bool = True) -> list[Buffer]:
    """The bytes that an event was read from, as buffers for ``sendmsg``; large parts are passed on as they are.

    Arguments:
        event: the event.
        footers: whether the stream's sections have footers.
    """
    match event:
        case FileHeader():
            return [header()]
        case Configuration():
            return [configuration(event)]
        case Section(head, payload):
            return section(head, payload, footers=footers)
        case DeviceSection(head, records):
            return section(head, payload_of(records), footers=footers)
        case RamSection(head):
            return [head_bytes(head)]
        case RamBlocks(blocks):
            return [block_list(blocks)]
        case RamPages(block):
            return pages(block, event, named=event.named)
        case MultifdFlush():
            return [multifd_flush()]
        case RamSectionEnd(head):
            return [ram_section_end(head.section_id, footers=footers)]
        case Command():
            return [command(event)]
        case Packaged(data):
            return packaged(data)
        case Eof():
            return [eof()]
        case VmDescription(text):
            return vm_description(text)
