"""What order costs: a device's window, and the header of a chunk on the wire.

Ratios are to what the standard library has for the same work: a heap for chunks that come in any order, the bare
``struct`` for a header. ``pytest benchmarks/test_reassembly.py -s`` prints them.
"""

from __future__ import annotations

import heapq
import random
import struct
from collections.abc import Callable, Iterator, Sequence

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.paired import Table, paired
from migpool.flow.window import Reassembly, Windows
from migpool.wire.devicestate import HEADER_SIZE, DeviceStateHeader, DeviceStateParser

ROUNDS = 11
CHUNKS = 4096
WINDOW = 32
NAME = "0000:01:00.0/vfio"
CHUNK = 1 << 20


def in_order() -> list[int]:
    return list(range(CHUNKS))


def backwards() -> list[int]:
    """The worst order that a window allows: each window's last chunk first."""
    return [index for begin in range(0, CHUNKS, WINDOW) for index in reversed(range(begin, begin + WINDOW))]


def shuffled() -> list[int]:
    rng = random.Random(1)
    found = []
    for begin in range(0, CHUNKS, WINDOW):
        window = list(range(begin, begin + WINDOW))
        rng.shuffle(window)
        found += window
    return found


ORDERS: dict[str, Callable[[], list[int]]] = {"in order": in_order, "backwards": backwards, "shuffled": shuffled}


def by_window(order: Sequence[int]) -> int:
    """As a destination does it: what came is put, and what is next is taken; with the credit's bookkeeping."""
    inbox: Reassembly[int] = Reassembly()
    windows = Windows(1, WINDOW * 2)
    taken = 0
    for index in order:
        windows.received(0)
        inbox.put(index, index, index == CHUNKS - 1, CHUNKS)
        while inbox.available:
            inbox.take()
            taken += 1
            windows.loaded(0)
    return taken


def by_heap(order: Sequence[int]) -> int:
    """The obvious way: a heap, without a bound, a check or a credit."""
    heap: list[tuple[int, int]] = []
    following = taken = 0
    for index in order:
        heapq.heappush(heap, (index, index))
        while heap and heap[0][0] == following:
            heapq.heappop(heap)
            following += 1
            taken += 1
    return taken


def packed() -> int:
    """The header of each chunk, checked as it is written."""
    header = DeviceStateHeader(NAME)
    for index in range(CHUNKS):
        header.pack(index, CHUNK)
    return len(header.buffer)


def packed_bare() -> int:
    """The same bytes by ``struct``, all of them each time."""
    whole = struct.Struct(">III256sIIIII")
    buffer = bytearray(HEADER_SIZE)
    name = NAME.encode()
    for index in range(CHUNKS):
        whole.pack_into(buffer, 0, 0x11223344, 1, 0x40, name, 0, CHUNK + 12, 0, index, 0)
    return len(buffer)


def parsed() -> int:
    """As a destination reads it: every field checked, the device found."""
    header = DeviceStateHeader(NAME)
    header.pack(7, CHUNK)
    parser = DeviceStateParser({(NAME, 0): "device"}, CHUNK)
    total = 0
    for _ in range(CHUNKS):
        total += parser.parse(header.buffer)[2]
    return total


def parsed_bare() -> int:
    """The same bytes taken apart by ``struct``, and nothing checked."""
    header = DeviceStateHeader(NAME)
    header.pack(7, CHUNK)
    whole = struct.Struct(">III256sIIIII")
    total = 0
    for _ in range(CHUNKS):
        total += whole.unpack_from(header.buffer)[5] - 12
    return total


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    made = Table("µs a chunk, medians; ratio: theirs over ours", "theirs", "ours")
    yield made
    print(f"\n{made}")  # noqa: T201


@pytest.mark.parametrize("order", ORDERS)
def test_the_window_against_a_heap(order: str, table: Table) -> None:
    indexes = ORDERS[order]()
    assert by_window(indexes) == by_heap(indexes) == CHUNKS
    table.add(
        f"window against a heap, {order}",
        paired(lambda: by_window(indexes), lambda: by_heap(indexes), ROUNDS),
        1e-6 * CHUNKS,
    )


def test_the_header_against_bare_struct(table: Table) -> None:
    assert packed() == packed_bare() == HEADER_SIZE
    assert parsed() == parsed_bare() == CHUNKS * CHUNK
    table.add("header written, against struct", paired(packed, packed_bare, ROUNDS), 1e-6 * CHUNKS)
    table.add("header read and checked, against struct", paired(parsed, parsed_bare, ROUNDS), 1e-6 * CHUNKS)


@pytest.mark.benchmark(min_rounds=5, max_time=0.3)
@pytest.mark.parametrize("order", ORDERS)
def test_cost_of_order(benchmark: BenchmarkFixture, order: str) -> None:
    assert benchmark(by_window, ORDERS[order]()) == CHUNKS


@pytest.mark.benchmark(min_rounds=5, max_time=0.3)
@pytest.mark.parametrize("work", [packed, parsed], ids=lambda work: str(work.__name__))
def test_cost_of_a_header(benchmark: BenchmarkFixture, work: Callable[[], int]) -> None:
    assert benchmark(work) > 0
