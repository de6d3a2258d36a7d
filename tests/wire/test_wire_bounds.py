"""What a reader costs: memory only for what has arrived, work in proportion to the input."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from migpool.errors import ProtocolError
from migpool.wire.channelreader import ChannelReader
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.multifd import initial_packet
from migpool.wire.ram import RamBlock, RamPages, block_list, pages, ram_section_end
from migpool.wire.sections import Kind, SectionHead, footer, head_bytes
from migpool.wire.stream import StreamReader, header
from tests.support.described_lengths import DescribedLengths, capture
from tests.support.made_streams import read_in_pieces
from tests.support.wire_bytes import RECORDS_ONLY

GIANT = 0xFFFFFF00
DESCRIPTION = 16 << 20
"""The most that a description may have."""
PROLOGUE = header() + configuration(Configuration("q"))
FULL = b"\x04\0\0\0\1\1d" + bytes(8)
DATA_RECORD = bytes.fromhex("ffffffffef100004")
DEVICE_STATE = bytes.fromhex("11223344 00000001 00000040") + b"d".ljust(256, b"\0") + bytes(4)


class Claims:
    """A schema that always gives the same answer, and counts."""

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.looked_at = 0

    def iterable(self, idstr: str, instance_id: int, /) -> bool:
        del idstr, instance_id
        return False

    def measure(self, idstr: str, instance_id: int, version: int, kind: Kind, data: memoryview, /) -> int | None:
        del idstr, instance_id, version, kind
        self.looked_at += len(data)
        return self.size


@contextmanager
def at_most(limit: int) -> Iterator[None]:
    """Fail if more than ``limit`` bytes are allocated at any time inside."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak} bytes were allocated"


Make = Callable[[int], StreamReader | ChannelReader]
greatest_lengths = pytest.mark.parametrize(
    ("make", "data"),
    [
        (lambda limit: StreamReader(RECORDS_ONLY, limit=limit), PROLOGUE + b"\0\x06" + DESCRIPTION.to_bytes(4, "big")),
        (lambda limit: StreamReader(RECORDS_ONLY, limit=limit), PROLOGUE + b"\x08\0\7\0\4" + GIANT.to_bytes(4, "big")),
        (
            lambda limit: StreamReader(RECORDS_ONLY, limit=limit),
            PROLOGUE + FULL + DATA_RECORD + GIANT.to_bytes(8, "big"),
        ),
        (lambda limit: StreamReader(Claims(GIANT), limit=limit), PROLOGUE + FULL),
        (lambda limit: ChannelReader(limit=limit), initial_packet(0) + DEVICE_STATE + GIANT.to_bytes(4, "big")),
    ],
    ids=["description", "package", "record", "schema", "device state"],
)


@greatest_lengths
def test_the_greatest_length_allocates_nothing_before_they_arrive(make: Make, data: bytes) -> None:
    with at_most(256 << 10):
        reader = make(1 << 40)
        for piece in (data, bytes(1000), bytes(1000)):
            reader.feed(piece)
            list(reader.events())
    assert reader.pending >= 2000
    with pytest.raises(ProtocolError, match="found 2000 and the end of the input"):
        reader.end()


@greatest_lengths
def test_a_length_over_the_limit_is_an_error_at_once(make: Make, data: bytes) -> None:
    reader = make(1 << 20)
    reader.feed(data + bytes(5))
    with pytest.raises(ProtocolError, match="1048576 bytes"):
        list(reader.events())


def test_a_payload_without_end_is_an_error_at_the_limit() -> None:
    pieces = [PROLOGUE + FULL] + [bytes(100)] * 300
    reader = StreamReader(Claims(None), limit=10_000)
    with pytest.raises(ProtocolError, match="at most 10000 bytes, found no end within"):
        read_in_pieces(reader, pieces)
    assert reader.pending < 20_200


@pytest.mark.parametrize("mark", [footer(1), b"\0"], ids=["full of footers", "zeros"])
def test_a_schema_looks_at_a_payload_in_proportion_to_its_length_however_small_the_pieces(mark: bytes) -> None:
    schema = Claims(None)
    reader = StreamReader(schema)
    reader.feed(PROLOGUE + FULL)
    payload = mark * (50_000 // len(mark))
    for byte in payload:
        reader.feed(bytes((byte,)))
        list(reader.events())
    # Asked at each byte, it would have looked at 25,000 times the length.
    assert schema.looked_at < 140 * len(payload)
    assert schema.looked_at < 4 * len(payload) or mark == footer(1)


def test_the_largest_recording_byte_by_byte_makes_its_schema_look_little_further() -> None:
    stream = capture("q35-rich")
    schema = DescribedLengths.of(stream)
    reader = StreamReader(schema)
    for byte in stream:
        reader.feed(bytes((byte,)))
        list(reader.events())
    assert schema.looked_at < 4 * len(stream)


def test_single_bytes_that_wait_take_little_more_room_than_they_are() -> None:
    reader = StreamReader(Claims(GIANT), limit=1 << 40)
    reader.feed(PROLOGUE + FULL)
    with at_most(120_000):
        for _ in range(40_000):
            reader.feed(b"x")
        list(reader.events())
    assert reader.pending == 40_000


def test_ram_of_any_size_is_walked_in_constant_memory() -> None:
    page = bytes(4096)
    reader = StreamReader(RECORDS_ONLY)
    reader.feed(PROLOGUE + head_bytes(SectionHead(Kind.START, 2, "ram", 0, 4)))
    reader.feed(block_list([RamBlock("a", 8192 * 4096)]))
    chunk = b"".join(b"".join(pages("a", [(n * 4096, page)], named=n == 0)) for n in range(64))
    rest = b"".join(b"".join(pages("a", [(n * 4096, page)], named=False)) for n in range(64, 128))
    walked = 0
    with at_most(4 << 20):
        for n in range(128):
            reader.feed(bytearray(rest if n else chunk))
            walked += sum(len(event.addresses) for event in reader.events() if isinstance(event, RamPages))
        reader.feed(ram_section_end(2))
        walked += sum(len(event.addresses) for event in reader.events() if isinstance(event, RamPages))
    assert walked == 128 * 64
    assert reader.pending == 0
