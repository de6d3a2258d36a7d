"""The size of a page is told from the pages where nothing says it: the same is read as where it is stated."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.wire.channelreader import ChannelReader, RamPacket
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.multifd import BYTES_PER_RAM_PACKET, SYNC, initial_packet
from migpool.wire.pagesize import SIZES
from migpool.wire.ram import RamBlock, RamPages, block_list, multifd_flush, pages, ram_section_end
from migpool.wire.ramheader import RamPacketHeader, ram_header
from migpool.wire.sections import Kind, SectionHead, head_bytes
from migpool.wire.stream import StreamReader, eof, header
from tests.support.inspections import inspect_pipe
from tests.support.made_streams import in_pieces, read_in_pieces
from tests.support.other_streams import OTHER_PAGES, other
from tests.support.wire_bytes import RECORDS_ONLY

START = head_bytes(SectionHead(Kind.START, 2, "ram", 0, 4))
PART = head_bytes(SectionHead(Kind.PART, 2, "", 0, 0))
BLOCKS = {"ram": 12, "board.rom": 3, "x": 1}
Entries = list[tuple[int, bytes | None]]


@st.composite
def rounds(draw: st.DrawFn, size: int) -> bytes:
    """The pages of some blocks in their order, as a source sends them, over some sections."""
    payload = b""
    for name in draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, unique=True)):
        kept = sorted(draw(st.sets(st.integers(0, BLOCKS[name] - 1), min_size=1)))
        contents = draw(st.lists(st.none() | st.integers(1, 255), min_size=len(kept), max_size=len(kept)))
        entries: Entries = [
            (number * size, None if fill is None else bytes((fill,)) * size)
            for number, fill in zip(kept, contents, strict=True)
        ]
        payload += b"".join(pages(name, entries))
        payload += draw(st.sampled_from([b"", multifd_flush(), ram_section_end(2) + PART]))
    return payload


def stream(size: int, payload: bytes, page_bits: int | None) -> bytes:
    blocks = block_list([RamBlock(name, count * size) for name, count in BLOCKS.items()])
    parts = [START, blocks, ram_section_end(2), PART, payload, ram_section_end(2), eof()]
    return b"".join([header(), configuration(Configuration("q", page_bits)), *parts])


def content(data: bytes, cuts: list[int]) -> list[tuple[str, int, bytes | None]]:
    events = read_in_pieces(StreamReader(RECORDS_ONLY), in_pieces(data, cuts))
    batches = [event for event in events if isinstance(event, RamPages)]
    return [(one.block, address, None if page is None else bytes(page)) for one in batches for address, page in one]


@given(st.data(), st.sampled_from([4096, *SIZES]), st.lists(st.integers(0, 1 << 18), max_size=6))
def test_pages_are_read_as_if_their_size_were_stated(data: st.DataObject, size: int, cuts: list[int]) -> None:
    payload = data.draw(rounds(size))
    stated = content(stream(size, payload, size.bit_length() - 1), [])
    assert content(stream(size, payload, None), cuts) == stated


@pytest.mark.parametrize(("name", "size"), OTHER_PAGES.items())
def test_a_pipe_tells_the_size_of_a_machines_pages(name: str, size: int) -> None:
    summary = inspect_pipe(io.BytesIO(other(name)))
    assert (summary.problem, summary.page_size) == (None, size)


def test_a_live_stream_is_not_waited_for_longer_than_to_the_next_word() -> None:
    payload = b"".join(pages("x", [(0, b"\1" * 4096)]))
    whole = stream(4096, payload, None)
    reader = StreamReader(RECORDS_ONLY)
    reader.feed(whole[:-1])  # but the end of the stream, for which it would wait
    assert any(isinstance(event, RamPages) for event in reader.events())


@given(
    st.sampled_from([4096, *SIZES]),
    st.lists(st.tuples(st.booleans(), st.integers(1, 8)), max_size=5),
    st.booleans(),
    st.lists(st.integers(0, 1 << 16), max_size=6),
)
def test_packets_of_a_channel_tell_the_size_too_though_a_sync_before_them_need_not(
    size: int, sent: list[tuple[bool, int]], said: bool, cuts: list[int]
) -> None:
    data, room = initial_packet(0), BYTES_PER_RAM_PACKET // size
    for number, (sync, count) in enumerate(sent):
        flags, addresses = (SYNC, ()) if sync else (0, tuple(range(0, count * size, size)))
        allocated = room if addresses or said else 0
        name = "ram" if addresses else ""
        header = RamPacketHeader(flags, number, name, addresses, (), len(addresses) * size, allocated)
        data += ram_header(header, size) + bytes((number + 1,)) * header.payload_size

    def read(page_size: int | None, pieces: list[int]) -> list[tuple[RamPacketHeader, bytes]]:
        events = read_in_pieces(ChannelReader(page_size), in_pieces(data, pieces))
        return [(one.header, bytes(one.payload)) for one in events if isinstance(one, RamPacket)]

    assert read(None, cuts) == read(size, [])
