"""Strangers at a listener with TLS: each is closed in its time and noted, and the source behind them is taken."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from migpool.errors import PeerGone
from migpool.transport import accept
from migpool.transport.accept import BACKLOG, HESITATION, accept_all
from migpool.transport.address import Address
from migpool.transport.connections import Connections
from migpool.transport.credentials import ENDS, Credentials
from migpool.transport.listener import listen
from migpool.transport.sockets import connect, prepare
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.multifd import initial_packet
from migpool.wire.stream import header
from tests.support.certificates import Certificates

LIMIT = 20.0
MAIN = header() + configuration(Configuration("m"))
CLIENT_HELLO = bytes.fromhex("1603010200")


def never() -> None:
    """Called at every tick; nobody cancels here."""


class Door:
    """A listener with TLS and two channels, whose connections are accepted in a thread."""

    def __init__(
        self, path: Path, certificates: Certificates, stack: contextlib.ExitStack, silence: float = HESITATION
    ) -> None:
        self._address = Address(path=str(path))
        self._certificates = certificates
        self._stack = stack
        self._silence = silence
        self._listener = stack.enter_context(listen(self._address, BACKLOG)[0])
        self.noted: list[str] = []
        self.found = Connections(2, noted=self.noted.append)
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        accept_all(
            self._listener,
            self.found,
            first_limit=LIMIT,
            limit=LIMIT,
            prepare=lambda sock: prepare(sock, limit=LIMIT, tick=0.05),
            check=never,
            stack=self._stack,
            silence=self._silence,
            credentials=Credentials(str(self._certificates.good), "server"),
        )

    def plain(self, first: bytes) -> socket.socket:
        """Connect, and say something in clear."""
        sock = self._stack.enter_context(connect(self._address, time.monotonic() + LIMIT, LIMIT))
        sock.sendall(first)
        return sock

    def proven(self, first: bytes) -> socket.socket:
        """Connect, prove oneself, and say something."""
        ours = Credentials(str(self._certificates.good), "client")
        plain = connect(self._address, time.monotonic() + LIMIT, LIMIT)
        sock = self._stack.enter_context(ours.connected(plain, self._address, time.monotonic() + LIMIT, LIMIT, never))
        if first:
            sock.sendmsg([first])
        return sock

    def wait(self) -> None:
        """Wait until nobody is listened to any more."""
        self._thread.join(LIMIT)


@pytest.fixture
def door(tmp_path: Path, certificates: Certificates) -> Iterator[Door]:
    with contextlib.ExitStack() as stack:
        made = Door(tmp_path / "s", certificates, stack)
        yield made
        made.wait()


def is_closed(sock: socket.socket) -> bool:
    """Whether the other end closes a connection, be it in the midst."""
    sock.settimeout(LIMIT)
    try:
        while sock.recv(1 << 16):
            pass
    except (ConnectionResetError, PeerGone):
        pass
    return True


@pytest.mark.parametrize(
    ("proven", "first", "says"),
    [
        (False, b"", "a connection said nothing within 1 s: closed"),
        (False, CLIENT_HELLO, "a connection did not end its TLS handshake within 0.5 s: closed"),
        (False, header(), "does not use TLS"),
        (True, b"", "a connection said nothing within 1 s: closed"),
        (True, b"QEV", "a connection said 514556 and no more within 1 s: closed"),
        (True, b"GET /", "is no migration's"),
    ],
)
def test_a_stranger_is_closed_and_noted_and_the_source_taken(
    door: Door, monkeypatch: pytest.MonkeyPatch, proven: bool, first: bytes, says: str
) -> None:
    monkeypatch.setattr(accept, "HANDSHAKE", 0.5 if first == CLIENT_HELLO else LIMIT)
    stranger = door.proven(first) if proven else door.plain(first)
    assert is_closed(stranger)
    for first in (initial_packet(0), MAIN, initial_packet(1)):
        door.proven(first)
    door.wait()
    assert door.found.said == MAIN
    assert [says in line for line in door.noted] == [True]


@pytest.mark.parametrize("first", [b"", CLIENT_HELLO[:1], CLIENT_HELLO, b"GET /"])
def test_who_resets_its_connection_before_it_is_accepted_is_forgotten(certificates: Certificates, first: bytes) -> None:
    """It cannot be asked any more who it is."""
    with contextlib.ExitStack() as stack:
        listener, where = listen(Address(host="127.0.0.1"), BACKLOG)
        stack.enter_context(listener)
        stranger = connect(where, time.monotonic() + LIMIT, LIMIT)
        if first:
            stranger.sendall(first)
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stranger.close()
        noted: list[str] = []
        found = Connections(0, noted=noted.append)
        theirs, ours = (Credentials(str(certificates.good), end) for end in ENDS[::-1])

        def source() -> None:
            plain = connect(where, time.monotonic() + LIMIT, LIMIT)
            sock = ours.connected(plain, where, time.monotonic() + LIMIT, LIMIT, never)
            stack.callback(sock.close)
            sock.sendmsg([MAIN])

        thread = threading.Thread(target=source)
        thread.start()
        accept_all(
            listener,
            found,
            first_limit=LIMIT,
            limit=LIMIT,
            prepare=lambda sock: prepare(sock, limit=LIMIT, tick=0.05),
            check=never,
            stack=stack,
            credentials=theirs,
        )
        thread.join(LIMIT)
        assert found.said == MAIN
        assert len(noted) == 1


def test_of_too_many_those_that_are_not_proven_give_way(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "MOST", 4)
    with contextlib.ExitStack() as stack:
        door = Door(tmp_path / "s", certificates, stack, silence=LIMIT)
        main = door.proven(b"")
        door.proven(initial_packet(0))
        deadline = time.monotonic() + LIMIT
        while not door.found.begun and time.monotonic() < deadline:
            time.sleep(0.01)  # once it has, the end of the earlier handshake has been heard, too
        strangers = [door.plain(CLIENT_HELLO) for _ in range(8)]
        assert all(is_closed(sock) for sock in strangers[:6])
        door.proven(initial_packet(1))
        main.sendmsg([MAIN])
        door.wait()
        assert door.found.complete
