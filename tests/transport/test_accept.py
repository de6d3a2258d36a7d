"""Who connects to a destination: the source, and others; in any order, and whatever they say."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migpool.errors import PeerError, PeerGone, ProtocolError, TimeLimitExceeded
from migpool.transport.accept import Arrivals, Connections, accept_all
from migpool.transport.address import Address
from migpool.transport.listener import listen
from migpool.transport.sockets import connect, prepare
from migpool.wire.multifd import initial_packet
from migpool.wire.stream import header

LIMIT = 20.0


def never() -> None:
    return


class Door:
    """Accepts a source with two channels; what is noted of others is in ``noted``."""

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self._address = Address(path=str(path))
        self._stack = stack
        self._listener = stack.enter_context(listen(self._address, 8)[0])
        self.noted: list[str] = []

    def say(self, first: bytes, *, close: bool = False, reset: bool = False) -> socket.socket:
        """Connect, and say something."""
        sock = self._stack.enter_context(connect(self._address, LIMIT, LIMIT))
        if first:
            sock.sendall(first)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if close or reset:
            sock.close()
        return sock

    def accept(self, limit: float = LIMIT) -> tuple[Connections, Arrivals]:
        """Accept them."""
        connections = Connections(2, noted=self.noted.append)
        arrivals = accept_all(
            self._listener,
            connections,
            first_limit=limit,
            limit=limit,
            prepare=lambda sock: prepare(sock, limit=limit, tick=0.05),
            check=never,
            stack=self._stack,
        )
        return connections, arrivals


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with contextlib.ExitStack() as stack:
        yield Door(tmp_path / "door", stack)


SOURCE = (initial_packet(1), header(), initial_packet(0))


def is_whole(found: Connections) -> bool:
    """Whether these are the source's own connections: each goes on where what it said ended."""
    return found.complete and found.main_channel.recv(4) == header()[4:]


def test_connections_are_told_apart_by_their_first_bytes(door: Door) -> None:
    for first in SOURCE:
        door.say(first)
    found, _ = door.accept()
    assert is_whole(found)
    assert door.noted == []


STRANGERS = [
    pytest.param({"first": b"", "close": True}, "without a byte", id="a health check"),
    pytest.param({"first": b"", "reset": True}, "without a byte", id="a port scan"),
    pytest.param({"first": b""}, None, id="one that says nothing"),
    pytest.param({"first": b"GET / HTTP/1.1\r\n\r\n"}, "474554", id="a browser"),
    pytest.param({"first": bytes.fromhex("16030100fa010000f6")}, "TLS (16 03)", id="TLS"),
]


@pytest.mark.parametrize(("stranger", "noted"), STRANGERS)
@pytest.mark.parametrize("place", range(4))
def test_a_stranger_is_noted_and_the_source_taken(
    door: Door, stranger: dict[str, Any], noted: str | None, place: int
) -> None:
    """Before, between and after the source's own connections."""
    for number, first in enumerate(SOURCE):
        if number == place:
            door.say(**stranger)
        door.say(first)
    found, arrivals = door.accept()
    if place == len(SOURCE):
        door.say(**stranger)
    arrivals.take_pending()
    assert is_whole(found)
    assert len(door.noted) == (noted is not None)
    assert all(noted is not None and noted in line for line in door.noted)


@pytest.mark.parametrize("taken", [SOURCE[0], SOURCE[2], header()[:4]], ids=["channel 1", "channel 0", "main"])
def test_who_has_taken_a_place_beforehand_gives_way_to_the_source(door: Door, taken: bytes) -> None:
    door.say(taken)
    for first in sorted(SOURCE, key=lambda first: first != taken):  # the last one to come makes the source whole
        door.say(first)
    found, _ = door.accept()
    assert found.complete
    assert ["the first one is closed" in line for line in door.noted] == [True]


def test_half_a_word_and_the_end_is_a_source_that_went_away(door: Door) -> None:
    door.say(b"QE", close=True)
    with pytest.raises(PeerGone, match="before it said what it is"):
        door.accept()


def test_half_a_word_and_the_end_beside_a_migration_is_noted(door: Door) -> None:
    for first in SOURCE:
        door.say(first)
    found, arrivals = door.accept()
    door.say(b"QE", close=True)
    arrivals.take_pending()
    assert is_whole(found)
    assert len(door.noted) == 1


@pytest.mark.parametrize("later", SOURCE)
def test_a_second_source_leaves_the_migration_under_way_alone(door: Door, later: bytes) -> None:
    for first in SOURCE:
        door.say(first)
    found, arrivals = door.accept()
    other = door.say(later)
    arrivals.take_pending()
    assert is_whole(found)
    assert ["which the migration under way has" in line for line in door.noted] == [True]
    with contextlib.suppress(ConnectionResetError):
        assert other.recv(1) == b""


@pytest.mark.parametrize("late", [False, True])
def test_more_channels_than_there_must_be_are_counted(door: Door, late: bool) -> None:
    for number in range(2 if late else 5):
        door.say(initial_packet(number))
    door.say(header())

    def all_come() -> None:
        _, arrivals = door.accept()
        for number in range(2, 5):
            door.say(initial_packet(number))
        arrivals.take_pending()

    with pytest.raises(PeerError, match="the destination took 2 of 5 multifd channels: both ends need the same number"):
        all_come()


@pytest.mark.parametrize(
    ("firsts", "words"),
    [
        pytest.param([], "no source has come within 0.2 s", id="nobody"),
        pytest.param([b""], "no source has come within 0.2 s", id="one that says nothing"),
        pytest.param([header(), initial_packet(0)], "opened 1 of 2 multifd channels and the main channel", id="some"),
        pytest.param(
            [b"QE"],
            "and 1 connection that did not say what for",
            id="half a word",
        ),
    ],
)
def test_what_does_not_come_is_not_waited_for_without_end(door: Door, firsts: list[bytes], words: str) -> None:
    for first in firsts:
        door.say(first)
    with pytest.raises(TimeLimitExceeded, match=words):
        door.accept(0.2)


def test_two_uuids_are_two_machines(door: Door) -> None:
    door.say(initial_packet(0))
    door.say(initial_packet(1, bytes(range(16))))
    with pytest.raises(ProtocolError, match="the same uuid"):
        door.accept()
