"""Turns the events of a stream into its summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.inspect.boundaries import Boundaries
from migpool.streams.inspect.summary import (
    BlockSummary,
    CommandSummary,
    DescriptionSummary,
    Framing,
    KeptSection,
    Problem,
    SectionSummary,
    StreamSummary,
)
from migpool.wire.commands import Command, Packaged
from migpool.wire.configuration import Configuration
from migpool.wire.events import DeviceSection, Eof, FileHeader, StreamEvent, VmDescription
from migpool.wire.ram import ZERO_PAGE, MultifdFlush, RamBlock, RamBlocks, RamPages, RamSection, RamSectionEnd
from migpool.wire.records import payload_of
from migpool.wire.sections import Kind, Section, SectionHead, head_bytes
from migpool.wire.stream import StreamReader
from migpool.wire.unread import Buffer
from migpool.wire.vmdesc import parse

Wanted = Callable[[str, int], bool]
"""Says for an idstr and an instance id whether the payload is to be kept."""

_WORD: Final = 8
_COMMAND_LIMIT: Final = 4096
_PACKAGE_SHOWN: Final = 16


@dataclass(slots=True)
class _Pages:
    normal: int = 0
    zero: int = 0


@dataclass(slots=True)
class _Run:
    """Sections of one kind of one device; there can be very many of them."""

    first: SectionSummary
    size: int = 0
    count: int = 0
    guessed: bool = False

    def summary(self) -> SectionSummary:
        """All of them together."""
        first = self.first
        framing = Framing.GUESSED if self.guessed else first.framing
        return replace(first, size=first.size + self.size, count=1 + self.count, framing=framing)


@dataclass(slots=True)
class StreamWalk:
    """Takes events one after the other.

    Arguments:
        boundaries: the schema with which they were read.
        wanted: of which devices to keep the payload of their FULL section.
    """

    boundaries: Boundaries
    wanted: Wanted
    _header: FileHeader | None = None
    _configuration: Configuration | None = None
    _sections: dict[tuple[int, str], _Run] = field(default_factory=dict)
    _commands: list[CommandSummary] = field(default_factory=list)
    _blocks: dict[str, RamBlock] = field(default_factory=dict)
    _pages: dict[str, _Pages] = field(default_factory=dict)
    _kept: list[KeptSection] = field(default_factory=list)
    _flushes: int = 0
    _eof: int | None = None
    _description: DescriptionSummary | None = None
    _text: bytes | None = None
    _packages: int = 0
    _page_size: int = 0

    def take(self, event: StreamEvent, reader: StreamReader) -> None:
        """Add one event.

        Raises:
            ProtocolError: it is a package, and what is inside of it is wrong.
        """
        match event:
            case RamPages(block):
                pages = self._pages[block]
                zero = event.positions.count(ZERO_PAGE)
                pages.zero += zero
                pages.normal += len(event.positions) - zero
                self._page_size = event.page_size
            case FileHeader():
                self._header = event
            case Configuration():
                self._configuration = event
            case RamBlocks(blocks):
                self._blocks = {block.name: block for block in blocks}
                self._pages = {block.name: self._pages.get(block.name, _Pages()) for block in blocks}
            case RamSection():
                pass
            case RamSectionEnd(head):
                self._ram_section(head, event.offset)
            case MultifdFlush():
                self._flushes += 1
            case Section(head, payload):
                self._section(head, len(payload), [payload])
            case DeviceSection(head, records):
                parts = payload_of(records)
                self._section(head, sum(map(len, parts)), parts)
            case Command(kind, data):
                self._command(kind.name, bytes(data), len(data), event.offset)
            case Packaged(data):
                self._command("PACKAGED", bytes(data[:_PACKAGE_SHOWN]), len(data), event.offset)
                self._packages += 1
                with self.boundaries.package():
                    for inner in reader.inside(event):
                        self.take(inner, reader)
            case Eof():
                self._eof = event.offset
            case VmDescription():
                self._described(event)

    def _ram_section(self, head: SectionHead, end: int) -> None:
        begin = head.offset + len(head_bytes(head))
        self._add(SectionSummary(*_identity(head), head.offset, end + _WORD - begin, 1, Framing.SELF))

    def _section(self, head: SectionHead, size: int, parts: list[Buffer]) -> None:
        summary = SectionSummary(*_identity(head), head.offset, size, 1, self.boundaries.framing(head))
        known = (head.section_id, head.kind.name) in self._sections
        self._add(summary)
        if head.kind is Kind.FULL and not known and self.wanted(head.idstr, head.instance_id):
            self._kept.append(KeptSection(summary, b"".join(parts)))

    def _add(self, summary: SectionSummary) -> None:
        key = summary.section_id, summary.kind
        run = self._sections.get(key)
        if run is None:
            self._sections[key] = _Run(summary)
            return
        run.size += summary.size
        run.count += 1
        run.guessed = run.guessed or summary.framing is Framing.GUESSED

    def _command(self, name: str, data: bytes, size: int, offset: int) -> None:
        last = self._commands[-1] if self._commands else None
        full = len(self._commands) >= _COMMAND_LIMIT
        if last is not None and (full or (last.name, last.data) == (name, data)):
            name = last.name if last.name == name else "more"
            self._commands[-1] = replace(last, name=name, size=last.size + size, count=last.count + 1)
        else:
            self._commands.append(CommandSummary(name, data, size, offset, 1))

    def _described(self, event: VmDescription) -> None:
        text = bytes(event.text)
        try:
            devices = len(parse(text).devices) if text else 0
        except ProtocolError as error:
            self._description = DescriptionSummary(event.offset, len(text), None, error.expected)
            return
        self._description = DescriptionSummary(event.offset, len(text), devices)
        self._text = text

    def summary(self, reader: StreamReader, size: int, error: ProtocolError | None, notes: list[str]) -> StreamSummary:
        """All that was found.

        Arguments:
            reader: whose events these were.
            size: how many bytes there were.
            error: what ended the walk early.
            notes: what else is to be said.
        """
        problem = None if error is None else Problem.of(error)
        config = self._configuration
        sections = tuple(run.summary() for run in self._sections.values())
        page_size = self._page_size or (config.page_size if config is not None else 4096)
        counts = {name: self._pages.get(name, _Pages()) for name in self._blocks}
        return StreamSummary(
            size=size,
            walked=size if problem is None else reader.offset,
            header_version=None if self._header is None else self._header.version,
            configuration=config,
            footers=reader.footers if self._sections else None,
            commands=tuple(self._commands),
            sections=sections,
            blocks=tuple(
                BlockSummary(name, block.used_length, block.gpa, counts[name].normal, counts[name].zero)
                for name, block in self._blocks.items()
            ),
            page_size=page_size,
            flushes=self._flushes,
            eof=self._eof,
            description=self._description or self.boundaries.description,
            described=self._text,
            kept=tuple(self._kept),
            problem=problem,
            notes=(*notes, *self._notes(reader, sections)),
        )

    def _notes(self, reader: StreamReader, sections: tuple[SectionSummary, ...]) -> list[str]:
        notes = []
        if self._header is not None and self._configuration is None and self._sections:
            notes.append("there is no CONFIGURATION: the machine's name is not known, pages are taken as described")
        if reader.footers is False and self._sections:
            notes.append("sections have no footers: a wrong length is noticed only where the next item makes no sense")
        if self._eof is not None and self._description is None:
            notes.append("there is no description (VMDESC): fields of devices cannot be decoded")
        if self._packages:
            notes.append(f"sections and commands inside of {self._packages} PACKAGED are listed with the others")
        guessed = [section for section in sections if section.framing is Framing.GUESSED]
        if guessed:
            notes.append(
                f"the ends of {len(guessed)} sections are a guess: nothing describes them, and their footers, with an "
                f"item behind, stand in one place each"
            )
        return notes


def _identity(head: SectionHead) -> tuple[str, int, str, int, int]:
    return head.kind.name, head.section_id, head.idstr, head.instance_id, head.version
