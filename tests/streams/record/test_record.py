"""What a recorder passes on and what it writes down, with every way in which the two ends can go."""

from __future__ import annotations

import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from migpool.core.threads import ThreadGroup
from migpool.errors import UsageError
from migpool.migration.states import State
from migpool.streams.record import recorder as recorder_module
from migpool.streams.record.explain import explain
from migpool.streams.record.index import Connection, Ended, Role, Times, load
from migpool.streams.record.passage import Passage
from migpool.streams.record.playable import playable
from migpool.streams.record.recorder import Recorder, RecorderLimits
from migpool.transport.address import Address
from migpool.wire.commands import Command, CommandKind, command
from migpool.wire.multifd import INITIAL_SIZE, initial_packet
from migpool.wire.ram import pages
from migpool.wire.sections import Kind
from tests.support.forking import as_a_user_does
from tests.support.other_streams import other
from tests.support.recording_rig import (
    BEGINNING,
    FAMILIES,
    GREETING,
    Background,
    Between,
    accept,
    dial,
    listener,
    place,
    read,
    read_all,
    record_migration,
    reset,
)
from tests.support.rig import LIMIT, contents

UUID = bytes(range(16))


@pytest.mark.parametrize("near", FAMILIES)
@pytest.mark.parametrize("far", FAMILIES)
def test_every_byte_passes_and_is_recorded_with_its_time(tmp_path: Path, near: str, far: str) -> None:
    main, first, second = (
        BEGINNING + contents(300_000, 1),
        initial_packet(1, UUID) + contents(3_000_000, 2),
        initial_packet(0, UUID),
    )
    with ExitStack() as stack:
        door, to = stack.enter_context(listener(far, tmp_path))
        between = Between(place(near, tmp_path, "near"), to, tmp_path / "recording")
        pairs_of_ends = [
            (stack.enter_context(dial(between.address, data[:64])), stack.enter_context(accept(door)))
            for data in (main, first, second)
        ]
        for (source, destination), data in zip(pairs_of_ends, (main, first, second), strict=True):
            received = Background(partial(read_all, destination))
            source.sendall(data[64:])
            source.shutdown(socket.SHUT_WR)
            assert received.result() == data
            destination.sendall(data[:5])
            destination.close()
            assert read_all(source) == data[:5]
        index = between.index()
    assert index == load(tmp_path / "recording")
    assert index.complete, index.reason
    assert [(one.role, one.channel, one.uuid) for one in index.connections] == [
        (Role.MAIN, None, ""),
        (Role.MULTIFD, 1, UUID.hex()),
        (Role.MULTIFD, 0, UUID.hex()),
    ]
    for one, data in zip(index.connections, (main, first, second), strict=True):
        assert (tmp_path / "recording" / one.source.file).read_bytes() == data
        assert (tmp_path / "recording" / one.destination.file).read_bytes() == data[:5]
        pairs = list(Times(tmp_path / "recording" / one.source.times).pairs())
        assert pairs[-1][1] == len(data)
        assert all(early[0] <= late[0] and early[1] < late[1] for early, late in pairwise(pairs))
        assert one.end is not None
        assert one.begin <= pairs[0][0] <= pairs[-1][0] <= one.end


def test_who_came_before_all_others_had_ended_is_passed_on_though_looked_at_later(tmp_path: Path) -> None:
    near, late = Address(path=str(tmp_path / "near")), initial_packet(0, UUID) + contents(1000)
    sources: list[socket.socket] = []
    received: list[Background[bytes]] = []
    with listener("unix", tmp_path) as (door, to):

        def read_next() -> bytes:
            with accept(door) as destination:
                return read_all(destination)

        def end_and_come(one: Connection) -> None:
            """Called by the recorder, which looks at nothing meanwhile."""
            if one.role is Role.MAIN:
                sources[0].close()
                assert read_next() == BEGINNING
                while {"source-0", "destination-0"}.intersection(thread.name for thread in threading.enumerate()):
                    time.sleep(0.001)
                received.append(Background(read_next))
                dial(near, late).close()

        recorder = Recorder(
            near,
            to,
            tmp_path / "recording",
            listening=lambda _: sources.append(dial(near, BEGINNING)),
            opened=end_and_come,
        )
        index = recorder.run()
        assert received[0].result() == late
    assert (index.complete, [one.role for one in index.connections]) == (True, [Role.MAIN, Role.MULTIFD])


@pytest.mark.parametrize(("family", "channels"), [("unix", 2), ("tcp", 4)])
def test_a_migration_goes_through_it(tmp_path: Path, family: str, channels: int) -> None:
    index, (sent, received) = record_migration(tmp_path, channels=channels, family=family)
    assert (sent.outcome, received.outcome) == (State.COMPLETED, State.COMPLETED), sent.error
    assert sent.verified
    assert index.complete, index.reason
    assert [one.channel for one in index.multifd] == list(range(channels))
    assert index.main is not None
    assert index.main.destination.bytes > 0


