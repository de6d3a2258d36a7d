"""What a recording's channels say: the main channel as far as it can be understood without the machine, the headers of
the multifd channels' packets, and the destination's answers.

The main channel is walked as ``migpool inspect`` walks any stream. Where a section's length is known only to who knows
its device, the walk ends. It comes after END of RAM in every stream that QEMU makes, so what a replay must know has
been seen by then; the end of the stream is found from the description.

Of a multifd channel only headers are read. So a recording of any size is walked quickly, in constant memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from migpool.errors import ProtocolError
from migpool.streams.envelope.opening import open_path
from migpool.streams.inspect.reading import Inspection
from migpool.streams.inspect.summary import StreamSummary
from migpool.streams.record.index import Connection, Times
from migpool.wire import ram
from migpool.wire.commands import Command, CommandKind
from migpool.wire.configuration import Configuration
from migpool.wire.devicestate import HEADER_SIZE, PACKET_HEADER_SIZE, chunk_fields, parse_device_packet_header
from migpool.wire.multifd import DEVICE_STATE, INITIAL_SIZE, PREFIX_SIZE, header_rest, packet_flags
from migpool.wire.ram import MultifdFlush, RamBlock, RamBlocks, RamPages, RamSectionEnd
from migpool.wire.ramforms import RamPacked
from migpool.wire.ramheader import parse_ram_header
from migpool.wire.ramreader import RamReader
from migpool.wire.records import Mark, begins_with_record, end_payload
from migpool.wire.returnpath import CREDITS_CAPABILITY, LIVE_CAPABILITY, Message, ReturnPathReader
from migpool.wire.sections import Footers, Kind, Section, SectionHead
from migpool.wire.stream import EOF, Eof, PassedSection, StreamEvent
from migpool.wire.trailer import CheckpointMessage, CheckpointReply, CheckpointStep, checkpoint_replies
from migpool.wire.unread import PushReader, Unread

_READ: Final = 1 << 20
_PAYLOAD_LIMIT: Final = 64 << 20
_BATCH: Final = 1024

DeviceKey: TypeAlias = tuple[str, int]
"""A device's idstr and instance id."""


@dataclass(slots=True)
class MainSummary:
    """What was found; offsets are bytes in the main channel.

    Attributes:
        machine: its name; empty if the channel ended before it.
        page_size: bytes of a page.
        capabilities: what the source asks of the destination, by name.
        credited: whether the source offers credits, and so waits for grants.
        configured: where the configuration ends; 0 without one.
        iterable: the iterable devices, in the order of their START sections.
        live_rounds: for each of these, how many rounds of it the multifd channels carried while the machine ran.
        blocks: RAM's list of blocks.
        postcopy: the source said that it may finish by postcopy.
        blocks_end: where RAM's list of blocks ends; 0 without one.
        unheard: whether a device has begun behind the last flush before the switchover, so that no SYNC of a channel
            says that a destination has heard of the device.
        switchover: where SWITCHOVER_START begins; ``None`` without it.
        switchover_end: where it ends; 0 without it.
        ram_end: where RAM's END section ends; ``None`` without it.
        eof: where the EOF item is; ``None`` if the channel has none.
        pages: pages of RAM with contents on the main channel.
        zero_pages: pages of zeros there.
        checkpoints: how many checkpoints of COLO's there were behind the stream's end.
        flushes: how many MULTIFD_FLUSH there were, each of which every channel answers with a SYNC.
        whole: whether the stream ends as one does that was not cut short.
        trouble: why the walk ended before the stream's end, in one line; empty if it did not.
    """

    machine: str = ""
    page_size: int = 4096
    capabilities: tuple[str, ...] = ()
    credited: bool = False
    configured: int = 0
    iterable: list[DeviceKey] = field(default_factory=list)
    live_rounds: dict[DeviceKey, int] = field(default_factory=dict)
    blocks: tuple[RamBlock, ...] = ()
    postcopy: bool = False
    blocks_end: int = 0
    unheard: bool = False
    switchover: int | None = None
    switchover_end: int = 0
    ram_end: int | None = None
    eof: int | None = None
    pages: int = 0
    zero_pages: int = 0
    checkpoints: int = 0
    flushes: int = 0
    whole: bool = False
    trouble: str = ""


