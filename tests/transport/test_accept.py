"""Who connects to a destination: the source, and others; in any order, and whatever they say."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migpool.errors import Cancelled, PeerError, TimeLimitExceeded
from migpool.transport.accept import BACKLOG, HESITATION, TICK, Arrivals, accept_all
from migpool.transport.address import Address
from migpool.transport.connections import Connections
from migpool.transport.listener import listen
from migpool.transport.sockets import Idle, connect, prepare
from migpool.transport.strangers import MOST, Stranger
from migpool.wire.configuration import Configuration, configuration
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
        self._listener = stack.enter_context(listen(self._address, BACKLOG)[0])
        self.noted: list[str] = []

    def say(self, first: bytes, *, close: bool = False, reset: bool = False) -> socket.socket:
        """Connect, and say something."""
        sock = self._stack.enter_context(connect(self._address, time.monotonic() + LIMIT, LIMIT))
        if first:
            sock.sendall(first)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if close or reset:
            sock.close()
        return sock

    def accept(self, limit: float = LIMIT, silence: float = LIMIT) -> tuple[Connections, Arrivals]:
        """Accept them."""
        connections = Connections(2, noted=self.noted.append)
        return connections, self.take(connections, first_limit=limit, limit=limit, silence=silence)

    def take(
        self,
        connections: Connections,
        *,
        first_limit: float = LIMIT,
        limit: float = LIMIT,
        silence: float = LIMIT,
        check: Idle = never,
    ) -> Arrivals:
        """Accept some. Whoever waits for no limit has them all: a busy machine is no reason to close a connection."""
        return accept_all(
            self._listener,
            connections,
            first_limit=first_limit,
            limit=limit,
            prepare=lambda sock: prepare(sock, limit=LIMIT, tick=0.05),
            check=check,
            stack=self._stack,
            silence=silence,
        )


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with contextlib.ExitStack() as stack:
        yield Door(tmp_path / "door", stack)


MAIN = header() + configuration(Configuration("m"))
SOURCE = (initial_packet(1), MAIN, initial_packet(0))


def is_whole(found: Connections) -> bool:
    """Whether these are the source's own connections: each goes on where what it said ended."""
    return found.complete and found.said == MAIN


def test_connections_are_told_apart_by_their_first_bytes(door: Door) -> None:
    for first in SOURCE:
        door.say(first)
    found, _ = door.accept()
    assert is_whole(found)
    assert door.noted == []


def test_who_has_spoken_is_heard_however_late_this_end_is(door: Door) -> None:
    """All that a source said came while nobody here had a processor."""
    for first in SOURCE:
        door.say(first)
    found, _ = door.accept(silence=-1.0)
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


@pytest.mark.parametrize("taken", [SOURCE[0], SOURCE[2], SOURCE[1]], ids=["channel 1", "channel 0", "main"])
def test_who_has_taken_a_place_beforehand_gives_way_to_the_source(door: Door, taken: bytes) -> None:
    door.say(taken)
    for first in sorted(SOURCE, key=lambda first: first != taken):  # the last one to come makes the source whole
        door.say(first)
    found, _ = door.accept()
    assert found.complete
    assert len(door.noted) == 1


@pytest.mark.parametrize("taken", [b"QE", header()[:7], initial_packet(0), initial_packet(1)[:30]])
def test_who_ends_before_a_main_channel_has_come_is_noted_and_the_source_taken(door: Door, taken: bytes) -> None:
    door.say(taken, close=True)
    for first in SOURCE:
        door.say(first)
    found, arrivals = door.accept()
    arrivals.take_pending()
    assert is_whole(found)
    assert len(door.noted) == 1


@pytest.mark.parametrize("main", [b"", header()], ids=["no main channel", "a header"])
def test_a_channel_that_has_said_all_before_the_main_channel_has_is_the_source_s(door: Door, main: bytes) -> None:
    """So does a source that is faster than its destination, and waits for no answer."""
    channels = [initial_packet(number) + b"pages" for number in range(2)]
    early = door.say(main)
    for first in channels[: 1 if main else 2]:
        door.say(first, close=True)

    def speak() -> None:
        early.sendall(b"the rest" if main else MAIN)
        for first in channels[1:] if main else ():
            door.say(first, close=True)

    late = threading.Timer(2 * TICK, speak)
    late.start()
    found, _ = door.accept()
    late.join()
    assert found.complete
    assert [sock.recv(64) for sock in found.channels] == [b"pages", b"pages"]
    assert not door.noted


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
    door.say(MAIN)

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
        pytest.param(
            [MAIN, initial_packet(0)],
            "opened 1 of 2 multifd channels and the main channel",
            id="some",
        ),
        pytest.param(
            [b"QE"],
            "no source has come within 0.2 s",
            id="half a word",
        ),
    ],
)
def test_what_does_not_come_is_not_waited_for_without_end(door: Door, firsts: list[bytes], words: str) -> None:
    for first in firsts:
        door.say(first)
    with pytest.raises(TimeLimitExceeded, match=words):
        door.accept(0.2)


