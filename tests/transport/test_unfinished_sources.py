"""Strangers that begin as a source does, and stay: they cost a source no place, and a wait not its end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import Cancelled, MigpoolError, TimeLimitExceeded
from migpool.transport import accept
from migpool.transport import connections as rules
from migpool.transport.accept import BACKLOG, accept_all
from migpool.transport.address import Address
from migpool.transport.connections import Connections
from migpool.transport.listener import listen
from migpool.transport.sockets import prepare
from migpool.transport.strangers import Stranger, address_of
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.multifd import initial_packet
from migpool.wire.stream import header
from tests.support.pool_gates import until

LIMIT = 30.0
OURS = b"a number for one"
OTHERS = b"of another one.."
MAIN = header() + configuration(Configuration("m", uuid=OURS))
NAMELESS = header() + configuration(Configuration("m"))
SOURCE = (MAIN, initial_packet(0, OURS), initial_packet(1, OURS))
WHOLE_OTHERS = header() + configuration(Configuration("m", uuid=OTHERS))

BEGINNINGS = (
    *(b"Q", header(), NAMELESS, NAMELESS + b"garbage", NAMELESS[:-1], WHOLE_OTHERS, WHOLE_OTHERS[:-3]),
    *(initial_packet(number, uuid) for number in (0, 1, 2, 200) for uuid in (bytes(16), OTHERS)),
)


def whole(said: list[bytes]) -> bool:
    """Whether strangers are a source together: that is one, for who has no other proof."""
    connections = Connections(2)
    with contextlib.ExitStack() as stack:
        for first in said:
            take(connections, first, stack)
        return connections.complete


def take(connections: Connections, first: bytes, stack: contextlib.ExitStack, *, gone: bool = False) -> socket.socket:
    """Have a connection say something; how it looks here."""
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    if gone:
        theirs.close()
    with contextlib.suppress(Stranger):
        connections.add(ours, first)
    return ours


@given(st.data())
def test_a_source_is_taken_whatever_others_have_begun(data: st.DataObject) -> None:
    """Any number of them before, and as many between its own connections as there is room for beside a source."""
    before = data.draw(st.lists(st.sampled_from(BEGINNINGS), max_size=20), "before")
    between = data.draw(st.lists(st.tuples(st.sampled_from(BEGINNINGS), st.integers(1, 2)), max_size=3), "between")
    if whole([*before, *(first for first, _ in between)]):
        return
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patched:
        patched.setattr(rules, "MOST", 6)
        connections = Connections(2)
        for first in before:
            take(connections, first, stack, gone=data.draw(st.booleans()))
            assert len(connections.sockets) <= 6
        connections.drop_ended()
        ours = []
        for place, first in enumerate(SOURCE):
            for stranger, at in between:
                if at == place:
                    take(connections, stranger, stack)
            ours.append(take(connections, first, stack))
        assert connections.complete
        assert (connections.main_channel, *connections.channels) == tuple(ours)
        assert set(connections.sockets) == set(ours)
        assert all(sock.fileno() >= 0 for sock in ours)


class Named(socket.socket):
    """A connection from an address; from none, if it is gone."""

    def __init__(self, family: int, name: object) -> None:
        super().__init__()
        self.close()
        self._of, self._name = family, name

    @property
    def family(self) -> int:  # type: ignore[override]
        return self._of

    def getpeername(self) -> object:
        if self._name is None:
            raise OSError
        return self._name


class Port:
    """A listener on loopback, where anybody of the host can connect, each from an address of its own; two channels."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._listener, self._address = listen(Address(host="127.0.0.1", port=0), BACKLOG)
        stack.enter_context(self._listener)
        self.noted: list[str] = []
        self.told: list[str] = []
        self.connections = Connections(2, noted=self.noted.append)
        self._failed: Exception | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._accept)
        self._limit = LIMIT

    def say(self, first: bytes, host: str = "127.0.0.1") -> socket.socket:
        """Connect from an address, and say something."""
        sock = self._stack.enter_context(socket.socket(socket.AF_INET))
        sock.settimeout(LIMIT)
        sock.bind((host, 0))
        sock.connect(self._address.name)
        sock.sendall(first)
        return sock

    def start(self, limit: float = LIMIT) -> None:
        """Begin to accept; ``limit`` is that of those who have begun."""
        self._limit = limit
        self._stack.callback(self._stop)
        self._thread.start()

    def be_patient(self) -> None:
        """Whoever begins from now on has all the time that a busy machine may take."""
        self.connections.limit = LIMIT

    def until_noted(self, words: str) -> None:
        """Wait for a line."""
        deadline = time.monotonic() + LIMIT
        while not any(words in line for line in self.noted):
            assert time.monotonic() < deadline, (words, self.noted)
            time.sleep(0.01)

    def found(self) -> Connections:
        """What came of it."""
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()
        if self._failed is not None:
            raise self._failed
        assert self.connections.complete
        return self.connections

    def _accept(self) -> None:
        try:
            accept_all(
                self._listener,
                self.connections,
                first_limit=LIMIT,
                limit=self._limit,
                prepare=partial(prepare, limit=LIMIT, tick=0.05),
                check=self._check,
                stack=self._stack,
                silence=LIMIT,
                refuse=lambda _main, _said, error: self.told.append(str(error)),
            )
        except Exception as error:  # noqa: BLE001 -- raised again where it is waited for
            self._failed = error

    def _check(self) -> None:
        if self._stopped:
            raise Cancelled("enough")

    def _stop(self) -> None:
        self._stopped = True
        self._thread.join(LIMIT)


