"""RAM on the main channel: pages in batches, lists of blocks, and what is wrong with them."""

from __future__ import annotations

import pytest

from migpool.errors import ProtocolError
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.ram import (
    MultifdFlush,
    RamBlock,
    RamBlocks,
    RamPages,
    RamSectionEnd,
    block_list,
    multifd_flush,
    pages,
    ram_section_end,
)
from migpool.wire.sections import Kind, SectionHead, head_bytes
from migpool.wire.stream import StreamReader, emit, eof, header
from tests.support.made_streams import read_in_pieces
from tests.support.wire_bytes import RECORDS_ONLY

PAGE = 4096
START = head_bytes(SectionHead(Kind.START, 2, "ram", 0, 4))
PART = head_bytes(SectionHead(Kind.PART, 2, "", 0, 0))
BLOCKS = [RamBlock("pc.ram", 16 * PAGE), RamBlock("vga", 2 * PAGE)]


def stream(*payloads: bytes, config: Configuration | None = None) -> bytes:
    """A stream whose first section of RAM has the first payload, and so on."""
    sections = [(PART if n else START) + payload + ram_section_end(2) for n, payload in enumerate(payloads)]
    return b"".join([header(), configuration(config or Configuration("q")), *sections, eof()])


def batches(data: bytes, batch: int = 256) -> list[RamPages]:
    events = read_in_pieces(StreamReader(RECORDS_ONLY, batch=batch), [data])
    return [event for event in events if isinstance(event, RamPages)]


def content(batch: RamPages) -> list[tuple[int, bytes | None]]:
    return [(address, None if data is None else bytes(data)) for address, data in batch]


def page(n: int) -> bytes:
    return bytes((n,)) * PAGE


def test_the_words_have_the_bytes_of_the_format() -> None:
    assert block_list(BLOCKS) == bytes.fromhex(
        "0000000000012004" "06 70632e72616d 0000000000010000" "03 766761 0000000000002000"
    )  # fmt: skip
    assert block_list([RamBlock("a", PAGE, 0xFEC00000)]) == bytes.fromhex(
        "0000000000001004" "01 61 0000000000001000 00000000fec00000"
    )  # fmt: skip
    assert b"".join(pages("vga", [(0x1000, page(7)), (0, None), (0x1000, page(8))])) == (
        bytes.fromhex("0000000000001008 03 766761") + page(7)
        + bytes.fromhex("0000000000000022 00") + bytes.fromhex("0000000000001028") + page(8)
    )  # fmt: skip
    assert b"".join(pages("vga", [(0x1000, None)])) == bytes.fromhex("0000000000001002 03 766761 00")
    assert multifd_flush() == bytes.fromhex("0000000000000200")
    assert ram_section_end(2) == bytes.fromhex("0000000000000010 7e 00000002")


def test_pages_come_with_their_block_address_and_bytes() -> None:
    first = b"".join(pages("pc.ram", [(0, page(1)), (PAGE, None)]))
    second = b"".join(pages("vga", [(PAGE, page(2))]))
    one, two = batches(stream(block_list(BLOCKS), first + second))
    assert (one.block, content(one)) == ("pc.ram", [(0, page(1)), (PAGE, None)])
    assert (two.block, content(two)) == ("vga", [(PAGE, page(2))])


def test_a_batch_ends_when_it_is_full_and_the_next_one_continues_its_block() -> None:
    entries = [(n * PAGE, page(n)) for n in range(7)]
    data = stream(block_list(BLOCKS), b"".join(pages("pc.ram", entries)))
    found = batches(data, batch=3)
    assert [len(batch.addresses) for batch in found] == [3, 3, 1]
    assert [batch.named for batch in found] == [True, False, False]
    assert [entry for batch in found for entry in content(batch)] == entries
    assert all(data[batch.offset :].startswith(b"".join(emit(batch))) for batch in found)


def test_a_block_continues_in_the_next_section() -> None:
    payload = b"".join(pages("vga", [(0, None)]))
    more = b"".join(pages("vga", [(PAGE, page(3))], named=False))
    assert [(batch.block, batch.named) for batch in batches(stream(block_list(BLOCKS), payload, more))] == [
        ("vga", True),
        ("vga", False),
    ]


