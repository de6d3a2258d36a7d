"""The packets of the data path are those of the wire's own tables, byte for byte, and what is wrong is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from migpool.errors import ProtocolError
from migpool.wire.ramheader import RamPacketHeader, ram_header, sync_header
from migpool.wire.rampacket import RamPacketParser, RamPacketWriter

PAGE = 4096


def written(number: int, normal: list[int], zero: list[int]) -> bytearray:
    writer = RamPacketWriter(["other", "pc.ram"])
    offsets = np.array(normal + zero, dtype=">u8").tobytes()
    writer.pack(number, 1, len(normal), len(zero), len(normal) * PAGE, offsets)
    return writer.buffer


def parser(length: int = 1 << 20) -> RamPacketParser[str]:
    return RamPacketParser({"pc.ram": (length, "the memory")})


def test_a_header_is_the_one_of_the_table() -> None:
    normal, zero = [0, 3 * PAGE, 2 * PAGE], [7 * PAGE]
    expected = ram_header(RamPacketHeader(0, 9, "pc.ram", tuple(normal), tuple(zero), 3 * PAGE))
    assert written(9, normal, zero) == expected


def test_a_header_is_read_as_it_was_written() -> None:
    found = parser().parse(written(1, [PAGE, 5 * PAGE], [0]))
    assert found is not None
    block, normal, zero = found
    assert (block, normal, zero.tolist()) == ("the memory", [(1, 2), (5, 6)], [0])


@pytest.mark.parametrize(
    ("pages", "runs"),
    [
        ([4, 5, 6, 7], [(4, 8)]),
        ([4, 6, 5, 7], [(4, 5), (6, 7), (5, 6), (7, 8)]),  # both ends as if they lay side by side
        ([4, 5, 5, 7], [(4, 6), (5, 6), (7, 8)]),
        ([252, 253, 254, 255], [(252, 256)]),
    ],
)
def test_pages_are_written_where_each_of_them_says(pages: list[int], runs: list[tuple[int, int]]) -> None:
    found = parser().parse(written(1, [page * PAGE for page in pages], []))
    assert found is not None
    assert found[1] == runs


def test_pages_side_by_side_must_not_reach_out_of_the_block() -> None:
    with pytest.raises(ProtocolError, match=r"pages inside the 1048576 bytes of pc.ram, found one at 1048576"):
        parser().parse(written(1, [page * PAGE for page in (253, 254, 255, 256)], []))


def test_a_sync_and_an_empty_packet_have_no_pages() -> None:
    assert parser().parse(sync_header(3)) is None
    assert parser().parse(ram_header(RamPacketHeader(0, 3))) is None


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, 0x11223345, "magic 0x11223344, found 0x11223345"),
        (4, 2, "version 1, found 2"),
        (8, 0x02, "no compression, found zlib"),
        (16, 200, "at most 128 pages, found 200 and 1 of zeros"),
        (20, 4096, "a payload of 2 pages of 4096 bytes, found 4096 bytes"),
        (36, 1, "28 zero bytes"),
        (64, int.from_bytes(b"pd.r", "big"), r"a block of this machine \(pc.ram\), found 'pd.ram'"),
        (324, 1, "the offset of a page of 4096 bytes, found 0x1"),
        (324, 1 << 20, "pages inside the 1048576 bytes of pc.ram, found one at 1048576"),
        (320, 1 << 31, "pages inside the 1048576 bytes of pc.ram, found one at 9223372036854775808"),
    ],
)
def test_a_wrong_header_is_refused_with_its_place(at: int, value: int, words: str) -> None:
    header = written(1, [0, PAGE], [2 * PAGE])
    struct.pack_into(">I", header, at, value)
    with pytest.raises(ProtocolError, match=words) as error:
        parser().parse(header, 1000)
    assert error.value.offset >= 1000
