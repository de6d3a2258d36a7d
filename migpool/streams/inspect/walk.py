"""Turns the events of a stream into its summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.inspect.boundaries import Boundaries
from migpool.streams.inspect.summary import (
    BlockSummary,
    CommandSummary,
    Framing,
    KeptSection,
    Piece,
    Problem,
    SectionSummary,
    StreamSummary,
)
from migpool.streams.inspect.vfiostate import pieces_of
from migpool.units import count_of
from migpool.wire import ram
from migpool.wire.commands import Command, CommandKind, LaterCommand, Packaged, resumed_block
from migpool.wire.configuration import Configuration
from migpool.wire.ramforms import RamPacked
from migpool.wire.records import Passed, payload_of, records_in
from migpool.wire.sections import Kind, Section, SectionHead, head_bytes
from migpool.wire.stream import (
    VFIO_SUFFIX,
    DeviceSection,
    Eof,
    FileHeader,
    PassedSection,
    StreamEvent,
    StreamReader,
    VmDescription,
)
from migpool.wire.trailer import CheckpointMessage, CheckpointStep, Padding
from migpool.wire.unread import Buffer

Wanted = Callable[[str, int], bool]
"""Says for an idstr and an instance id whether the payload is to be kept."""

_WORD: Final = 8
_COMMAND_LIMIT: Final = 4096
_PACKAGE_SHOWN: Final = 16
_NOTES: Final = 8
_PIECES_KEPT: Final = 256
"""Of how many PART sections of an iterable device the records are kept, and of how many checkpoints a device."""


class StreamWalk:
    """Takes events one after the other.

    Arguments:
        boundaries: the schema with which they were read.
        wanted: of which devices to keep the payloads.
    """

    def __init__(self, boundaries: Boundaries, wanted: Wanted) -> None:
        self._boundaries = boundaries
        self._wanted = wanted
        self._found = StreamSummary()
        self._sections: dict[tuple[int, str], SectionSummary] = {}
        self._blocks: dict[str, BlockSummary] = {}
        self._packages = 0
        self._padding = ""
        self._checkpoints: int | None = None
        self._requests = 0
        self._later: list[str] = []

    def take(self, event: StreamEvent, reader: StreamReader) -> Iterator[StreamEvent]:
        """Add one event; gives it back, and those inside of it if it is a package.

        Raises:
            ProtocolError: it is a package, and what is inside of it is wrong.
        """
        yield event
        found = self._found
        match event:
            case ram.RamPages(name):
                block = self._blocks[name]
                zero = event.positions.count(ram.ZERO_PAGE)
                block.zero += zero
                block.normal += len(event.positions) - zero
                found.page_size = event.page_size
            case ram.CountedPages(name):
                block = self._blocks[name]
                block.normal += event.normal
                block.zero += event.zero
                found.page_size = event.page_size
            case RamPacked(name, form=form):
                block = self._blocks[name]
                block.xbzrle += form == "xbzrle"
                block.zlib += form == "zlib"
            case FileHeader(version):
                found.header_version = version
            case Configuration():
                found.configuration, found.page_size = event, event.page_size
            case ram.RamBlocks(blocks):
                before = self._blocks
                self._blocks = {
                    one.name: BlockSummary(one.name, one.used_length, one.gpa, one.mapped or 0) for one in blocks
                }
                for name in before.keys() & self._blocks:
                    self._blocks[name].add(before[name])
                found.blocks = list(self._blocks.values())
            case ram.RamSectionEnd(head, end):
                self._section(head, end + _WORD - head.offset - len(head_bytes(head)), Framing.SELF)
            case ram.MultifdFlush():
                found.flushes += 1
            case Section(head, payload):
                self._device_section(head, [payload])
            case PassedSection(head, records, rest, size):
                self._passed_section(head, records, bytes(rest), size)
            case DeviceSection(head, records):
                self._device_section(head, payload_of(records))
            case Command(kind, data):
                if kind is CommandKind.RECV_BITMAP and not self._sections:  # a postcopy goes on here
                    name = resumed_block(event)
                    self._blocks[name] = BlockSummary(name, 0, None)
                    found.blocks = list(self._blocks.values())
                self._command(kind.name, bytes(data), len(data), event.offset)
            case LaterCommand(number, data):
                self._command(f"command {number} (not known here)", bytes(data), len(data), event.offset)
            case Packaged(data):
                self._command("PACKAGED", bytes(data[:_PACKAGE_SHOWN]), len(data), event.offset)
                self._packages += 1
                with self._boundaries.package():
                    for inner in reader.inside(event):
                        yield from self.take(inner, reader)
            case Eof():
                found.eof = event.offset if found.eof is None else found.eof
            case VmDescription(text):
                found.description = self._boundaries.learn(bytes(text), event.offset)
                if found.configuration is None or found.configuration.page_bits is None:
                    found.page_size = self._boundaries.page_size or found.page_size
            case CheckpointMessage(CheckpointStep.CHECKPOINT_REQUEST, offset=offset):
                self._checkpoints = offset if self._checkpoints is None else self._checkpoints
                self._requests += 1
            case Padding(size, offset):
                self._padding = (
                    f"{size} zeros stand behind the stream's end at byte {offset}: of a block device, or padding"
                )

    def _device_section(self, head: SectionHead, parts: list[Buffer]) -> None:
        size = sum(map(len, parts))
        if head.idstr.endswith(VFIO_SUFFIX):
            self._later_marks(head, b"".join(parts))
        summary = self._section(head, size, self._boundaries.framing(head))
        if not self._wanted(head.idstr, head.instance_id):
            return
        payload = b"".join(parts)
        pieces, config = pieces_of(head, payload)
        if summary.count <= _PIECES_KEPT and (head.kind is Kind.FULL or pieces):
            one = replace(summary, offset=head.offset, size=size, count=1)
            self._found.kept.append(KeptSection(one, config if pieces else payload, pieces))

    def _passed_section(self, head: SectionHead, records: tuple[Passed, ...], rest: bytes, size: int) -> None:
        if rest:
            self._later_marks(replace(head, offset=head.offset + size - len(rest)), rest)
        summary = self._section(head, size, self._boundaries.framing(head))
        if not self._wanted(head.idstr, head.instance_id) or summary.count > _PIECES_KEPT:
            return
        more, config = pieces_of(replace(head, offset=head.offset + size - len(rest)), rest)
        pieces = (*(Piece(one.mark.name, one.size, one.offset) for one in records), *more)
        self._found.kept.append(KeptSection(replace(summary, offset=head.offset, size=size, count=1), config, pieces))

    def _later_marks(self, head: SectionHead, payload: bytes) -> None:
        """Note a record that is not known here."""
        try:
            records_in(payload)
        except ProtocolError as error:
            at = head.offset + len(head_bytes(head)) + error.offset
            note = f"{head} is not understood from byte {at} on: {error.expected}"
            if len(self._later) < _NOTES:
                self._later.append(note)

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
            found.problem = Problem(error.offset, error.item, error.expected)
            found.walked = reader.offset if found.header_version is not None or found.commands else 0
        found.footers = reader.footers if found.sections else None
        found.notes = [*notes, *self._notes()]
        found.description = found.description or self._boundaries.description
        found.described = self._boundaries.text
        return found

    def _notes(self) -> list[str]:
        found = self._found
        later = found.configuration.later if found.configuration is not None else ()
        notes = [f"the configuration has {one}, which is not known here" for one in later]
        notes += [*self._boundaries.notes, *self._later, *([self._padding] if self._padding else [])]
        if found.header_version is not None and found.configuration is None and found.sections:
            notes.append("there is no CONFIGURATION: the machine's name is not known, pages are taken as described")
        if self._checkpoints is not None:
            notes.append(
                f"{count_of(self._requests, 'checkpoint')} of COLO from byte {self._checkpoints} on: each with the RAM "
                f"written since the one before, and with every device again; all are counted together"
            )
        if found.footers is False:
            notes.append("sections have no footers: a wrong length is noticed only where the next item makes no sense")
        if found.eof is not None and found.description is None and found.header_version is not None:
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
