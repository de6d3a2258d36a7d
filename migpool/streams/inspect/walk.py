"""Turns the events of a stream into its summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.inspect.boundaries import Boundaries
from migpool.streams.inspect.summary import (
    BlockSummary,
    CommandSummary,
    Framing,
    KeptSection,
    Problem,
    SectionSummary,
    StreamSummary,
)
from migpool.units import count_of
from migpool.wire import ram
from migpool.wire.commands import Command, Packaged
from migpool.wire.configuration import Configuration
from migpool.wire.records import payload_of
from migpool.wire.sections import Kind, Section, SectionHead, head_bytes
from migpool.wire.stream import DeviceSection, Eof, FileHeader, StreamEvent, StreamReader, VmDescription
from migpool.wire.unread import Buffer

Wanted = Callable[[str, int], bool]
"""Says for an idstr and an instance id whether the payload is to be kept."""

_WORD: Final = 8
_COMMAND_LIMIT: Final = 4096
_PACKAGE_SHOWN: Final = 16


class StreamWalk:
    """Takes events one after the other.

    Arguments:
        boundaries: the schema with which they were read.
        wanted: of which devices to keep the payload of their FULL section.
    """

    def __init__(self, boundaries: Boundaries, wanted: Wanted) -> None:
        self._boundaries = boundaries
        self._wanted = wanted
        self._found = StreamSummary()
        self._sections: dict[tuple[int, str], SectionSummary] = {}
        self._blocks: dict[str, BlockSummary] = {}
        self._packages = 0

    def take(self, event: StreamEvent, reader: StreamReader) -> None:
        """Add one event.

        Raises:
            ProtocolError: it is a package, and what is inside of it is wrong.
        """
        found = self._found
        match event:
            case ram.RamPages(name):
                block = self._blocks[name]
                zero = event.positions.count(ram.ZERO_PAGE)
                block.zero += zero
                block.normal += len(event.positions) - zero
                found.page_size = event.page_size
            case FileHeader(version):
                found.header_version = version
            case Configuration():
                found.configuration, found.page_size = event, event.page_size
            case ram.RamBlocks(blocks):
                before = self._blocks
                self._blocks = {one.name: BlockSummary(one.name, one.used_length, one.gpa) for one in blocks}
                for name in before.keys() & self._blocks:
                    self._blocks[name].normal, self._blocks[name].zero = before[name].normal, before[name].zero
                found.blocks = list(self._blocks.values())
            case ram.RamSectionEnd(head, end):
                self._section(head, end + _WORD - head.offset - len(head_bytes(head)), Framing.SELF)
            case ram.MultifdFlush():
                found.flushes += 1
            case Section(head, payload):
                self._device_section(head, [payload])
            case DeviceSection(head, records):
                self._device_section(head, payload_of(records))
            case Command(kind, data):
                self._command(kind.name, bytes(data), len(data), event.offset)
            case Packaged(data):
                self._command("PACKAGED", bytes(data[:_PACKAGE_SHOWN]), len(data), event.offset)
                self._packages += 1
                with self._boundaries.package():
                    for inner in reader.inside(event):
                        self.take(inner, reader)
            case Eof():
                found.eof = event.offset
            case VmDescription(text):
                found.description = self._boundaries.learn(bytes(text), event.offset)
                found.described = bytes(text) if text and found.description.fault is None else None

    def _device_section(self, head: SectionHead, parts: list[Buffer]) -> None:
        size = sum(map(len, parts))
        summary = self._section(head, size, self._boundaries.framing(head))
        if summary.count == 1 and head.kind is Kind.FULL and self._wanted(head.idstr, head.instance_id):
            self._found.kept.append(KeptSection(replace(summary), b"".join(parts)))

    def _section(self, head: SectionHead, size: int, framing: Framing) -> SectionSummary:
        """Add a section to those of the same kind and id, of which there can be very many."""
        known = self._sections.get((head.section_id, head.kind.name))
        if known is None:
            device = head.idstr, head.instance_id, head.version
            known = SectionSummary(head.kind.name, head.section_id, *device, head.offset, size, 1, framing)
            self._sections[head.section_id, head.kind.name] = known
            self._found.sections.append(known)
            return known
        known.size += size
        known.count += 1
        known.framing = Framing.GUESSED if framing is Framing.GUESSED else known.framing
        return known

    def _command(self, name: str, data: bytes, size: int, offset: int) -> None:
        commands = self._found.commands
        last = commands[-1] if commands else None
        if last is not None and (len(commands) >= _COMMAND_LIMIT or (last.name, last.data) == (name, data)):
            last.name = last.name if last.name == name else "more"
            last.size += size
            last.count += 1
        else:
            commands.append(CommandSummary(name, data, size, offset))

    def summary(self, reader: StreamReader, size: int, error: ProtocolError | None, notes: list[str]) -> StreamSummary:
        """All that was found.

        Arguments:
            reader: whose events these were.
            size: how many bytes there were.
            error: what ended the walk early.
            notes: what else is to be said.
        """
        found = self._found
        found.size = found.walked = size
        if error is not None:
            found.problem, found.walked = Problem(error.offset, error.item, error.expected), reader.offset
        found.footers = reader.footers if found.sections else None
        found.notes = [*notes, *self._notes()]
        found.description = found.description or self._boundaries.description
        return found

    def _notes(self) -> list[str]:
        found = self._found
        notes = []
        if found.header_version is not None and found.configuration is None and found.sections:
            notes.append("there is no CONFIGURATION: the machine's name is not known, pages are taken as described")
        if found.footers is False:
            notes.append("sections have no footers: a wrong length is noticed only where the next item makes no sense")
        if found.eof is not None and found.description is None:
            notes.append("there is no description (VMDESC): fields of devices cannot be decoded")
        if self._packages:
            notes.append(f"sections and commands inside of {self._packages} PACKAGED are listed with the others")
        guessed = sum(section.framing is Framing.GUESSED for section in found.sections)
        if guessed:
            notes.append(
                f"where {count_of(guessed, 'section')} ended is a guess: nothing describes that, and a footer, with an "
                f"item behind, stands in one place"
            )
        return notes
