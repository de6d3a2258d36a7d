"""Strangers at a recorder's door: none ends a recording, and what they began with is not in it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from migpool.streams.record import doorway as doorway_module
from migpool.streams.record import passage as passage_module
from migpool.streams.record import recorder as recorder_module
from migpool.streams.record.index import Role, load
from migpool.transport.address import Address
from migpool.transport.sockets import shut
from migpool.wire.multifd import INITIAL_SIZE, initial_packet
from migpool.wire.sections import Kind
from tests.support.pool_gates import until
from tests.support.recording_rig import (
    BEGINNING,
    GREETING,
    Between,
    accept,
    dial,
    greeting,
    listener,
    place,
    read,
    read_all,
    reset,
)
from tests.support.rig import LIMIT

UUID = bytes(range(16))


def stranger(address: Address, says: bytes, ends: str) -> socket.socket:
    """Somebody who is no source."""
    sock = dial(address)
    if says:
        sock.sendall(says)
    if ends == "reset":
        reset(sock)
    elif ends == "closed":
        sock.close()
    return sock


STRANGERS = [
    pytest.param(b"", "closed", "without a byte", id="a health check"),
    pytest.param(b"", "reset", "without a byte", id="a port scan"),
    pytest.param(b"", "", None, id="one that says nothing"),
    pytest.param(b"GET / HTTP/1.0\r\n\r\n", "", "47455420", id="a browser"),
]


@pytest.mark.parametrize(("says", "ends", "noted"), STRANGERS)
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_stranger_is_not_passed_on_and_makes_no_recording_incomplete(
    tmp_path: Path, says: bytes, ends: str, noted: str | None, when: str
) -> None:
    """The destination would die of it, and one that takes no more connections must not be asked for one."""
    with listener("tcp", tmp_path) as (door, to), ExitStack() as stack:
        between = Between(place("tcp", tmp_path, "near"), to, tmp_path / "recording")
        if when == "before":
            stack.enter_context(stranger(between.address, says, ends))
        source = stack.enter_context(dial(between.address))
        source.sendall(BEGINNING + b"one")
        destination = stack.enter_context(accept(door))
        assert read(destination, len(BEGINNING) + 3) == BEGINNING + b"one"
        door.close()
        if when == "during":
            stack.enter_context(stranger(between.address, says, ends))
        while noted is not None and not between.notes:
            time.sleep(0.01)
        source.sendall(b"two")
        source.shutdown(socket.SHUT_WR)
        assert read_all(destination) == b"two"
        destination.close()
        index = between.index()
    assert index.complete, index.reason
    assert [one.role for one in index.connections] == [Role.MAIN]
    assert [noted in note for note in between.notes if noted is not None] == [True] * len(between.notes)


def test_a_second_source_is_turned_away(tmp_path: Path) -> None:
    with listener("unix", tmp_path) as (door, to), ExitStack() as stack:
        between = Between(place("unix", tmp_path, "near"), to, tmp_path / "recording")
        source = stack.enter_context(dial(between.address))
        source.sendall(BEGINNING)
        destination = stack.enter_context(accept(door))
        assert read(destination, len(BEGINNING)) == BEGINNING
        other = stack.enter_context(dial(between.address))
        other.sendall(BEGINNING)
        with suppress(ConnectionResetError):
            assert read_all(other) == b""
        source.close()
        assert read_all(destination) == b""
        destination.close()
        assert between.index().complete
    assert ["second source" in note for note in between.notes] == [True]


def test_of_too_many_that_begin_as_a_source_a_strangers_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the main channel, be it older, and from the same address."""
    monkeypatch.setattr(recorder_module, "MOST", 4)
    with listener("tcp", tmp_path) as (door, to), ExitStack() as stack:
        between = Between(place("tcp", tmp_path, "near"), to, tmp_path / "recording")

        def passed(says: bytes) -> tuple[socket.socket, socket.socket]:
            near, far = stack.enter_context(dial(between.address, says)), stack.enter_context(accept(door))
            assert read(far, len(says)) == says
            return near, far

        main = passed(BEGINNING)
        strangers = [passed(initial_packet(number, bytes(16))) for number in range(6)]
        for near, _ in strangers[:3]:
            with suppress(ConnectionResetError):
                assert read_all(near) == b""
        for near, far in (main, *strangers[3:]):
            near.sendall(b"goes on")
            assert read(far, 7) == b"goes on"
        for pair in (main, *strangers):
            for sock in pair:
                sock.close()
        between.index()
    assert ["one was closed" in note for note in between.notes] == [True] * 3


def source_of(uuid: bytes) -> tuple[bytes, ...]:
    return greeting(uuid) + bytes([Kind.START]), initial_packet(0, uuid), initial_packet(1, uuid)


BEGIN = [
    pytest.param(b"QEVM", id="a magic"),
    pytest.param(BEGINNING[:8], id="a header"),
    pytest.param(GREETING[:-1], id="a greeting that is cut"),
    pytest.param(GREETING, id="a greeting"),
    pytest.param(greeting(bytes(16)), id="a greeting with a uuid"),
    pytest.param(initial_packet(0), id="a channel"),
    pytest.param(initial_packet(1, bytes(range(1, 17))), id="a channel of another uuid"),
    pytest.param(initial_packet(200), id="one channel of many"),
    pytest.param(bytes.fromhex("160301020001000001fc0303"), id="TLS"),
]


