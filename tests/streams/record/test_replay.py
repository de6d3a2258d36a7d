"""What a replay sends, in which order, and what it says of how the destination took it."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from migpool.errors import PeerError, UsageError
from migpool.migration.states import State
from migpool.streams.record.index import load, store
from migpool.streams.record.playable import playable
from migpool.streams.record.replay import Played, Replay
from migpool.streams.record.stage import HEARD
from migpool.transport.address import Address
from migpool.wire.commands import ping
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.ram import multifd_flush, ram_section_end
from migpool.wire.records import setup_payload
from migpool.wire.returnpath import Pong, Shut, SwitchoverAck, encode
from migpool.wire.sections import Kind, SectionHead, head_bytes, section
from migpool.wire.stream import header
from tests.support.made_recordings import (
    Made,
    Role,
    begin,
    end,
    first,
    ram,
    ram_end,
    recording,
    state,
    switchover_start,
    sync,
)
from tests.support.recording_rig import (
    SIZE,
    Background,
    Waiting,
    accept,
    devices,
    listener,
    place,
    read,
    read_all,
    record_migration,
)
from tests.support.rig import KIB, contents

Speed = Literal["recorded", "full"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migration of three devices over two channels."""
    folder = tmp_path_factory.mktemp("recorded")
    index, _ = record_migration(folder)
    assert index.complete
    return folder / "recording"


def play(directory: Path, to: Address, **how: object) -> Played:
    return Replay(playable(directory, None), to, **{"limit": 5, **how}).run()  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["unix", "tcp"])
@pytest.mark.parametrize("speed", ["recorded", "full"])
@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_a_fresh_destination_runs_the_recorded_machine(
    tmp_path: Path, recorded: Path, family: str, speed: Speed, seed: int | None
) -> None:
    machine = devices(3, state=False)
    waiting = Waiting(tmp_path, machine, family=family)
    outcome = play(recorded, waiting.address, seed=seed, speed=speed)
    assert outcome.accepted, outcome.line
    assert outcome.line == "accepted: the destination said SHUT 0"
    assert outcome.bytes == sum(one.source.bytes for one in load(recorded).connections)
    report = waiting.report()
    assert report.outcome is State.COMPLETED, report.error
    assert [bytes(device.got) for device in machine] == [contents(SIZE, number) for number in range(3)]


@pytest.mark.parametrize("seed", [None, 5])
def test_a_destination_with_little_room_gets_chunks_only_as_it_grants_them(
    tmp_path: Path, recorded: Path, seed: int | None
) -> None:
    # The least that it can have: one chunk a device, where the recorded one had sixteen in all. A chunk too early would
    # be refused; a device's chunk behind another's on its channel would never be granted.
    machine = devices(3, state=False)
    waiting = Waiting(tmp_path, machine, budget=48 * KIB)
    outcome = play(recorded, waiting.address, seed=seed, speed="full")
    assert outcome.accepted, outcome.line
    assert waiting.report().outcome is State.COMPLETED
    assert [bytes(device.got) for device in machine] == [contents(SIZE, number) for number in range(3)]


def test_a_destination_with_shorter_chunks_is_named_with_the_remedy(tmp_path: Path, recorded: Path) -> None:
    waiting = Waiting(tmp_path, devices(3, state=False), chunk=4 * KIB)
    outcome = play(recorded, waiting.address)
    assert not outcome.accepted
    assert "found 4096: give it the budget of the recorded destination" in outcome.line
    assert waiting.report().outcome is State.FAILED


def test_the_reason_of_a_destination_that_refuses_is_passed_on(tmp_path: Path, recorded: Path) -> None:
    waiting = Waiting(tmp_path, devices(3, state=False), name="other")
    outcome = play(recorded, waiting.address)
    assert not outcome.accepted
    assert outcome.line.startswith("the destination said SHUT 1: configuration at byte 8: the machine 'other'")
    assert waiting.report().outcome is State.FAILED


# ---------------------------------------------------------------------- what is refused before anything is sent


def refused(directory: Path, reason: str, channels: int | None = None) -> None:
    with pytest.raises(UsageError, match=reason):
        playable(directory, channels)


def test_another_number_of_channels_is_refused(recorded: Path) -> None:
    refused(recorded, "has 2 multifd channels and the destination 3: it would wait for ever or load silently wrong", 3)
    assert playable(recorded, 2).channels


