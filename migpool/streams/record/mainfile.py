"""What a recorded main channel says, as far as it can be understood without the machine.

A section's length is known only to who knows its device. What is known here: RAM; sections that consist of records;
sections that the description at the stream's end gives the sizes of; sections of this project's own sources. At the
first other one the walk ends. It comes after END of RAM in every stream that QEMU makes, so what a replay must know has
been seen by then; the end of the stream is found from the description.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.record.channelfile import DeviceKey
from migpool.wire import vmdesc
from migpool.wire.commands import Command, CommandKind
from migpool.wire.configuration import Configuration
from migpool.wire.events import DeviceSection, Eof, StreamEvent, VmDescription
from migpool.wire.extension import CREDITS_CAPABILITY
from migpool.wire.ram import MultifdFlush, RamBlocks, RamPages, RamSectionEnd
from migpool.wire.records import Mark
from migpool.wire.sections import Kind, Section
from migpool.wire.stream import StreamReader

_READ: Final = 1 << 20
_U64: Final = Struct(">Q")
_U32: Final = Struct(">I")


@dataclass(slots=True)
class MainSummary:
    """What was found; offsets are bytes in the main channel.

    Attributes:
        machine: its name; empty if the channel ended before it.
        page_size: bytes of a page.
        credited: whether the source offers credits, and so waits for grants.
        iterable: the iterable devices, in the order of their START sections.
        blocks_end: where RAM's list of blocks ends; 0 without one.
        switchover: where SWITCHOVER_START begins; ``None`` without it.
        switchover_end: where it ends; 0 without it.
        ram_end: where RAM's END section ends; ``None`` without it.
        eof: where the EOF item is; ``None`` if the channel has none.
        pages: pages of RAM with contents on the main channel.
        zero_pages: pages of zeros there.
        flushes: how many MULTIFD_FLUSH there were, each of which every channel answers with a SYNC.
        sections: how many sections were walked.
        whole: whether the stream ends as one does that was not cut short.
        trouble: why the walk ended before the stream's end, in one line; empty if it did not.
    """

    machine: str = ""
    page_size: int = 4096
    credited: bool = False
    iterable: list[DeviceKey] = field(default_factory=list)
    blocks_end: int = 0
    switchover: int | None = None
    switchover_end: int = 0
    ram_end: int | None = None
    eof: int | None = None
    pages: int = 0
    zero_pages: int = 0
    flushes: int = 0
    sections: int = 0
    whole: bool = False
    trouble: str = ""


class _Unknown(Exception):
    """Nothing here says how long this section is."""


class _Lengths:
    """The schema of a recorded stream: measures by marks, by the stream's own description, by this project's form."""

    def __init__(self, description: vmdesc.Description | None, summary: MainSummary) -> None:
        self._summary = summary
        self._sizes: dict[DeviceKey, int | None] = {}
        for device in description.devices if description is not None else ():
            self._sizes[device.name, device.instance_id] = _described_size(device)

    def iterable(self, idstr: str, instance_id: int, /) -> bool:
        """Told from the payload instead: see :meth:`measure`."""
        del idstr, instance_id
        return False

    def measure(self, idstr: str, instance_id: int, version: int, kind: Kind, data: memoryview, /) -> int | None:
        """The payload's length."""
        del version
        size = self._sizes.get((idstr, instance_id))
        if kind is Kind.FULL and size is not None:
            return size
        if self._summary.credited and kind in (Kind.START, Kind.FULL) and not _begins_with_mark(data):
            if kind is Kind.FULL and (idstr, instance_id) not in self._sizes:
                raise _Unknown(idstr)
            return 4 + _U32.unpack_from(data)[0] if len(data) >= 4 else None
        return _measure_records(data, idstr)


def _described_size(device: vmdesc.DeviceDescription) -> int | None:
    """The size that the description states; ``None`` for a section of this project's that begins with its length."""
    if device.layout is not None:
        names = [entry.name for entry in device.layout.fields]
        if names == ["length", "config"] and device.layout.fields[1].size == 0:
            return None
    return vmdesc.payload_size(device)


def _begins_with_mark(data: memoryview) -> bool:
    return len(data) >= 8 and _U64.unpack_from(data)[0] in (Mark.SETUP, Mark.DATA, Mark.END, Mark.INITIAL_DATA_SENT)


def _measure_records(data: memoryview, idstr: str) -> int | None:
    at = 0
    while at + 8 <= len(data):
        mark = _U64.unpack_from(data, at)[0]
        at += 8
        if mark in (Mark.END, Mark.INITIAL_DATA_SENT):
            return at
        if mark == Mark.DATA:
            if at + 8 > len(data):
                return None
            at += 8 + int(_U64.unpack_from(data, at)[0])
        elif mark != Mark.SETUP:
            raise _Unknown(idstr)
    return None


def summarise(path: Path) -> MainSummary:
    """Walk a recorded main channel.

    Arguments:
        path: what the source sent on it.
    """
    summary = MainSummary()
    described, description = _description(path)
    reader = StreamReader(_Lengths(description, summary))
    after_blocks = after_switchover = False
    try:
        with path.open("rb", buffering=0) as file:
            while data := file.read(_READ):
                reader.feed(data)
                for event in reader.events():
                    _note(event, summary)
                    if isinstance(event, RamBlocks) and not after_blocks:
                        after_blocks, summary.blocks_end = True, reader.offset
                    if summary.switchover is not None and not after_switchover:
                        after_switchover, summary.switchover_end = True, reader.offset
            reader.end()
        summary.whole = summary.eof is not None
    except _Unknown as unknown:
        summary.trouble = f"section of {unknown} at byte {reader.offset}: its length is known only to its device"
        summary.whole = described is not None or _last_byte(path) == 0
        if described is not None:
            summary.eof = described - 1
    except ProtocolError as error:
        summary.trouble = str(error)
    return summary


def _note(event: StreamEvent, summary: MainSummary) -> None:
    match event:
        case RamPages():
            zeros = event.positions.count(-1)
            summary.zero_pages += zeros
            summary.pages += len(event.addresses) - zeros
        case Configuration():
            summary.machine = event.machine
            summary.page_size = event.page_size
            summary.credited = CREDITS_CAPABILITY in (event.capabilities or ())
        case MultifdFlush():
            summary.flushes += 1
        case RamSectionEnd(head, offset):
            summary.sections += 1
            if head.kind is Kind.END:
                summary.ram_end = offset
        case Section(head, payload):
            summary.sections += 1
            if head.kind is Kind.START and _begins_with_mark(memoryview(payload)):
                summary.iterable.append((head.idstr, head.instance_id))
        case DeviceSection(head):
            summary.sections += 1
            if head.kind is Kind.START:
                summary.iterable.append((head.idstr, head.instance_id))
        case Command(CommandKind.SWITCHOVER_START):
            summary.switchover = event.offset
        case Eof(offset):
            summary.eof = offset
        case VmDescription():
            summary.whole = True
        case _:
            pass


def _description(path: Path) -> tuple[int | None, vmdesc.Description | None]:
    """Where the description is, and what it says; ``None`` for what is not there."""
    with path.open("rb") as file:
        try:
            stream = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            return None, None
        with stream, memoryview(stream) as view:
            try:
                offset, text = vmdesc.find(view)
            except ProtocolError:
                return None, None
            with text:
                copied = bytes(text)
    try:
        return offset, vmdesc.parse(copied, offset)
    except ProtocolError:
        return offset, None


def _last_byte(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1)[0]