def test_times_say_when_a_byte_came(tmp_path: Path) -> None:
    index, _ = record_migration(tmp_path)
    flow = index.multifd[0].source
    times = Times(tmp_path / "recording" / flow.times)
    pairs = list(times.pairs())
    assert times.when(0) == pairs[0][0]
    assert times.when(pairs[0][1]) == pairs[1][0]
    assert times.when(flow.bytes - 1) == pairs[-1][0] == times.last()
    assert times.when(flow.bytes) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_half_closed_source_still_hears_the_answer(tmp_path: Path, family: str) -> None:
    with listener(family, tmp_path) as (door, to):
        between = Between(place(family, tmp_path, "near"), to, tmp_path / "recording")
        with dial(between.address, BEGINNING) as source, accept(door) as destination:
            source.shutdown(socket.SHUT_WR)
            assert read_all(destination) == BEGINNING
            destination.sendall(b"late answer")
            assert read(source, 11) == b"late answer"
        assert between.index().complete


@pytest.mark.parametrize("family", FAMILIES)
def test_a_destination_that_has_no_more_to_say_still_receives(tmp_path: Path, family: str) -> None:
    with listener(family, tmp_path) as (door, to):
        between = Between(place(family, tmp_path, "near"), to, tmp_path / "recording")
        with dial(between.address, BEGINNING) as source, accept(door) as destination:
            destination.shutdown(socket.SHUT_WR)
            assert read_all(source) == b""
            source.sendall(b"more")
            source.close()
            assert read_all(destination) == BEGINNING + b"more"
        assert between.index().complete


def test_a_source_that_dies_is_a_reset_for_the_destination_after_all_its_bytes(tmp_path: Path) -> None:
    with listener("tcp", tmp_path) as (door, to):
        between = Between(place("tcp", tmp_path, "near"), to, tmp_path / "recording")
        source = dial(between.address, BEGINNING + b"all of it")
        with accept(door) as destination:
            assert read(destination, len(BEGINNING) + 9) == BEGINNING + b"all of it"
            reset(source)
            with pytest.raises(ConnectionResetError):
                read_all(destination)
        index = between.index()
    assert not index.complete
    assert index.reason == f"main channel, after byte {len(BEGINNING) + 9}: the source was gone"
    assert index.connections[0].source.ended is Ended.BROKEN
    assert (tmp_path / "recording" / index.connections[0].source.file).read_bytes() == BEGINNING + b"all of it"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_destination_that_dies_is_gone_for_the_source(tmp_path: Path, family: str) -> None:
    with listener(family, tmp_path) as (door, to):
        between = Between(place(family, tmp_path, "near"), to, tmp_path / "recording")
        with dial(between.address, BEGINNING) as source:
            destination = accept(door)
            read(destination, len(BEGINNING))
            reset(destination)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                source.sendall(bytes(64 << 20))  # more than any buffer on the way holds
        index = between.index()
    assert not index.complete
    assert index.reason.endswith("the destination was gone")


def test_no_destination_is_said_in_time_and_ends_the_recording(tmp_path: Path) -> None:
    to = Address(path=str(tmp_path / "nobody"))
    between = Between(place("unix", tmp_path, "near"), to, tmp_path / "recording", RecorderLimits(connect=0.3))
    with dial(between.address, BEGINNING) as source:
        with suppress(ConnectionResetError):
            assert read_all(source) == b""
        index = between.index()
    assert "nobody answered within 0.3 s" in index.reason
    assert not load(tmp_path / "recording").complete


def test_no_source_is_said_in_time(tmp_path: Path) -> None:
    to = Address(path=str(tmp_path / "nobody"))
    between = Between(place("unix", tmp_path, "near"), to, tmp_path / "recording", RecorderLimits(source=0.3))
    assert between.index().reason == "no source has come within 0.3 s"
    assert not (tmp_path / "near").exists()


def test_a_migration_that_stands_still_is_ended_after_the_limit(tmp_path: Path) -> None:
    with listener("unix", tmp_path) as (door, to):
        between = Between(place("unix", tmp_path, "near"), to, tmp_path / "recording", RecorderLimits(idle=0.4))
        with dial(between.address, BEGINNING), accept(door) as destination:
            assert read_all(destination) == BEGINNING
            assert between.index().reason == "nothing has passed on any connection for 0.4 s"