def test_a_batch_within_one_piece_of_input_is_a_view_of_it() -> None:
    data = stream(block_list(BLOCKS), b"".join(pages("pc.ram", [(0, page(1)), (PAGE, page(2))])))
    [batch] = batches(data)
    assert batch.data.obj is data


def test_with_multifd_only_the_list_and_flushes_stand_here() -> None:
    data = stream(block_list(BLOCKS) + multifd_flush(), multifd_flush(), b"")
    kinds = [type(event) for event in read_in_pieces(StreamReader(RECORDS_ONLY), [data])]
    assert kinds.count(MultifdFlush) == 2
    assert kinds.count(RamSectionEnd) == 3
    assert RamPages not in kinds


def test_guest_physical_addresses_are_read_where_the_capability_says_so() -> None:
    blocks = [RamBlock("a", PAGE, 0), RamBlock("b", 2 * PAGE, 0x100000000)]
    config = Configuration("q", capabilities=("x-ignore-shared",))
    reader = StreamReader(RECORDS_ONLY)
    events = read_in_pieces(reader, [stream(block_list(blocks), config=config)])
    assert [event.blocks for event in events if isinstance(event, RamBlocks)] == [tuple(blocks)]


def test_pages_have_the_size_that_the_configuration_says() -> None:
    page_64k = bytes(range(256)) * 256
    payload = block_list([RamBlock("a", 0x30000)]) + b"".join(pages("a", [(0x10000, page_64k), (0x20000, page_64k)]))
    [batch] = batches(stream(payload, config=Configuration("q", page_bits=16)))
    assert content(batch) == [(0x10000, page_64k), (0x20000, page_64k)]


GOOD = block_list(BLOCKS)


@pytest.mark.parametrize(
    ("payload", "at", "message"),
    [
        (
            "0000000000000400",
            0,
            "flags 002, 004, 008, 010, 022, 028, 040, 060, 100, 120 or 200, found 0000000000000400",
        ),
        ("0000000000001010", 0, "found 0000000000001010"),
        ("0000000000000022 00", 0, "the name of a block before the first CONTINUE"),
        ("0000000000000002 01 62 00", 0, "a block of the list ('pc.ram', 'vga'), found 'b'"),
        ("0000000000000002 01 ff 00", 9, "a name in ASCII"),
        ("0000000000002002 03 766761 00", 0, "an address below 0x2000, the used length of block 'vga', found 0x2000"),
        ("0000000000000002 03 766761 00 0000000000002022 00", 13, "found 0x2000"),
        ("0000000000000002 03 766761 07", 0, "a zero byte, found 0x07"),
        ("0000000000000002 03 766761 00 0000000000001022 08", 13, "a zero byte, found 0x08"),
        ("0000000000001004 01 61 0000000000002000", 8, "at most 4096 bytes as is left of the total, found 8192"),
        ("0000000000001004 01 61 0000000000000001", 8, "whole pages of 4096 bytes"),
        ("0000000000002004 01 61 0000000000001000 01 61 0000000000001000", 18, "each block once, found a second 'a'"),
    ],
)
def test_an_error_says_where_and_what_was_expected(payload: str, at: int, message: str) -> None:
    data = stream(GOOD, bytes.fromhex(payload))
    begin = len(stream(GOOD)) - 1 + len(PART)
    with pytest.raises(ProtocolError) as caught:
        batches(data)
    assert message in str(caught.value)
    assert caught.value.offset == begin + at


def test_a_list_of_blocks_without_length_does_not_grow_for_ever() -> None:
    endless = b"".join(b"\x04%04d" % n + bytes(8) for n in range(5000))
    with pytest.raises(ProtocolError, match="at most 4096 blocks, found more"):
        batches(stream(bytes.fromhex("0000000000001004") + endless))


def test_page_sizes_are_those_of_machines() -> None:
    with pytest.raises(ProtocolError, match="8 to 19 bits, found 40"):
        batches(stream(config=Configuration("q", page_bits=40)))
