"""An answer is taken in the same way however it comes: in pieces, behind the server's own commands, long or short."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool_plugins.vfio.backend import BackendError, Interruption
from migpool_plugins.vfio.vfiouser.connection import Connection
from migpool_plugins.vfio.vfiouser.message import UserCommand

HEADER = struct.Struct("=HHIII")
LIMIT = 120.0

COMMANDS = st.lists(
    st.tuples(st.sampled_from([UserCommand.DMA_READ, UserCommand.DMA_WRITE, 44]), st.binary(max_size=40)), max_size=3
)
"""What a server asks of its client before it answers."""


def message(number: int, command: int, payload: bytes, flags: int = 0, error: int = 0) -> bytes:
    return HEADER.pack(number, command, HEADER.size + len(payload), flags, error) + payload


class Server:
    """The other end of a connection, which says what it is told to say."""

    def __init__(self) -> None:
        ours, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.end.settimeout(LIMIT)
        self.interruption = Interruption()
        self.connection = Connection(ours, "server", LIMIT, self.interruption)

    def ask(self, said: bytes, cut: int) -> bytes:
        """What an ``ask`` returns: the first bytes of what is said are there before it, the others come after it."""
        self.end.sendall(said[:cut])

        def say_the_rest() -> None:
            self.end.recv(HEADER.size + 8)
            self.end.sendall(said[cut:])

        rest = threading.Thread(target=say_the_rest)
        rest.start()
        try:
            return self.connection.ask(UserCommand.DEVICE_FEATURE, b"question", "read", "the read was refused")
        finally:
            rest.join(LIMIT)

    def close(self) -> None:
        self.connection.close()
        self.interruption.close()
        self.end.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@given(payload=st.binary(max_size=100), commands=COMMANDS, data=st.data())
def test_what_comes_is_the_answer_however_it_is_cut(
    payload: bytes, commands: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    own = b"".join(message(7, what, body) for what, body in commands)
    said = own + message(1, UserCommand.DEVICE_FEATURE, payload, 1)
    server = Server()
    try:
        assert server.ask(said, data.draw(st.integers(0, len(said)))) == payload
        refused = [struct.unpack_from("=HHIII", server.end.recv(HEADER.size)) for _ in commands]
        assert [one[:2] for one in refused] == [(7, what) for what, _ in commands]
        again = message(2, UserCommand.DEVICE_FEATURE, b"next", 1)
        assert server.ask(again, 0) == b"next"  # nothing is left of the first
    finally:
        server.close()


@pytest.mark.parametrize("cut", [0, 5, 16])
@pytest.mark.parametrize("more", [b"", b"why it was refused"])
def test_a_refusal_is_one_however_it_is_cut(cut: int, more: bytes, server: Server) -> None:
    said = message(1, UserCommand.DEVICE_FEATURE, more, 0x21, errno.EBUSY)
    with pytest.raises(BackendError, match="the read was refused") as refused:
        server.ask(said, cut)
    assert refused.value.errno == errno.EBUSY
    assert server.ask(message(2, UserCommand.DEVICE_FEATURE, b"", 1), 0) == b""


@pytest.mark.parametrize("number", [0, 2])
def test_the_answer_to_something_else_ends_the_connection(number: int, server: Server) -> None:
    with pytest.raises(BackendError, match=f"answered message {number}, while 1 waits for its answer"):
        server.ask(message(number, UserCommand.DEVICE_FEATURE, b"12345678", 1), 0)
    assert server.connection.over
