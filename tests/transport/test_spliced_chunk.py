"""A payload that goes from a channel into a descriptor past the buffers, or into its buffer after all."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from migpool.core.buffers import BufferPool, Chunk
from migpool.core.machine import Slot
from migpool.device import Device
from migpool.errors import Cancelled, PeerError
from migpool.transport.sockets import prepare
from migpool.transport.splice import SplicedChunk

LIMIT = 20.0
SIZE = 1 << 20
STATE = os.urandom(SIZE)


class Named(Device):
    idstr = "device"

    def save_config(self) -> bytes:
        return b""

    def load_config(self, data: bytes) -> None:
        del data


SLOT = Slot(0, Named())


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    prepare(far, limit=LIMIT, tick=0.01)
    with near, far:
        yield near, far


@pytest.fixture
def pool() -> Iterator[BufferPool]:
    pool = BufferPool(SIZE, 2)
    yield pool
    pool.close()


@pytest.fixture
def sink() -> Iterator[int]:
    fd = os.memfd_create("sink")
    yield fd
    os.close(fd)


def never(words: str) -> None:
    raise AssertionError(words)


def patient(words: str) -> None:
    del words


def next_in(pool: BufferPool, index: int = 7, size: int = SIZE) -> Chunk:
    chunk = pool.take()
    chunk.index, chunk.length = index, size
    return chunk


Offered = tuple[SplicedChunk, Chunk]


@pytest.fixture
def offered(pair: tuple[socket.socket, socket.socket], pool: BufferPool, sink: int) -> Iterator[Offered]:
    """A payload that may be moved into ``sink``, with another packet behind it."""
    near, far = pair
    sender = threading.Thread(target=near.sendall, args=(STATE + b"next",))
    sender.start()
    transit = SplicedChunk(far, SIZE, patient)
    chunk = next_in(pool)
    transit.offer(SLOT.name, chunk, sink)
    yield transit, chunk
    sender.join(LIMIT)
    transit.close()


def test_what_is_moved_goes_into_the_descriptor_and_the_channel_stands_behind_it(
    offered: Offered, pair: tuple[socket.socket, socket.socket], sink: int
) -> None:
    transit, chunk = offered
    assert transit.move(chunk)
    transit.settle()
    assert os.pread(sink, SIZE + 1, 0) == STATE
    assert pair[1].recv(10) == b"next"
    assert not transit.broken


def test_what_nobody_moves_is_in_the_buffer_and_can_be_moved_no_more(
    offered: Offered, pair: tuple[socket.socket, socket.socket], sink: int
) -> None:
    transit, chunk = offered
    transit.settle()
    assert not transit.move(chunk)
    assert chunk.payload == STATE
    assert os.fstat(sink).st_size == 0
    assert pair[1].recv(10) == b"next"


def test_another_chunk_is_not_what_was_offered(
    pair: tuple[socket.socket, socket.socket], pool: BufferPool, sink: int
) -> None:
    transit = SplicedChunk(pair[1], SIZE, never)
    transit.offer(SLOT.name, next_in(pool), sink)
    assert not transit.move(next_in(pool, 8))
    transit.close()


def test_the_channel_waits_for_who_moves(
    pair: tuple[socket.socket, socket.socket], pool: BufferPool, sink: int
) -> None:
    near, far = pair
    moving = threading.Event()
    settled = threading.Event()

    def tick(words: str) -> None:
        assert words == "device: the rest of chunk 7 has not come"
        moving.set()

    transit = SplicedChunk(far, SIZE, tick)
    chunk = next_in(pool, size=100)
    transit.offer(SLOT.name, chunk, sink)
    mover = threading.Thread(target=transit.move, args=(chunk,))
    mover.start()
    assert moving.wait(LIMIT)

    def settle() -> None:
        transit.settle()
        settled.set()

    settler = threading.Thread(target=settle)
    settler.start()
    assert not settled.wait(0.05), "the payload is still under way"
    near.sendall(bytes(100))
    for thread in (mover, settler):
        thread.join(LIMIT)
    transit.close()
    assert settled.is_set()
    assert os.fstat(sink).st_size == 100


@pytest.mark.parametrize("moved", [True, False])
def test_a_source_that_ends_in_the_middle_is_an_error_that_names_the_chunk(
    pair: tuple[socket.socket, socket.socket], pool: BufferPool, sink: int, moved: bool
) -> None:
    near, far = pair
    transit = SplicedChunk(far, SIZE, patient)
    chunk = next_in(pool)
    transit.offer(SLOT.name, chunk, sink)
    near.sendall(b"only this")
    near.close()
    with pytest.raises(PeerError, match="device, chunk 7: the source closed the channel in the middle of it"):
        transit.move(chunk) if moved else transit.settle()
    assert transit.broken == moved
    transit.close()


def test_a_tick_ends_the_wait_for_the_source(
    pair: tuple[socket.socket, socket.socket], pool: BufferPool, sink: int
) -> None:
    def stop(words: str) -> None:
        raise Cancelled(words)

    transit = SplicedChunk(pair[1], SIZE, stop)
    chunk = next_in(pool)
    transit.offer(SLOT.name, chunk, sink)
    with pytest.raises(Cancelled, match="the rest of chunk 7 has not come"):
        transit.move(chunk)
    assert transit.broken
    transit.settle()  # and waits for nothing more
    transit.close()


def test_what_the_device_refuses_leaves_the_channel_broken(
    pair: tuple[socket.socket, socket.socket], pool: BufferPool
) -> None:
    near, far = pair
    transit = SplicedChunk(far, SIZE, patient)
    near.sendall(bytes(100))
    reader, writer = os.pipe()
    chunk = next_in(pool, size=100)
    transit.offer(SLOT.name, chunk, reader)
    with pytest.raises(OSError, match="Bad file descriptor"):
        transit.move(chunk)
    assert transit.broken
    transit.close()
    os.close(reader)
    os.close(writer)
