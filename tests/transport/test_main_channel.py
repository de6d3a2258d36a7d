"""The main channel's last item: behind whole ones alone, once, and without a wait for a peer that takes nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence

import pytest

from migpool.errors import PeerGone
from migpool.transport.main_channel import MainChannel
from migpool.transport.sockets import send_last
from migpool.wire.unread import Buffer


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_it_comes_once_behind_all_others() -> None:
    written: list[Buffer] = []
    channel = MainChannel(written.extend, written.append)
    channel.write(b"item")
    channel.write_last(b"last")
    channel.write(b"late")
    channel.write_last(b"again")
    assert written == [b"item", b"last", b"late"]


def test_nothing_comes_behind_half_an_item() -> None:
    written: list[Buffer] = []

    def break_off(buffers: Sequence[Buffer]) -> None:
        written.append(bytes(buffers[0])[:2])
        raise PeerGone("gone")

    channel = MainChannel(break_off, written.append)
    with pytest.raises(PeerGone):
        channel.write(b"item")
    channel.write_last(b"last")
    assert written == [b"it"]


def test_nothing_comes_into_an_item_that_is_being_written() -> None:
    begun, go_on = threading.Event(), threading.Event()
    written: list[Buffer] = []

    def write_slowly(_buffers: Sequence[Buffer]) -> None:
        begun.set()
        assert go_on.wait(20)

    channel = MainChannel(write_slowly, written.append)
    writer = threading.Thread(target=channel.write, args=[b"item"])
    writer.start()
    assert begun.wait(20)
    channel.write_last(b"last")
    go_on.set()
    writer.join(20)
    assert written == []


def test_a_peer_that_takes_nothing_does_not_hold_it_up(connection: tuple[socket.socket, socket.socket]) -> None:
    one, _ = connection
    one.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while one.send(bytes(1 << 16)):
            continue
    one.setblocking(True)
    send_last(one, b"last")


def test_a_peer_that_is_gone_does_not_either(connection: tuple[socket.socket, socket.socket]) -> None:
    one, other = connection
    other.close()
    send_last(one, b"last")