def summarise(path: Path) -> MainSummary:
    """Walk a recorded main channel.

    Arguments:
        path: what the source sent on it.
    """
    summary = MainSummary()
    with open_path(path) as opened:
        inspection = Inspection(opened)
        for event in inspection:
            _note(event, summary, inspection.offset)
        found = inspection.summary()
        described = opened.description()
        last = opened.source.last(1)
    summary.whole, summary.page_size = found.problem is None, found.page_size
    if found.problem is not None:
        summary.trouble = str(found.problem)
        if summary.ram_end is not None and found.problem.ambiguous:
            # A section whose length is known to nobody: what comes behind it is there all the same.
            summary.whole = described is not None or (last is not None and last[1] == bytes((EOF,)))
            summary.eof = None if described is None else described[0] - 1
    return summary


def _note(event: StreamEvent, summary: MainSummary, end: int) -> None:
    """Note an event that ends at byte ``end``."""
    match event:
        case RamPages():
            zeros = event.positions.count(-1)
            summary.zero_pages += zeros
            summary.pages += len(event.addresses) - zeros
        case Configuration():
            summary.machine = event.machine
            summary.capabilities, summary.configured = event.capabilities or (), end
            summary.credited = CREDITS_CAPABILITY in summary.capabilities
        case RamBlocks():
            summary.blocks_end = summary.blocks_end or end
            summary.blocks = event.blocks
        case MultifdFlush():
            summary.flushes += 1
            summary.unheard = summary.unheard and summary.switchover is not None
        case RamSectionEnd(head, offset):
            if head.kind is Kind.END and summary.ram_end is None:  # COLO's checkpoints have one each
                summary.ram_end = offset
        case Section(head, payload):
            if head.kind is Kind.START and begins_with_record(payload):
                summary.iterable.append((head.idstr, head.instance_id))
                summary.unheard = True
            elif head.kind is Kind.PART and payload == end_payload():
                _note_live_round(head, summary)
        case PassedSection(head, records):
            if head.kind is Kind.START:
                summary.iterable.append((head.idstr, head.instance_id))
                summary.unheard = True
            elif head.kind is Kind.PART and [record.mark for record in records] == [Mark.END]:
                _note_live_round(head, summary)
        case RamPacked():
            summary.pages += 1
        case CheckpointMessage(CheckpointStep.CHECKPOINT_REQUEST):
            summary.checkpoints += 1
        case Command(CommandKind.POSTCOPY_ADVISE):
            summary.postcopy = True
        case Command(CommandKind.SWITCHOVER_START):
            if summary.switchover is None:
                summary.switchover, summary.switchover_end = event.offset, end
        case Eof(offset):
            summary.eof = offset if summary.eof is None else summary.eof
        case _:
            pass


def _note_live_round(head: SectionHead, summary: MainSummary) -> None:
    if LIVE_CAPABILITY in summary.capabilities:
        device = head.idstr, head.instance_id
        summary.live_rounds[device] = summary.live_rounds.get(device, 0) + 1


@dataclass(frozen=True, slots=True)
class Packet:
    """Where a packet is, and what it carries.

    Attributes:
        offset: where in the channel it begins.
        end: where it ends.
        device: whose state it carries; ``None`` for RAM and SYNC.
        index: the chunk's index; 0 for RAM and SYNC, and for a payload that is no VFIO device's.
        config: whether the chunk is the device's config, or the last part of it.
        sync: whether it is a SYNC.
        normal: pages of RAM with contents.
        zero: pages of zeros.
        compression: how its pages are packed; empty if they are not.
    """

    offset: int
    end: int
    device: DeviceKey | None = None
    index: int = 0
    config: bool = False
    sync: bool = False
    normal: int = 0
    zero: int = 0
    compression: str = ""

    @property
    def payload(self) -> int:
        """Bytes of device state, without headers."""
        return self.end - self.offset - HEADER_SIZE if self.device is not None else 0