OURS = bytes(range(16))
OTHERS = bytes(range(1, 17))


def main_of(uuid: bytes) -> bytes:
    return header() + configuration(Configuration("m", uuid=uuid))


def source_of(uuid: bytes) -> list[bytes]:
    return [main_of(uuid), initial_packet(0, uuid), initial_packet(1, uuid)]


def test_channels_of_two_migrations_are_told_apart() -> None:
    """Every part of another source's, in every order: the one that is whole is taken, and nothing of the other."""
    for order in itertools.permutations([*source_of(OURS), *source_of(OTHERS)[:2]]):
        with contextlib.ExitStack() as stack:
            connections = Connections(2)
            for first in order:
                ours, theirs = socket.socketpair()
                stack.enter_context(ours)
                stack.enter_context(theirs)
                with contextlib.suppress(Stranger):
                    connections.add(ours, first)
            assert connections.complete
            assert (connections.uuid, connections.said) == (OURS, main_of(OURS))
            assert len({*connections.channels, connections.main_channel}) == 3
            assert all(sock.fileno() >= 0 for sock in (*connections.channels, connections.main_channel))


@pytest.mark.parametrize("alone", [source_of(OTHERS)[1:], [header()], [header()[:7], header()]])
def test_what_no_other_connection_follows_is_dropped_and_the_source_is_waited_for(
    door: Door, alone: list[bytes]
) -> None:
    socks = [door.say(first) for first in alone]

    def come_afterwards() -> None:
        for sock in socks:
            sock.settimeout(LIMIT)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        for first in source_of(OURS):
            door.say(first)

    sources = threading.Thread(target=come_afterwards)
    sources.start()
    connections = Connections(2, noted=door.noted.append)
    door.take(connections, limit=1.0)
    sources.join(LIMIT)
    assert (connections.uuid, connections.said) == (OURS, main_of(OURS))


@pytest.mark.parametrize("alone", [main_of(OTHERS), MAIN])
def test_a_whole_configuration_whose_connection_ends_is_no_source_s(door: Door, alone: bytes) -> None:
    connections = Connections(2, noted=door.noted.append)
    taking = threading.Thread(target=door.take, args=(connections,), kwargs={"first_limit": LIMIT, "limit": LIMIT})
    taking.start()
    door.say(alone, close=True)
    deadline = time.monotonic() + LIMIT
    while not door.noted:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert door.noted == ["a main channel was closed that ended before any multifd channel of its came: ignored"]
    for first in source_of(OURS):
        door.say(first)
    taking.join(LIMIT)
    assert (connections.uuid, connections.said) == (OURS, main_of(OURS))


def test_a_flood_is_closed_and_noted_in_few_lines_while_the_source_is_taken(door: Door) -> None:
    """More connections than may be open: silent ones, half words, garbage, ends; and then the source."""
    kinds: list[dict[str, Any]] = [{"first": b""}, {"first": b"Q"}, {"first": b"GET /"}, {"first": b"", "close": True}]
    found: list[Connections] = []
    accepting = threading.Thread(target=lambda: found.append(door.accept()[0]))
    accepting.start()
    strangers = [door.say(**kinds[number % len(kinds)]) for number in range(2 * MOST)]
    for first in source_of(OURS):
        door.say(first)
    accepting.join(LIMIT)
    assert found[0].said == main_of(OURS)
    assert len(door.noted) < len(strangers) / 4


@pytest.mark.parametrize(
    ("first", "seconds"),
    [(b"", 0.1), *((some, HESITATION) for some in (b"Q", header(), MAIN[:-1], initial_packet(0)[:63]))],
)
def test_who_does_not_say_in_time_what_it_is_is_closed(door: Door, first: bytes, seconds: float) -> None:
    stranger = door.say(first)

    def until_noted() -> None:
        if door.noted:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        door.take(Connections(2, noted=door.noted.append), silence=0.1, check=until_noted)
    stranger.settimeout(LIMIT)
    with contextlib.suppress(ConnectionResetError):
        assert stranger.recv(1) == b""
    assert [f"within {seconds:g} s: closed" in line for line in door.noted] == [True]