def test_no_more_are_recorded_than_can_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MOST_CONNECTIONS", 2)
    with listener("unix", tmp_path) as (door, to), ExitStack() as stack:
        between = Between(place("unix", tmp_path, "near"), to, tmp_path / "recording")
        main = stack.enter_context(dial(between.address, BEGINNING)), stack.enter_context(accept(door))
        own = stack.enter_context(dial(between.address, initial_packet(0, UUID))), stack.enter_context(accept(door))
        late = stack.enter_context(dial(between.address, initial_packet(1, UUID)))
        with suppress(ConnectionResetError):
            assert read_all(late) == b""
        for pair in (main, own):
            for sock in pair:
                sock.shutdown(socket.SHUT_WR)
        index = between.index()
    assert index == load(tmp_path / "recording")
    assert len(index.connections) == 2
    assert ["one more was closed" in note for note in between.notes] == [True]


def test_tls_passes_and_is_a_whole_recording(tmp_path: Path) -> None:
    hello = bytes.fromhex("160301020001000001fc0303")
    with listener("unix", tmp_path) as (door, to):
        between = Between(place("unix", tmp_path, "near"), to, tmp_path / "recording")
        with dial(between.address, hello) as source, accept(door) as destination:
            source.shutdown(socket.SHUT_WR)
            assert read_all(destination) == hello
            destination.sendall(hello)
        index = between.index()
    assert index.complete, index.reason
    assert [one.role for one in index.connections] == [Role.UNKNOWN]
    assert (tmp_path / "recording" / index.connections[0].source.file).read_bytes() == hello


def test_a_postcopy_that_goes_on_after_a_break_passes_with_its_preempt_channel(tmp_path: Path) -> None:
    """Its main channel begins with a command, as nothing of a migration does before."""
    resumed, entry = other("postcopy-resumed"), b"".join(map(bytes, pages("pc.ram", [(0, bytes(4096)), (4096, None)])))
    with listener("unix", tmp_path) as (door, to), ExitStack() as stack:
        between = Between(place("unix", tmp_path, "near"), to, tmp_path / "recording")
        main = stack.enter_context(dial(between.address, resumed[:60]))
        main_there = stack.enter_context(accept(door))
        assert read(main_there, 60) == resumed[:60]
        preempt = stack.enter_context(dial(between.address))
        there = stack.enter_context(accept(door))
        come = Background(partial(read_all, main_there))
        main.sendall(resumed[60:])
        preempt.sendall(entry)
        for one in (main, preempt):
            one.shutdown(socket.SHUT_WR)
        assert (read_all(there), come.result()) == (entry, resumed[60:])
        there.close()
        main_there.close()
        index = between.index()
    assert index.complete, index.reason
    channels = explain(tmp_path / "recording").channels
    assert [one.name for one in channels] == ["main channel, resumed", "preempt channel, resumed"]
    assert [(one.pages, one.zero_pages, one.trouble) for one in channels] == [(38, 15692, ""), (1, 1, "")]
    with pytest.raises(UsageError, match="resumed after a break"):
        playable(tmp_path / "recording", None)


def test_a_preempt_channel_is_opened_before_anything_is_said_on_it(tmp_path: Path) -> None:
    """A destination waits for it before a source has anything to say there."""
    beginning = GREETING + command(Command(CommandKind.POSTCOPY_ADVISE)) + bytes([Kind.START])
    with listener("unix", tmp_path) as (door, to), ExitStack() as stack:
        between = Between(place("unix", tmp_path, "near"), to, tmp_path / "recording")
        main = stack.enter_context(dial(between.address))
        main.sendall(beginning)
        main_there = stack.enter_context(accept(door))
        assert read(main_there, len(beginning)) == beginning
        preempt = stack.enter_context(dial(between.address))
        there = stack.enter_context(accept(door))
        preempt.sendall(b"pages")
        assert read(there, 5) == b"pages"
        preempt.close()
        main.close()
        assert read_all(there) == read_all(main_there) == b""
        there.close()
        main_there.close()
        index = between.index()
    assert index.complete, index.reason
    assert [(one.role, one.source.bytes) for one in index.connections] == [
        (Role.MAIN, len(beginning)),
        (Role.UNKNOWN, 5),
    ]


def test_a_first_packet_in_single_bytes_is_recognised(tmp_path: Path) -> None:
    with listener("tcp", tmp_path) as (door, to):
        between = Between(place("tcp", tmp_path, "near"), to, tmp_path / "recording")
        with (
            dial(between.address, BEGINNING) as main,
            accept(door) as main_there,
            dial(between.address, initial_packet(3)[:1]) as source,
        ):
            assert read(main_there, len(BEGINNING)) == BEGINNING
            assert main.fileno() >= 0
            for number in range(1, INITIAL_SIZE):  # nothing is opened before all are there
                source.sendall(initial_packet(3)[number : number + 1])
            with accept(door) as there:
                assert read(there, INITIAL_SIZE) == initial_packet(3)
        index = between.index()
    assert [one.channel for one in index.connections] == [None, 3]