def packets(path: Path, page_size: int) -> Iterator[Packet]:
    """Every packet after the initial one.

    Arguments:
        path: what the source sent on the channel.
        page_size: bytes of a page of RAM, as the main channel says.

    Raises:
        ProtocolError: it is no channel, or ends within a packet.
    """
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        offset = INITIAL_SIZE
        most = max(PREFIX_SIZE + header_rest(0, page_size), HEADER_SIZE)
        while offset < size:
            packet = _packet(os.pread(descriptor, most, offset), offset, page_size)
            if packet.end > size:
                right = f"{packet.end - offset} bytes, found {size - offset} and the end of the channel"
                raise ProtocolError(offset, "multifd packet", right)
            yield packet
            offset = packet.end


def _packet(header: bytes, offset: int, page_size: int) -> Packet:
    _whole(header, PREFIX_SIZE, offset)
    flags = packet_flags(header, offset)
    size = PREFIX_SIZE + header_rest(flags, page_size)
    _whole(header, size, offset)
    if flags & DEVICE_STATE:
        head = parse_device_packet_header(header, offset, _PAYLOAD_LIMIT)
        try:
            index, config = chunk_fields(header[PACKET_HEADER_SIZE:HEADER_SIZE], min(head.size, len(header)), offset)
        except ProtocolError:
            index, config = 0, False
        return Packet(offset, offset + size + head.size, (head.idstr, head.instance_id), index, config)
    pages = parse_ram_header(header, page_size, offset, _PAYLOAD_LIMIT)
    end = offset + size + pages.payload_size
    way = pages.compression.name.lower() if pages.compression else ""
    return Packet(offset, end, sync=pages.sync, normal=len(pages.normal), zero=len(pages.zero), compression=way)


def pages_beside(path: Path, page_size: int, blocks: Sequence[RamBlock]) -> tuple[int, int, str]:
    """How many pages the preempt channel of a postcopy carried, with contents and of zeros, and what is wrong with it.

    It has entries of RAM and nothing else, from its first byte to its last.

    Arguments:
        path: what the source sent on it.
        page_size: bytes of a page.
        blocks: RAM's list of blocks, which stands on the main channel.
    """
    unread = Unread()
    reader = RamReader(page_size, False, _BATCH, Footers())
    events = PushReader(unread, reader.beside(unread, blocks))
    normal = zero = 0
    try:
        with path.open("rb", buffering=0) as file:
            for event in events.read(iter(lambda: file.read(_READ), b"")):
                if isinstance(event, RamPages):
                    zeros = event.positions.count(ram.ZERO_PAGE)
                    normal, zero = normal + len(event.positions) - zeros, zero + zeros
                elif isinstance(event, RamPacked):
                    normal += 1
    except ProtocolError as error:
        return normal, zero, str(error)
    return normal, zero, ""


def resumed(path: Path) -> StreamSummary:
    """What a channel carried on which a postcopy went on after a break.

    Arguments:
        path: what the source sent on it.
    """
    with open_path(path) as opened:
        return Inspection(opened).summary()


def _whole(header: bytes, size: int, offset: int) -> None:
    if len(header) < size:
        right = f"a header of {size} bytes, found {len(header)} and the end of the channel"
        raise ProtocolError(offset, "multifd packet", right)


def answers(
    directory: Path, main: Connection, *, extension: bool, colo: bool = False
) -> Iterator[tuple[int, Message | CheckpointReply]]:
    """Every message with its time, CLOCK_MONOTONIC in nanoseconds. It ends before what is no message.

    Arguments:
        main: the main channel's connection.
        extension: whether the source offered this project's own messages.
        colo: whether the destination may have gone on with those of COLO.
    """
    flow = main.destination
    if not flow.recorded:
        return
    reader: PushReader[Message] | PushReader[CheckpointReply] = ReturnPathReader(extension)
    stamps = Times(directory / flow.times).pairs()
    now, covered = main.begin, 0
    with (directory / flow.file).open("rb", buffering=0) as file:
        while data := file.read(_READ):
            reader.feed(data)
            while True:
                try:
                    for message in reader.events():
                        # A message has come when its last byte has.
                        while covered < reader.offset and (stamp := next(stamps, None)) is not None:
                            now, covered = stamp
                        yield now, message
                    break
                except ProtocolError:
                    if not colo:
                        return
                colo, left, offset = False, reader.ahead(reader.pending), reader.offset
                reader = checkpoint_replies(offset)
                reader.feed(left)