@pytest.mark.parametrize("says", BEGIN)
@pytest.mark.parametrize("ends", ["closed", "reset"])
def test_who_begins_as_a_source_does_and_goes_is_forgotten(tmp_path: Path, says: bytes, ends: str) -> None:
    """The destination goes on listening, as this project's does."""
    with listener("tcp", tmp_path) as (door, to), ExitStack() as stack:
        between = Between(place("tcp", tmp_path, "near"), to, tmp_path / "recording")
        stranger(between.address, says, ends)
        until(lambda: bool(between.notes), LIMIT)
        door.setblocking(False)
        with suppress(BlockingIOError):
            accept(door).close()
        door.settimeout(LIMIT)
        pairs_of_ends = []
        for first in source_of(UUID):
            near = stack.enter_context(dial(between.address, first))
            far = stack.enter_context(accept(door))
            assert read(far, len(first)) == first
            pairs_of_ends.append((near, far))
        for near, far in pairs_of_ends:
            near.sendall(b"more")
            near.close()
            assert read_all(far) == b"more"
            far.close()
        index = between.index()
    assert index.complete, index.reason
    assert [(one.role, one.channel) for one in index.connections] == [
        (Role.MAIN, None),
        (Role.MULTIFD, 0),
        (Role.MULTIFD, 1),
    ]
    assert index == load(tmp_path / "recording")
    kept = {
        name for one in index.connections for flow in (one.source, one.destination) for name in (flow.file, flow.times)
    }
    assert {path.name for path in (tmp_path / "recording").iterdir()} == {"index.json", *kept} - {""}


@pytest.mark.parametrize("says", BEGIN)
def test_who_begins_as_a_source_does_and_stays_does_not_hold_up_a_recording(tmp_path: Path, says: bytes) -> None:
    """They come once the source has said which channels are its own."""
    with listener("tcp", tmp_path) as (door, to), ExitStack() as stack:
        between = Between(place("tcp", tmp_path, "near"), to, tmp_path / "recording")
        pairs_of_ends = []
        for first in source_of(UUID):
            near = stack.enter_context(dial(between.address, first))
            far = stack.enter_context(accept(door))
            assert read(far, len(first)) == first
            pairs_of_ends.append((near, far))
            stack.enter_context(stranger(between.address, says, ""))
        for near, far in pairs_of_ends:
            near.sendall(b"more")
            near.close()
            assert read_all(far) == b"more"
            far.close()
        index = between.index()
        door.setblocking(False)
        with pytest.raises(BlockingIOError):
            door.accept()
    assert index.complete, index.reason
    assert len(index.connections) == 3


def test_a_channel_waits_for_its_main_channel_and_comes_behind_it(tmp_path: Path) -> None:
    """A destination may take whoever comes first for the main channel."""
    main, first, second = source_of(UUID)
    with listener("unix", tmp_path) as (door, to), ExitStack() as stack:
        between = Between(place("unix", tmp_path, "near"), to, tmp_path / "recording")
        near = [stack.enter_context(dial(between.address, says)) for says in (first, second, main)]
        far = [stack.enter_context(accept(door)) for _ in near]
        assert read(far[0], len(main)) == main
        assert {read(one, INITIAL_SIZE) for one in far[1:]} == {first, second}
        for sock in (*near, *far):
            sock.close()
        assert between.index().main is not None


def test_a_source_comes_after_one_that_greeted_and_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorway_module, "_SILENCE", 0.5)
    with listener("tcp", tmp_path) as (door, to), ExitStack() as stack:
        between = Between(place("tcp", tmp_path, "near"), to, tmp_path / "recording")
        stack.enter_context(dial(between.address, GREETING))
        stack.enter_context(accept(door))
        near = stack.enter_context(dial(between.address, BEGINNING))
        far = stack.enter_context(accept(door))
        near.close()
        assert read_all(far) == BEGINNING
        far.close()
        index = between.index()
    assert index.complete, index.reason
    assert len(index.connections) == 1
    assert any("did not go on, and another source came" in note for note in between.notes)


def test_who_is_refused_by_the_destination_is_no_stranger(tmp_path: Path) -> None:
    refused(tmp_path)


def test_nor_is_who_ends_at_once_when_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(sock: socket.socket, *, reading: bool = True, writing: bool = True) -> None:
        shut(sock, reading=reading, writing=writing)
        if "destination-0" in threading.current_thread().name:
            until(lambda: not any("source-0" in thread.name for thread in threading.enumerate()))

    monkeypatch.setattr(passage_module, "shut", told)
    refused(tmp_path)


def refused(folder: Path) -> None:
    with listener("unix", folder) as (door, to):
        between = Between(place("unix", folder, "near"), to, folder / "recording")
        with dial(between.address, GREETING) as source:
            with accept(door) as destination:
                read(destination, len(GREETING))
            assert read_all(source) == b""
        index = between.index()
    assert [one.role for one in index.connections] == [Role.MAIN]