def copied(recorded: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in recorded.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_a_recording_without_one_of_its_channels_is_refused(tmp_path: Path, recorded: Path) -> None:
    copy = copied(recorded, tmp_path)
    index = load(copy)
    store(copy, replace(index, connections=tuple(one for one in index.connections if one.channel != 0)))
    refused(copy, r"has the multifd channels \[1\]")
    store(copy, replace(index, connections=index.connections[1:]))
    refused(copy, "has 0 main channels")


def test_a_short_file_is_refused(tmp_path: Path, recorded: Path) -> None:
    copy = copied(recorded, tmp_path)
    file = copy / "001-source.bytes"
    file.write_bytes(file.read_bytes()[:-1])
    refused(copy, "001-source.bytes has .* were recorded: copy the recording again")
    file.unlink()
    refused(copy, "001-source.bytes of the recording is missing")


def test_a_damaged_index_is_one_line(tmp_path: Path, recorded: Path) -> None:
    copy = copied(recorded, tmp_path)
    text = (copy / "index.json").read_text()
    (copy / "index.json").write_text(
        text.replace('"version":1', '"version": 2').replace('"version": 1', '"version": 2')
    )
    refused(copy, "is no index of version 1: version: Input should be 1")
    (copy / "index.json").write_text(text.replace("001-source.bytes", "../001-source.bytes"))
    refused(copy, "is no name of a file in the recording's own directory")
    (copy / "index.json").unlink()
    refused(copy, "is no recording")


def test_streams_that_were_cut_short_are_refused(tmp_path: Path) -> None:
    main = Made(Role.MAIN, None, [(0, begin())])
    refused(recording(tmp_path / "a", [main]), "the main channel was cut short: next item at byte")
    main = Made(Role.MAIN, None, [(0, begin() + end())])
    channel = Made(Role.MULTIFD, 0, [(0, first(0) + ram(1, 3)[:-1])])
    refused(recording(tmp_path / "b", [main, channel]), "channel 0 is damaged: multifd packet at byte 64")


# ---------------------------------------------------------------------- destinations by hand


def played(directory: Path, serve: Callable[[dict[str, socket.socket]], None], tmp_path: Path, **how: object) -> Played:
    """Play into a destination that accepts all connections and then does ``serve``."""
    count = len(load(directory).connections)
    with listener("unix", tmp_path, "by-hand") as (door, to), ExitStack() as stack:

        def run() -> None:
            socks = {}
            for _ in range(count):
                sock = stack.enter_context(accept(door))
                start = sock.recv(64, socket.MSG_PEEK)
                socks["main" if start[:4] == b"QEVM" else str(start[24])] = sock
            serve(socks)

        serving = Background(run)
        outcome = play(directory, to, **how)
        serving.result()
        return outcome


def made(tmp_path: Path, *, answers: bool = False) -> Path:
    """Two channels with RAM and device state, and a switchover."""
    main = Made(
        Role.MAIN,
        None,
        [(0, begin(answers=answers)), (50, switchover_start()), (60, ram_end() + end())],
        [(10, encode(SwitchoverAck())), (90, encode(Shut(0)))] if answers else (),
    )
    channels = [
        Made(Role.MULTIFD, n, [(1, first(n)), (20, ram(1, 3) + sync(2)), (55, state("dev", n, 5000)), (61, sync(3))])
        for n in range(2)
    ]
    return recording(tmp_path / "made", [main, *channels])


def test_a_main_channel_says_its_configuration_before_another_connection_is_opened(tmp_path: Path) -> None:
    """A destination gives each connection a second to say what it is, and others may take longer to be opened."""
    said: list[bytes] = []
    with listener("unix", tmp_path, "by-hand") as (door, to):

        def before_each() -> bool:
            if not select.select([door], [], [], 0)[0]:
                return False  # none is open
            with accept(door) as main:
                said.append(main.recv(4096))
            return True

        assert play(made(tmp_path), to, stop=before_each).cancelled
    assert said == [header() + configuration(Configuration("made"))]


def test_a_destination_without_a_return_path_gets_every_byte_and_each_end(tmp_path: Path) -> None:
    directory = made(tmp_path)
    got: dict[str, bytes] = {}

    def drain(socks: dict[str, socket.socket]) -> None:
        readers = {name: Background(partial(read_all, sock)) for name, sock in socks.items()}
        got.update({name: reader.result() for name, reader in readers.items()})
        for sock in socks.values():
            sock.close()

    outcome = played(directory, drain, tmp_path, seed=4)
    assert outcome.accepted
    assert outcome.line == "accepted: the destination took every byte, and has no return path to say more"
    for one in load(directory).connections:
        name = "main" if one.channel is None else str(one.channel)
        assert got[name] == (directory / one.source.file).read_bytes()


def test_the_switchover_waits_for_the_acknowledgement_and_device_state_for_the_switchover(tmp_path: Path) -> None:
    directory = made(tmp_path, answers=True)
    before = len(begin(answers=True))
    ahead = len(first(0) + ram(1, 3) + sync(2))

    def serve(socks: dict[str, socket.socket]) -> None:
        read(socks["main"], before)
        read(socks["0"], ahead)
        read(socks["1"], ahead)
        # Everything that may come has come; what comes without the acknowledgement would be seen here.
        assert select.select(list(socks.values()), [], [], 0.3)[0] == []
        socks["main"].sendall(encode(SwitchoverAck()))
        readers = [Background(partial(read, socks[name], 288 + 5000)) for name in "01"]
        read(socks["main"], len(switchover_start() + ram_end() + end()))
        for reader in readers:
            reader.result()
        socks["main"].sendall(encode(Shut(0)))
        for sock in socks.values():
            read_all(sock)
            sock.close()

    assert played(directory, serve, tmp_path, speed="full").accepted


@pytest.mark.parametrize("flushed", [False, True])
def test_state_of_a_device_waits_until_a_destination_has_heard_of_the_device(tmp_path: Path, flushed: bool) -> None:
    """Where no SYNC that follows the device's START section does so: as of a machine that was stopped before."""
    head = SectionHead(Kind.START, 7, "0000:00:03.0/vfio", 0, 1)
    flush = head_bytes(SectionHead(Kind.PART, 2, "ram", 0, 4)) + multifd_flush() + ram_section_end(2)
    beginning = begin(answers=True) + b"".join(map(bytes, section(head, setup_payload()))) + flush * flushed
    ahead, packet = first(0) + sync(2) + sync(3) * flushed, state(head.idstr, 0, 5000)
    main = [(0, beginning), (50, switchover_start()), (60, ram_end() + end())]
    directory = recording(
        tmp_path / "made",
        [
            Made(Role.MAIN, None, main, [(90, encode(Shut(0)))]),
            Made(Role.MULTIFD, 0, [(1, ahead), (55, packet), (61, sync(4))]),
        ],
    )

    def serve(socks: dict[str, socket.socket]) -> None:
        read(socks["main"], len(beginning))
        read(socks["0"], len(ahead))
        if not flushed:
            assert read(socks["main"], len(ping(HEARD))) == ping(HEARD)
            # Everything that may come has come; what comes without the answer would be seen here.
            assert select.select(list(socks.values()), [], [], 0.3)[0] == []
            socks["main"].sendall(encode(Pong(HEARD)))
        assert read(socks["0"], len(packet)) == packet
        assert read(socks["main"], len(switchover_start())) == switchover_start()
        socks["main"].sendall(encode(Shut(0)))
        for sock in socks.values():
            read_all(sock)
            sock.close()

    assert played(directory, serve, tmp_path, speed="full").accepted


def test_a_destination_that_closes_early_is_said_with_the_channel_and_the_byte(tmp_path: Path) -> None:
    main = Made(Role.MAIN, None, [(0, begin() + end())])
    channel = Made(Role.MULTIFD, 0, [(0, first(0)), (1, b"".join(ram(n, 60) for n in range(40)))])
    directory = recording(tmp_path / "made", [main, channel])

    def serve(socks: dict[str, socket.socket]) -> None:
        read(socks["0"], 64)
        socks["0"].close()

    outcome = played(directory, serve, tmp_path)
    assert not outcome.accepted
    total = load(directory).connections[1].source.bytes
    assert outcome.line.startswith("the destination closed the channel 0 early, after byte ")
    assert outcome.line.endswith(f" of {total}")


def test_shut_1_is_said(tmp_path: Path) -> None:
    def serve(socks: dict[str, socket.socket]) -> None:
        socks["main"].sendall(encode(Shut(1)))
        for sock in socks.values():
            sock.close()

    outcome = played(made(tmp_path, answers=True), serve, tmp_path)
    assert outcome.line == "the destination said SHUT 1, and gives no reason"


def test_shut_1_after_everything_was_sent_is_not_accepted(tmp_path: Path) -> None:
    def serve(socks: dict[str, socket.socket]) -> None:
        socks["main"].sendall(encode(SwitchoverAck()))
        total = {name: len(b"".join(piece for _, piece in one.source)) for name, one in carried.items()}
        readers = [Background(partial(read, socks[name], total[name])) for name in socks]
        for reader in readers:
            reader.result()
        socks["main"].sendall(encode(Shut(1)))
        for sock in socks.values():
            sock.close()

    carried = {
        "main": Made(Role.MAIN, None, [(0, begin(answers=True) + end())], [(9, encode(Shut(0)))]),
        "0": Made(Role.MULTIFD, 0, [(0, first(0) + sync(1))]),
    }
    outcome = played(recording(tmp_path / "made", list(carried.values())), serve, tmp_path)
    assert not outcome.accepted
    assert outcome.line == "the destination said SHUT 1, and gives no reason"


def test_a_destination_that_ends_without_a_word_is_not_accepted(tmp_path: Path) -> None:
    def serve(socks: dict[str, socket.socket]) -> None:
        socks["main"].sendall(encode(SwitchoverAck()))
        readers = [Background(partial(sock.recv, 1 << 20)) for sock in socks.values()]
        for reader in readers:
            reader.result()
        socks["main"].shutdown(socket.SHUT_WR)
        for sock in socks.values():
            read_all(sock)

    outcome = played(made(tmp_path, answers=True), serve, tmp_path)
    assert not outcome.accepted
    assert "closed the main channel early" in outcome.line


def test_what_is_no_message_is_an_error(tmp_path: Path) -> None:
    def serve(socks: dict[str, socket.socket]) -> None:
        socks["main"].sendall(b"\x99\x99\0\0")
        for sock in socks.values():
            read_all(sock)

    outcome = played(made(tmp_path, answers=True), serve, tmp_path)
    assert outcome.line.startswith("return path: return path message at byte 0: a type of 1 to 7")


def test_a_destination_that_never_says_the_last_word_is_given_up(tmp_path: Path) -> None:
    def serve(socks: dict[str, socket.socket]) -> None:
        socks["main"].sendall(encode(SwitchoverAck()))
        for sock in socks.values():
            read_all(sock)

    outcome = played(made(tmp_path, answers=True), serve, tmp_path, limit=1.0, speed="full")
    assert outcome.line == "the destination has everything and has not said SHUT: nothing has moved for 1 s"


def test_a_destination_that_takes_nothing_is_given_up(tmp_path: Path) -> None:
    main = Made(Role.MAIN, None, [(0, begin() + end())])
    channel = Made(Role.MULTIFD, 0, [(0, first(0)), (1, b"".join(ram(n, 60) for n in range(40)))])
    over = threading.Event()

    def serve(_socks: dict[str, socket.socket]) -> None:
        assert over.wait(20)

    directory = recording(tmp_path / "made", [main, channel])
    with listener("unix", tmp_path, "by-hand") as (door, to), ExitStack() as stack:
        replay = Replay(playable(directory, None), to, limit=1.0)
        running = Background(replay.run)
        for _ in range(2):
            stack.enter_context(accept(door))
        line = running.result().line
    assert "1 s" in line or "has taken nothing within the time limit" in line


def test_nobody_there_is_said_in_time(tmp_path: Path, recorded: Path) -> None:
    with pytest.raises(PeerError, match=r"nobody answered within 0\.2 s"):
        play(recorded, place("unix", tmp_path, "nobody"), connect_limit=0.2)


def test_cancelling_ends_it(tmp_path: Path) -> None:
    stop = threading.Event()

    def serve(socks: dict[str, socket.socket]) -> None:
        read(socks["main"], 8)
        stop.set()
        for sock in socks.values():
            read_all(sock)

    outcome = played(made(tmp_path, answers=True), serve, tmp_path, stop=stop.is_set)
    assert (outcome.accepted, outcome.cancelled, outcome.line) == (False, True, "cancelled")


def test_the_order_is_the_recorded_one_or_the_seeds(recorded: Path) -> None:
    found = playable(recorded, None)
    nowhere = Address(path="nowhere")
    assert [one.number for one in Replay(found, nowhere).order] == [0, 1, 2]
    orders = {tuple(one.number for one in Replay(found, nowhere, seed=seed).order) for seed in range(20)}
    assert len(orders) == 6
    assert Replay(found, nowhere, seed=3).order == Replay(found, nowhere, seed=3).order