def test_cancelling_ends_both_sides_and_leaves_a_recording(tmp_path: Path) -> None:
    with listener("unix", tmp_path) as (door, to):
        between = Between(place("unix", tmp_path, "near"), to, tmp_path / "recording")
        with dial(between.address, BEGINNING) as source, accept(door) as destination:
            read(destination, len(BEGINNING))
            between.stop.set()
            assert read_all(destination) == b""
            assert read_all(source) == b""
            index = between.index()
    assert (index.complete, index.reason) == (False, "it was cancelled")
    assert load(tmp_path / "recording").connections[0].source.recorded == len(BEGINNING)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that takes no more than so many bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_disk_ends_the_recording_and_not_the_migration(tmp_path: Path, family: str) -> None:
    data = BEGINNING + contents(2_000_000)
    with files_of_at_most(100_000), listener(family, tmp_path) as (door, to):
        between = Between(place(family, tmp_path, "near"), to, tmp_path / "recording")
        with dial(between.address, data[: len(BEGINNING)]) as source, accept(door) as destination:
            received = Background(lambda: read_all(destination))
            source.sendall(data[len(BEGINNING) :])
            source.shutdown(socket.SHUT_WR)
            assert received.result() == data
        index = between.index()
    flow = index.connections[0].source
    assert not index.complete
    assert "000-source.bytes cannot be written" in index.reason
    assert len(between.warnings) == 1
    assert (flow.bytes, flow.recorded, flow.ended) == (len(data), 100_000, Ended.CLOSED)
    assert (tmp_path / "recording" / flow.file).read_bytes() == data[:100_000]


def test_a_migration_survives_a_full_disk(tmp_path: Path) -> None:
    with files_of_at_most(150_000):
        index, (sent, received) = record_migration(tmp_path)
    assert (sent.outcome, received.outcome) == (State.COMPLETED, State.COMPLETED)
    assert sent.verified
    assert not index.complete


def test_only_its_owner_can_read_a_recording(tmp_path: Path) -> None:
    record_migration(tmp_path)
    assert stat.S_IMODE((tmp_path / "recording").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "recording").iterdir()} == {0o600}


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recording").mkdir()
    (tmp_path / "recording" / "something").touch()
    recorder = Recorder(Address(path=str(tmp_path / "near")), Address(path="nowhere"), tmp_path / "recording")
    with pytest.raises(UsageError, match="is not empty: name a new directory"):
        recorder.run()
    assert not (tmp_path / "near").exists()


def test_ctrl_c_ends_the_command_in_order(tmp_path: Path) -> None:
    with as_a_user_does(), listener("unix", tmp_path) as (door, to):
        arguments = ["record", str(tmp_path / "recording"), "--listen", f"unix:{tmp_path / 'near'}", "--to", str(to)]
        process = subprocess.Popen(
            [sys.executable, "-m", "migpool", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stderr is not None
            assert process.stderr.readline() == f"listening on unix:{tmp_path / 'near'}\n"
            with dial(Address(path=str(tmp_path / "near")), BEGINNING), accept(door) as destination:
                read(destination, len(BEGINNING))
                process.send_signal(signal.SIGINT)
                assert process.wait(LIMIT) == 130
            told = process.stderr.read().splitlines()
    assert told[0] == "migpool: cancelling ..."
    assert f"is not complete: it was cancelled (1 connection, {len(BEGINNING)} bytes from the source" in told[1]
    assert len(told) == 2
    assert not (tmp_path / "near").exists()


def test_an_end_after_a_long_silence_is_no_missing_main_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last connection ends while the recorder looks how long nothing has passed."""
    passages: list[Passage] = []

    class Noted(Passage):
        def start(self, threads: ThreadGroup) -> None:
            passages.append(self)
            super().start(threads)

    monkeypatch.setattr(recorder_module, "GRACE", -1.0)
    monkeypatch.setattr(recorder_module, "Passage", Noted)
    sent, end = threading.Event(), threading.Event()
    with ExitStack() as stack:
        door, to = stack.enter_context(listener("unix", tmp_path))
        heard = threading.Event()

        def stop() -> bool:
            if not sum(passage.passed for passage in passages):
                return False
            if not sent.is_set():
                sent.set()  # how much has passed is noted in this turn
                return False
            end.set()
            while not all(passage.over for passage in passages):
                time.sleep(0.001)
            return False

        recorder = Recorder(
            place("unix", tmp_path, "near"), to, tmp_path / "recording", listening=lambda _: heard.set(), stop=stop
        )
        running = Background(recorder.run)
        assert heard.wait(LIMIT)
        source = stack.enter_context(dial(place("unix", tmp_path, "near"), BEGINNING))
        destination = stack.enter_context(accept(door))
        assert read(destination, len(BEGINNING)) == BEGINNING
        assert end.wait(LIMIT)
        source.close()
        destination.close()
        index = running.result()
    assert (index.complete, index.reason) == (True, "")
