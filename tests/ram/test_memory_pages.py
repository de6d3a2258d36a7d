"""What a round makes of the memory: which pages, in which packets, which of them zeros."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from migpool.device import MemoryBlock
from migpool.errors import DeviceError
from migpool.ram.dirty_pages import Pages
from migpool.wire.rampacket import PagePacket, runs_of
from tests.support.paper import PAGE, Paper


def taken(pages: Pages) -> list[PagePacket]:
    found = []
    while (packets := pages.take()) is not None:
        found += packets
    return found


def offsets(packet: PagePacket) -> list[int]:
    return [int(offset) for offset in np.frombuffer(packet.offsets, dtype=">u8")]


def test_the_first_round_has_every_page_once() -> None:
    paper = Paper(300, 5)
    pages = Pages(paper)
    assert pages.left == 305 * PAGE
    assert pages.begin_round() == 305 * PAGE
    packets = taken(pages)
    assert [(packet.block, packet.normal + packet.zero) for packet in packets] == [(0, 128), (0, 128), (0, 44), (1, 5)]
    assert [offset for packet in packets[:3] for offset in offsets(packet)] == [n * PAGE for n in range(300)]
    assert pages.left == 0


def test_a_page_of_zeros_is_named_and_not_sent() -> None:
    paper = Paper(128)
    for page in (3, 4, 70):
        paper.write(0, page, b"\0" * (PAGE - 1) + b"x")  # only the last byte tells it from zeros
    pages = Pages(paper)
    pages.begin_round()
    (packet,) = taken(pages)
    assert (packet.normal, packet.zero, packet.size) == (3, 125, 3 * PAGE)
    assert offsets(packet)[:3] == [3 * PAGE, 4 * PAGE, 70 * PAGE]
    assert [len(view) for view in packet.views] == [2 * PAGE, PAGE]  # pages side by side are one piece
    assert sorted(offsets(packet)) == [n * PAGE for n in range(128)]


def test_pages_are_sent_from_where_they_are() -> None:
    paper = Paper(2)
    paper.write(0, 1, b"before")
    pages = Pages(paper)
    pages.begin_round()
    (packet,) = taken(pages)
    paper.write(0, 1, b"behind")
    assert bytes(packet.views[0][:6]) == b"behind"


def test_a_later_round_has_what_was_written_since() -> None:
    paper = Paper(1000)
    pages = Pages(paper)
    pages.begin_round()
    taken(pages)
    for page in (999, 7, 8):
        paper.write(0, page, b"x")
    pages.look()
    assert pages.left == 3 * PAGE
    pages.begin_round()
    (packet,) = taken(pages)
    assert offsets(packet) == [7 * PAGE, 8 * PAGE, 999 * PAGE]
    pages.look()
    assert pages.left == 0


def test_looks_add_up_until_a_round_begins() -> None:
    paper = Paper(64)
    pages = Pages(paper)
    pages.begin_round()
    taken(pages)
    for page in (1, 2):
        paper.write(0, page, b"x")
        pages.look()
    assert pages.left == 2 * PAGE


def test_a_large_round_is_taken_by_huge_pages() -> None:
    paper = Paper(512 * 18 + 100)
    for page in range(512 * 9, 512 * 18):  # one half zeros, the other half numbers
        paper.write(0, page, b"x")
    pages = Pages(paper)
    pages.begin_round()
    places = []
    while (packets := pages.take()) is not None:
        places.append([offset // PAGE for packet in packets for offset in offsets(packet)])
    assert places == [list(range(at, min(at + 512, 512 * 18 + 100))) for at in range(0, 512 * 18 + 100, 512)]


def test_a_small_round_has_a_part_for_every_thread() -> None:
    paper = Paper(512 * 18)
    pages = Pages(paper)
    pages.begin_round()
    taken(pages)
    for page in range(128 * 8):
        paper.write(0, page, b"x")
    pages.look()
    pages.begin_round()
    parts = 0
    while pages.take() is not None:
        parts += 1
    assert parts == 8


def test_a_page_whose_first_word_alone_is_zero_is_sent_among_its_neighbours() -> None:
    paper = Paper(512 * 16)
    for page in range(512 * 16):
        paper.write(0, page, b"\0" * 8 + b"x" if page == 700 else b"" if page == 701 else b"x")
    pages = Pages(paper)
    pages.begin_round()
    packets = taken(pages)
    (place,) = [packet for packet in packets if packet.zero]
    assert offsets(place)[-1] == 701 * PAGE
    assert (place.normal, place.zero) == (127, 1)
    assert sum(packet.normal for packet in packets) == 512 * 16 - 1
    assert b"".join(bytes(view) for packet in packets for view in packet.views)[700 * PAGE + 8 :][:1] == b"x"


def test_several_threads_share_a_round_without_overlap() -> None:
    paper = Paper(128 * 50)
    pages = Pages(paper)
    pages.begin_round()
    found: list[list[PagePacket]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda mine=mine: mine.extend(taken(pages))) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [offset for mine in found for packet in mine for offset in offsets(packet)]
    assert sorted(everything) == [n * PAGE for n in range(128 * 50)]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], []),
        ([5], [(5, 6)]),
        ([1, 2, 3], [(1, 4)]),
        ([1, 3, 4, 9], [(1, 2), (3, 5), (9, 10)]),
        ([9, 2, 3], [(9, 10), (2, 4)]),
        ([4, 4], [(4, 5), (4, 5)]),
    ],
)
def test_runs(numbers: list[int], expected: list[tuple[int, int]]) -> None:
    assert runs_of(np.array(numbers, dtype=np.intp)) == expected


def test_memory_that_is_no_whole_number_of_pages_is_refused() -> None:
    class Odd(Paper):
        @property
        def blocks(self) -> list[MemoryBlock]:
            return [MemoryBlock("odd", memoryview(bytearray(PAGE + 1)))]

    with pytest.raises(DeviceError, match="odd must be writable bytes, a whole number of pages of 4096"):
        Pages(Odd(1))


def test_a_log_that_is_too_short_is_refused() -> None:
    class ShortLog(Paper):
        def take_dirty(self, block: int) -> bytes:
            del block
            return b"\0"

    with pytest.raises(DeviceError, match="its log of block 0 has 1 bytes for 64 pages"):
        Pages(ShortLog(64)).look()
