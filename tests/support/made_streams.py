"""Main channels made of drawn events, and ways of feeding them to a reader."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

from hypothesis import strategies as st

from migpool.wire.commands import Command, CommandKind, Packaged
from migpool.wire.configuration import Configuration
from migpool.wire.ram import MultifdFlush, RamBlock, RamBlocks, RamPages, RamSection, RamSectionEnd, pages
from migpool.wire.records import Mark, Record
from migpool.wire.sections import Kind, Section, SectionHead
from migpool.wire.stream import MAPPED_RAM, DeviceSection, Eof, FileHeader, StreamEvent, VmDescription, emit
from migpool.wire.unread import PushReader

E = TypeVar("E")
BATCH = 3

short_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
"""Of any characters that UTF-8 has; said so, since to ask the codec of each takes longer than most tests."""
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
u32 = st.integers(0, 2**32 - 1)
kinds = {
    CommandKind.OPEN_RETURN_PATH: st.just(b""),
    CommandKind.PING: st.binary(min_size=4, max_size=4),
    CommandKind.POSTCOPY_ADVISE: st.sampled_from([b"", bytes(range(16))]),
    CommandKind.RAM_DISCARD: st.binary(min_size=1, max_size=40),
    CommandKind.RECV_BITMAP: st.binary(min_size=2, max_size=40),
    CommandKind.SWITCHOVER_START: st.just(b""),
    CommandKind.FAILED: st.binary(min_size=1, max_size=40),
}
commands = st.sampled_from(sorted(kinds)).flatmap(lambda kind: st.builds(Command, st.just(kind), kinds[kind]))


class LengthPrefixed:
    """The schema of made streams: a payload is a byte that says how many follow; devices named r... have records."""

    def iterable(self, idstr: str, instance_id: int, /) -> bool:
        del instance_id
        return idstr.startswith("r")

    def measure(self, idstr: str, instance_id: int, version: int, kind: Kind, data: memoryview, /) -> int | None:
        del idstr, instance_id, version, kind
        return 1 + data[0] if len(data) > data[0] else None


def counted(data: bytes) -> bytes:
    return bytes((len(data),)) + data


# Payloads that look like footers are what a reader could stumble over.
payloads = st.lists(st.sampled_from([b"\x7e", b"\0\0\0\x07", b"\0", b"abc"]), max_size=12).map(b"".join).map(counted)


@st.composite
def record_lists(draw: st.DrawFn) -> tuple[Record, ...]:
    data = st.binary(max_size=30).map(lambda raw: Record(Mark.DATA, raw))
    config = payloads.map(lambda raw: Record(Mark.CONFIG, raw))
    body = draw(st.lists(data | config | st.just(Record(Mark.SETUP)), max_size=4))
    return (*body, Record(draw(st.sampled_from([Mark.END, Mark.INITIAL_DATA_SENT]))))


@st.composite
def page_runs(draw: st.DrawFn, blocks: tuple[RamBlock, ...], page_size: int) -> RamPages:
    """Between one page and a batch of them."""
    block = draw(st.sampled_from(blocks))
    count = draw(st.integers(1, BATCH))
    addresses = draw(st.lists(st.integers(0, block.used_length // page_size - 1), min_size=count, max_size=count))
    zeros = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    page = bytes([0x7E, 0, 0, 0, 2] * page_size)[:page_size]
    entries = [(address * page_size, None if zero else page) for address, zero in zip(addresses, zeros, strict=True)]
    data = b"".join(pages(block.name, entries))
    positions, at = [], len(counted(block.name.encode()))
    for _, content in entries:
        positions.append(-1 if content is None else at + 8)
        at += 8 + (1 if content is None else page_size)
    return RamPages(block.name, True, page_size, tuple(a for a, _ in entries), tuple(positions), memoryview(data))


@st.composite
def ram_sections(draw: st.DrawFn, page_size: int, gpa: bool) -> list[StreamEvent]:
    """A START section with a list of blocks, and some PART sections with pages, all of one id."""
    pages_of = st.integers(1, 5).map(lambda n: n * page_size)
    gpas = u32 if gpa else st.none()
    blocks = draw(
        st.lists(st.builds(RamBlock, names, pages_of, gpas), min_size=1, max_size=3, unique_by=lambda b: b.name)
    )
    start = SectionHead(Kind.START, 2, "ram", 0, 4)
    events: list[StreamEvent] = [RamSection(start), RamBlocks(tuple(blocks)), RamSectionEnd(start)]
    for kind in [*draw(st.lists(st.just(Kind.PART), max_size=2)), Kind.END]:
        head = SectionHead(kind, 2, "ram", 0, 4)
        runs = st.lists(page_runs(tuple(blocks), page_size) | st.just(MultifdFlush()), max_size=4)
        events += [RamSection(head), *draw(runs), RamSectionEnd(head)]
    return events


@st.composite
def device_sections(draw: st.DrawFn, section_id: int) -> list[StreamEvent]:
    number, version = draw(u32), draw(u32)
    if draw(st.booleans()):
        head = SectionHead(Kind.FULL, section_id, "d" + draw(names), number, version)
        return [Section(head, draw(payloads))]
    idstr = draw(st.sampled_from(["r", "0000:01:00.0/vfio"]))
    kinds = draw(st.sampled_from([[Kind.FULL], [Kind.START, Kind.END], [Kind.START, Kind.PART, Kind.PART, Kind.END]]))
    heads = [SectionHead(kind, section_id, idstr, number, version) for kind in kinds]
    return [DeviceSection(head, draw(record_lists())) for head in heads]


# With mapped-ram a stream is one of a file, and has its pages at fixed places: it is not made here.
capabilities = (names | st.just("x-ignore-shared")).filter(lambda name: name != MAPPED_RAM)
configurations = st.builds(
    Configuration,
    names,
    st.none() | st.integers(10, 12),
    st.none() | st.lists(capabilities, max_size=3).map(tuple),
    st.none() | st.binary(min_size=16, max_size=16),
)


@st.composite
def streams(draw: st.DrawFn) -> list[StreamEvent]:
    """The events of a whole stream. Their offsets are not set."""
    config = draw(configurations)
    gpa = "x-ignore-shared" in (config.capabilities or ())
    middle: list[StreamEvent] = [*draw(st.lists(commands, max_size=3))]
    if draw(st.booleans()):
        middle += draw(ram_sections(config.page_size, gpa))
    for section_id in draw(st.lists(st.integers(3, 9), max_size=3, unique=True)):
        middle += draw(device_sections(section_id))
    middle += draw(st.lists(commands | st.builds(Packaged, st.binary(max_size=40)), max_size=2))
    end = draw(st.sampled_from([[], [VmDescription(b"")], [VmDescription(b'{"devices": []}')]]))
    return [FileHeader(), config, *middle, Eof(), *end]


def raw(events: list[StreamEvent]) -> bytes:
    """The bytes of events."""
    return b"".join(b"".join(emit(event)) for event in events)


def in_pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """``data`` cut at these places."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in pairwise(edges):
        yield data[begin:end]


def read_in_pieces(reader: PushReader[E], pieces: Iterator[bytes] | list[bytes]) -> list[E]:
    """All events of a whole input."""
    events: list[E] = []
    for piece in pieces:
        reader.feed(piece)
        events += reader.events()
    reader.end()
    return [*events, *reader.events()]