@pytest.fixture
def port() -> Iterator[Port]:
    with contextlib.ExitStack() as stack:
        yield Port(stack)


STAYING = [
    pytest.param([NAMELESS], id="a main channel"),
    pytest.param([WHOLE_OTHERS, initial_packet(0, OTHERS)], id="a main channel and one of two"),
    pytest.param([NAMELESS, initial_packet(1)], id="the same without a number"),
    pytest.param([WHOLE_OTHERS, initial_packet(7, OTHERS)], id="a main channel and one too many"),
    pytest.param([initial_packet(0, OTHERS), initial_packet(1, OTHERS)], id="all channels, no main channel"),
    pytest.param([initial_packet(200, OTHERS)], id="a channel of many"),
]


@pytest.mark.parametrize("said", STAYING)
def test_who_begins_and_stays_is_let_go_and_the_wait_goes_on(port: Port, said: list[bytes]) -> None:
    strangers = [port.say(first) for first in said]
    port.start(limit=0.1)
    port.until_noted("a connection that begins as a source's does was closed")
    port.be_patient()
    for sock in strangers:
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    for first in SOURCE:
        port.say(first)
    assert port.found().said == MAIN
    assert len(port.told) == any(first.startswith(header()) for first in said)


@pytest.mark.parametrize("said", [STAYING[1].values[0], STAYING[3].values[0]])
def test_who_goes_when_it_is_told_is_a_source_that_cannot_be_taken(
    port: Port, said: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migpool.transport.unfinished_sources.GONE", LIMIT)  # it goes as soon as it can
    main, *channels = [port.say(first) for first in said]
    port.start(limit=0.1)
    until(lambda: bool(port.told), LIMIT)
    for sock in (*channels, main):
        sock.close()
    with pytest.raises(MigpoolError, match="both ends need the same number of channels") as raised:
        port.found()
    assert port.told == [str(raised.value)]


def test_who_was_told_and_then_had_to_give_way_is_forgotten(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MOST", 3)
    port.say(WHOLE_OTHERS)
    port.start(limit=0.1)
    until(lambda: bool(port.told), LIMIT)
    port.be_patient()
    for number in range(3):
        port.say(initial_packet(number, bytes([number]) * 16))
    for first in SOURCE:
        port.say(first)
    assert port.found().said == MAIN


def test_one_that_was_cancelled_on_the_way_is_let_go(port: Port) -> None:
    for first in (WHOLE_OTHERS, initial_packet(0, OTHERS)):
        port.say(first).close()
    port.start()
    port.until_noted("it failed or was cancelled there")
    for first in SOURCE:
        port.say(first)
    assert port.found().said == MAIN


class Clock:
    """The system's, which can be set ahead."""

    ahead = 0.0

    def monotonic(self) -> float:
        """In seconds."""
        return time.monotonic() + self.ahead


def test_a_wait_in_which_only_strangers_came_says_so_at_its_end(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(accept, "time", clock)
    port.say(WHOLE_OTHERS)
    port.start(limit=0.1)
    port.until_noted("was closed: the source opened 0 of 2 multifd channels")
    clock.ahead = 2 * LIMIT
    with pytest.raises(TimeLimitExceeded, match=r"no source has come within 30 s; the last one to begin: the source"):
        port.found()


def test_a_main_channel_without_a_number_takes_no_channels_from_elsewhere(port: Port) -> None:
    """A stranger's is there first; the source's own comes late, behind its channels."""
    port.start()
    port.say(NAMELESS, "127.0.0.2")
    for first in (*SOURCE[1:], SOURCE[0]):
        port.say(first)
    assert port.found().said == MAIN


def test_channels_from_elsewhere_are_taken_in_the_end(port: Port) -> None:
    """Who has no number, and an address for each connection, as behind some gateways."""
    for number, first in enumerate((NAMELESS, initial_packet(0), initial_packet(1))):
        port.say(first, f"127.0.0.{2 + number}")
    port.start(limit=1.0)
    assert port.found().said == NAMELESS


@pytest.mark.parametrize("first", [b"Q", initial_packet(0, OTHERS), WHOLE_OTHERS])
def test_an_address_with_many_connections_takes_no_place_from_another(
    port: Port, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """However many come after the source has begun."""
    for module in (rules, accept):
        monkeypatch.setattr(module, "MOST", 8)
    port.start()
    port.say(MAIN)
    strangers = [port.say(first, "127.0.0.2") for _ in range(40)]
    for sock in strangers[:20]:
        with contextlib.suppress(ConnectionResetError):
            sock.recv(1)
    for first in SOURCE[1:]:
        port.say(first)
    assert port.found().said == MAIN


@pytest.mark.parametrize(
    ("family", "name", "address"),
    [
        (socket.AF_INET, ("192.0.2.1", 9), "192.0.2.1"),
        (socket.AF_INET6, ("2001:db8:1:2:3::4", 9, 0, 0), "2001:db8:1:2::/64"),
        (socket.AF_INET6, ("fe80::1%eth0", 9, 0, 2), "fe80::/64"),
        (socket.AF_INET6, ("::ffff:192.0.2.1", 9, 0, 0), "192.0.2.1"),
        (socket.AF_UNIX, "", ""),
        (socket.AF_INET, None, ""),
    ],
)
def test_addresses_are_told_apart_by_host_or_network(family: int, name: object, address: str) -> None:
    assert address_of(Named(family, name)) == address
