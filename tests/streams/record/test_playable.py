"""Which recordings can be played: those of migrations that succeeded, whatever else was recorded."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from migpool.errors import UsageError
from migpool.streams.record.playable import playable
from migpool.streams.record.replay import Replay
from migpool.wire.commands import Command, CommandKind, command
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.ram import pages
from migpool.wire.returnpath import Pong, Shut, encode
from migpool.wire.stream import header
from tests.support.made_recordings import PAGE, Made, Role, begin, end, first, ram, ram_end, recording, state, sync
from tests.support.recording_rig import Background, accept, listener, read_all

MAIN = begin() + ram_end() + end()
CHANNEL = first(0) + sync(1) + ram(2, 3) + sync(3)
BEGINNING = header() + configuration(Configuration("made"))
ADVISE = command(Command(CommandKind.POSTCOPY_ADVISE, b"\0\0\0\0\0\0\x10\0" * 2))
POSTCOPY = BEGINNING + ADVISE + MAIN[len(BEGINNING) :]
URGENT = b"".join(map(bytes, pages("pc.ram", [(PAGE, b"u" * PAGE)])))
RUNS = encode(Pong(1)) + encode(Shut(0))
FAILED = encode(Pong(1)) + encode(Shut(1))
HELLO = bytes.fromhex("160301020001000001fc0303")


def made(
    folder: Path, main: bytes = MAIN, said: bytes = b"", channel: bytes = CHANNEL, other: bytes | None = None
) -> list[Made]:
    """A main channel, a multifd channel and perhaps one connection more."""
    del folder
    connections = [Made(Role.MAIN, None, [(0, main)], [(9, said)] if said else ())]
    if channel:
        connections.append(Made(Role.MULTIFD, 0, [(1, channel)]))
    if other is not None:
        connections.append(Made(Role.UNKNOWN, None, [(2, other)]))
    return connections


@pytest.mark.parametrize(
    ("main", "said", "channel"),
    [
        pytest.param(MAIN, RUNS, CHANNEL, id="the machine runs"),
        pytest.param(MAIN, b"", CHANNEL, id="no return path, and nothing is missing"),
        pytest.param(MAIN[:-5], RUNS, CHANNEL, id="the machine runs, without a description"),
        pytest.param(MAIN, RUNS, CHANNEL + state("d/vfio", 0, 9), id="the machine runs, a config was not needed"),
    ],
)
def test_a_recording_that_was_ended_early_can_be_played_if_the_migration_succeeded(
    tmp_path: Path, main: bytes, said: bytes, channel: bytes
) -> None:
    directory = recording(
        tmp_path / "r", made(tmp_path, main, said, channel), complete=False, reason="it was cancelled"
    )
    assert [one.role for one in playable(directory, 1).connections] == [Role.MAIN, Role.MULTIFD]


@pytest.mark.parametrize(
    ("main", "said", "channel"),
    [
        pytest.param(MAIN[:-20], b"", CHANNEL, id="the main channel was cut"),
        pytest.param(MAIN, b"", CHANNEL[: -len(sync(3))], id="a SYNC is missing"),
        pytest.param(MAIN, b"", CHANNEL + state("d/vfio", 0, 9), id="a config is missing"),
        pytest.param(begin(), b"", CHANNEL, id="the end of RAM is missing"),
    ],
)
def test_one_that_lacks_something_is_refused_with_the_reason(
    tmp_path: Path, main: bytes, said: bytes, channel: bytes
) -> None:
    directory = recording(
        tmp_path / "r", made(tmp_path, main, said, channel), complete=False, reason="it was cancelled"
    )
    with pytest.raises(UsageError, match="is not complete, and a destination could not tell: it was cancelled"):
        playable(directory, None)


@pytest.mark.parametrize("other", [b"", b"GET / HTTP/1.0\r\n"])
def test_strangers_are_left_out(tmp_path: Path, other: bytes) -> None:
    found = playable(recording(tmp_path / "r", made(tmp_path, said=RUNS, other=other)), None)
    assert [one.number for one in found.connections] == [0, 1]
    assert found.preempt is None


def test_a_stranger_in_a_migration_that_failed_is_no_reason_to_guess(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="connection 2 is neither a main channel nor a multifd channel"):
        playable(recording(tmp_path / "r", made(tmp_path, said=FAILED, other=b"GET /")), None)


def test_of_two_main_channels_the_one_is_played_whose_machine_runs(tmp_path: Path) -> None:
    stranger = Made(Role.MAIN, None, [(0, b"QEVM")])
    found = playable(recording(tmp_path / "r", [stranger, *made(tmp_path, said=RUNS)]), None)
    assert [one.number for one in found.connections] == [1, 2]


def test_tls_is_named_with_the_remedy(tmp_path: Path) -> None:
    directory = recording(tmp_path / "r", [Made(Role.UNKNOWN, None, [(0, HELLO)], [(1, HELLO)])])
    with pytest.raises(UsageError, match=r"connection 0 is TLS \(16 03\).* record without tls-creds"):
        playable(directory, None)


@pytest.mark.parametrize("urgent", [b"", URGENT])
@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_a_preempt_channel_is_played_after_the_main_channel_has_come(
    tmp_path: Path, urgent: bytes, seed: int | None
) -> None:
    """A destination cannot tell it by its bytes, and it may have none."""
    directory = recording(tmp_path / "r", made(tmp_path, POSTCOPY, RUNS, b"", urgent))
    with listener("unix", tmp_path) as (door, to), ExitStack() as stack:
        replay = Replay(playable(directory, 0), to, seed=seed, speed="full", limit=5)
        running = Background(replay.run)
        socks = [stack.enter_context(accept(door)) for _ in range(2)]
        readers = [Background(lambda sock=sock: read_until_told(sock)) for sock in socks]  # type: ignore[misc]
        socks[0].sendall(RUNS)
        got = [reader.result() for reader in readers]
        assert running.result().accepted
    assert got == [POSTCOPY, urgent]


def read_until_told(sock: socket.socket) -> bytes:
    """All that comes; then this end is closed, too."""
    data = read_all(sock)
    sock.shutdown(socket.SHUT_RDWR)
    return data
