"""What decides of a migration, fuzzed: what a destination answers, and how the connections of a source begin."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from migpool.core.cancel import CancelSwitch
from migpool.errors import MigpoolError
from migpool.migration.return_path import ReturnPath
from migpool.transport.connections import Connections
from migpool.transport.strangers import Stranger
from migpool.wire.configuration import Configuration, configuration, uuid_within
from migpool.wire.multifd import INITIAL_SIZE, initial_packet
from migpool.wire.returnpath import (
    Digest,
    Failed,
    GrantMessage,
    Message,
    Pong,
    ReturnPathReader,
    Running,
    Shut,
    SwitchoverAck,
    Welcome,
    encode,
)
from migpool.wire.stream import header
from tests.fuzz.fuzz_socket import ScriptedSocket

__all__ = ["answer_seeds", "connection_seeds", "connections", "verdicts"]

EXTENDED, SENT, DRIBBLES = 1, 2, 4
"""What the first byte chooses: own messages are agreed on, everything has been sent, 7 bytes at a read."""
DEVICES: Final = 3
AGAIN: Final = b"<again>"
"""Between what one connection says and the next."""
SECRET: Final = b"nobody knows it."
"""The number of the source that comes after all others."""
MOST: Final = 12
LONGEST: Final = 700


def _clear(text: str) -> None:
    assert text, "an error without a message"
    assert text.isprintable(), f"more than one line, or control characters: {text!r}"
    assert len(text) <= LONGEST, f"{len(text)} characters: {text}"


# ---------------------------------------------------------------------- the return path


def verdicts(data: bytes) -> None:
    """What a destination answers, and what the source makes of it."""
    how, script = data[0] if data else 0, data[1:]
    sock = ScriptedSocket(script, silent=False, most=7 if how & DRIBBLES else 1 << 30)
    switch = CancelSwitch()
    path = ReturnPath(
        sock,  # type: ignore[arg-type]  # all of a socket that it uses
        switch,
        0.0,
        lambda device, _: device < DEVICES - 1,
        lambda: "",
        DEVICES,
        extension=bool(how & EXTENDED),
    )
    if how & SENT:
        path.expect_running()
    path.listen()
    sock.close()
    runs = path.verdict(0)
    said = _understood(script, extension=bool(how & EXTENDED))
    if not how & SENT:
        assert not runs, "it runs there before it was sent"
        assert path.running is None
    if runs:
        first = next(each for each in said if isinstance(each, Running) or each == Shut(0, each.offset))
        assert isinstance(first, Running) or not how & EXTENDED
        assert not any(isinstance(each, Shut) for each in said[: said.index(first)]), "its last word came before"
    else:
        assert path.running is None
        assert not path.digests
    if runs is False and not switch.thrown:
        raise AssertionError("refused, and nobody is told")
    assert set(path.digests) <= set(range(DEVICES))
    try:
        path.wait("what never comes", lambda: False)
    except MigpoolError as error:
        _clear(str(error))
    if (reason := path.reason(0)) is not None:
        _clear(str(reason))


def _understood(script: bytes, *, extension: bool) -> list[Message]:
    """The messages before the first one that is none."""
    found: list[Message] = []
    reader = ReturnPathReader(extension)
    reader.feed(script)
    with contextlib.suppress(MigpoolError):
        found.extend(reader.events())  # what came before an error is kept
    return found


def together(*messages: Message) -> bytes:
    return b"".join(map(encode, messages))


def answer_seeds() -> list[bytes]:
    """All that a destination says, with its own messages and without; refusals; and what comes too early."""
    own: list[Message] = [Pong(1), Welcome(4096, 2), GrantMessage(0, 5), SwitchoverAck(), Running(bytes(16), 9)]
    own += [Digest(place, bytes([place]) * 32) for place in range(DEVICES)]
    told = together(*own, Shut(0))
    failed = together(Pong(1), Welcome(4096, 2), Failed("no room"), Shut(1))
    late = together(*own, Failed("it does not go on"), Shut(1))
    plain = together(SwitchoverAck(), Pong(1), Shut(0))
    refused = together(Pong(1), Shut(1))
    return [
        *(bytes([how]) + said for said in (told, failed, late) for how in (1, 3, 7)),
        *(bytes([how]) + said for said in (plain, refused) for how in (0, 2, 6)),
    ]


# ---------------------------------------------------------------------- connections


def connections(data: bytes) -> None:
    """The first bytes of one connection after another, and which of them are a source's."""
    count = data[0] % 4 if data else 0
    told: list[str] = []
    kept = Connections(count, noted=told.append)
    pairs: list[tuple[socket.socket, socket.socket]] = []
    try:
        for script in data[1:].split(AGAIN)[:MOST]:
            pairs.append(socket.socketpair())
            _begin(kept, pairs[-1][0], script, told)
        for text in told:
            _clear(text)
        _clear(kept.missing(1, 2.0))
        if kept.main is not None:
            _clear(kept.given_up())
        if kept.complete:
            assert len(kept.channels) == count
            assert kept.said.startswith(header()[:4])  # its version is for the reader to refuse
            assert uuid_within(kept.said) in (None, kept.uuid) or not count
            ours = {kept.main_channel, *kept.channels}
            assert len(ours) == count + 1, "a connection is two things"
            # More channels of its own are kept, so that they can be counted.
            assert ours == set(kept.sockets) or (kept.most and ours < set(kept.sockets)), "one of another is kept"
            assert all(sock.fileno() >= 0 for sock in ours), "a connection of the source's was closed"
        elif SECRET not in data:
            if kept.most:
                _clear(str(kept.too_many()))
            main = header() + configuration(Configuration("q", uuid=SECRET))
            pairs += (own := [socket.socketpair() for _ in range(count + 1)])
            for place, (sock, _) in enumerate(own):
                _begin(kept, sock, initial_packet(place - 1, SECRET) if place else main, told)
            assert [sock for sock, _ in own] == [kept.main, *kept.channels], "strangers kept a source out"
    finally:
        for sock in (sock for pair in pairs for sock in pair):
            sock.close()


def _begin(kept: Connections, sock: socket.socket, script: bytes, told: list[str]) -> None:
    """Say it piece by piece, as long as it is asked for more, or a configuration may go on."""
    main = script.startswith(header()[:4])
    for end in sorted({4, 8, 20, INITIAL_SIZE, len(script) if main else 4}):
        if end > len(script):
            return
        try:
            if kept.add(sock, script[:end]) and not main:
                return
        except Stranger as stranger:
            told.append(str(stranger))
            sock.close()
            return
        if sock.fileno() < 0 or kept.complete:
            return


def connection_seeds() -> list[bytes]:
    """A source's connections in several orders; two sources'; a source that says no uuid; strangers in between."""
    one, other = bytes(range(16)), bytes(range(1, 17))
    main = header() + configuration(Configuration("q", uuid=one))
    bare = header() + configuration(Configuration("q"))
    channels = [initial_packet(number, one) for number in range(3)]
    foreign = [initial_packet(number, other) for number in range(3)]
    made = [
        (3, [main, *channels]),
        (3, [*channels, main]),
        (2, [foreign[0], main, channels[1], foreign[1], channels[0]]),
        (2, [header(), b"GET / HTTP/1.1\r\n\r\n", bare, *channels]),
        (1, [main, channels[0], channels[0], main]),
        (0, [b"\x16\x03\x01\2\0", bare]),
        (0, [main]),
    ]
    return [bytes([count]) + AGAIN.join(said) for count, said in made]
