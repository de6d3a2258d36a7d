"""Sockets that stall, dribble, break or are refused."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migpool.core.cancel import CancelSwitch
from migpool.errors import Cancelled, MigpoolError, PeerError, TimeLimitExceeded, UsageError
from migpool.transport.address import Address
from migpool.transport.channel_group import ChannelGroup
from migpool.transport.connections import took
from migpool.transport.listener import listen
from migpool.transport.sockets import connect, prepare, read_exactly, read_some, send_all
from tests.support.pool_gates import until_blocked

LIMIT = 20.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def in_a_thread(run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def never() -> None:
    return


# ---------------------------------------------------------------------- one connection


def test_more_than_a_socket_holds_arrives_whole(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    prepare(near, limit=LIMIT, tick=0.1)
    parts = [b"header" * 10, bytes(range(256)) * 4000, b"", b"end"]
    sender = in_a_thread(lambda: send_all(near, parts, "test"))
    buffer = bytearray(sum(map(len, parts)))
    assert read_exactly(far, buffer, len(buffer), never) == len(buffer)
    sender.join(LIMIT)
    assert bytes(buffer) == b"".join(parts)


def test_a_read_goes_on_over_ticks_and_pieces(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    prepare(far, limit=LIMIT, tick=0.01)
    ticks = threading.Semaphore(0)
    buffer = bytearray(30)

    def dribble() -> None:
        for _ in range(3):
            assert ticks.acquire(timeout=LIMIT)  # the reader has looked up before each piece
            near.sendall(bytes(range(10)))

    sender = in_a_thread(dribble)
    assert read_exactly(far, buffer, 30, ticks.release) == 30
    sender.join(LIMIT)
    assert bytes(buffer) == bytes(range(10)) * 3


def test_a_read_says_how_much_came_before_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.sendall(b"seven..")
    near.close()
    assert read_exactly(far, bytearray(20), 20, never) == 7
    assert read_some(far, 20, never) == b""


def test_a_waiting_read_ends_when_its_tick_says_so(pair: tuple[socket.socket, socket.socket]) -> None:
    _, far = pair
    prepare(far, limit=LIMIT, tick=0.01)

    def stop() -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        read_exactly(far, bytearray(20), 20, stop)
    with pytest.raises(Cancelled, match="enough"):
        read_some(far, 20, stop)


def test_a_peer_that_takes_nothing_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    prepare(near, limit=0.05, tick=0.05)
    with pytest.raises(TimeLimitExceeded, match="test: the peer has taken no data"):
        send_all(near, [bytes(16 << 20)], "test")


def test_a_peer_that_is_gone_is_an_error_of_one_line(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    far.close()
    with pytest.raises(PeerError, match=r"test: the connection is gone \(Broken pipe\)"):
        send_all(near, [b"x"], "test")


def test_an_unknown_congestion_control_is_refused() -> None:
    listener, bound = listen(Address(host="127.0.0.1"), 1)
    with listener, socket.create_connection((bound.host, bound.port)) as sock:
        with pytest.raises(UsageError, match="no TCP congestion control 'none-such'"):
            prepare(sock, limit=1, tick=1, congestion="none-such")
        prepare(sock, limit=1, tick=1, congestion="reno")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).startswith(b"reno")


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(MigpoolError, match=r"tcp:no-such-host\.invalid:1"):
        connect(Address(host="no-such-host.invalid", port=1), 0.0, 0.0)


def test_a_place_that_is_taken_is_named(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "taken"))
    listener, _ = listen(address, 1)
    with listener, pytest.raises(UsageError, match="cannot listen there: Address already in use"):
        listen(address, 1)


# ---------------------------------------------------------------------- the group


def test_who_waits_for_a_channel_hears_that_all_is_over(pair: tuple[socket.socket, socket.socket]) -> None:
    switch = CancelSwitch()
    waits: list[tuple[str, int]] = []

    def waited(name: str, index: int, since: int) -> None:
        assert since
        waits.append((name, index))

    group = ChannelGroup([pair[0]], waited, switch)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            group.send("nothing", 3, [b"x"], 1)
        except MigpoolError as error:
            errors.append(error)

    def keep_busy() -> None:
        with contextlib.suppress(MigpoolError):
            group.send("busy", 0, [bytes(1 << 22)], 1 << 22)  # more than a socket holds

    sender = in_a_thread(keep_busy)
    assert pair[1].recv(1) == bytes(1)
    waiters = [in_a_thread(wait) for _ in range(3)]
    until_blocked(*waiters)
    switch.cancel()
    for waiter in waiters:
        waiter.join(LIMIT)
    sender.join(LIMIT)
    assert [type(error) for error in errors] == [Cancelled] * 3
    assert waits == [("nothing", 3)] * 3


def never_waits(name: str, index: int, since: int) -> None:
    raise AssertionError(f"{name}, {index}: a channel was idle, and was waited for since {since}")


def channels_taken(sends: str, ended: str = "") -> str:
    """Which of two channels each chunk goes over; devices are digits, those in ``ended`` end before the third chunk."""
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(2)]
        for end in itertools.chain(*pairs):
            stack.enter_context(end)
        group = ChannelGroup([near for near, _ in pairs], never_waits, CancelSwitch())
        for index, device in enumerate(sends):
            if index == 2:
                for one in ended:
                    group.done(one)
            group.send(device, index, [bytes([index])], 1)
        over: dict[int, int] = {}
        for number, (near, far) in enumerate(pairs):
            near.close()
            over.update(dict.fromkeys(far.recv(100), number))
    return "".join(str(over[index]) for index in range(len(sends)))


def test_as_many_devices_as_channels_keep_theirs() -> None:
    assert channels_taken("01" + "1001100") == "01" + "1001100"


def test_one_device_uses_all_channels_in_turn() -> None:
    assert channels_taken("000000") == "010101"


def test_the_last_device_uses_the_channels_of_those_that_have_ended() -> None:
    assert channels_taken("011111", ended="0") == "010101"


def test_a_favourite_that_is_busy_is_not_waited_for() -> None:
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(2)]
        for end in itertools.chain(*pairs):
            stack.enter_context(end)
        group = ChannelGroup([near for near, _ in pairs], never_waits, CancelSwitch())
        group.send("first", 0, [b"a"], 1)
        group.send("second", 0, [b"b"], 1)
        assert pairs[0][1].recv(1) == b"a"
        # More than a socket holds: the channel is busy until somebody reads.
        sender = in_a_thread(lambda: group.send("first", 1, [bytes(1 << 22)], 1 << 22))
        assert pairs[0][1].recv(1) == bytes(1)
        group.send("first", 2, [b"c"], 1)
        assert pairs[1][1].recv(10) == b"bc"
        read_exactly(pairs[0][1], bytearray(1 << 22), (1 << 22) - 1, never)
        sender.join(LIMIT)


# ---------------------------------------------------------------------- nobody there


@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_a_destination_that_refuses_one_more_channel_has_been_started(tmp_path: Path, family: str) -> None:
    listener, address = listen(Address(path=str(tmp_path / "d")) if family == "unix" else Address(host="127.0.0.1"), 8)
    listener.close()
    begin = time.monotonic()
    with pytest.raises(PeerError) as caught:
        connect(address, begin + LIMIT, LIMIT, taken=took(2, 4))
    assert "the destination took 2 of 4 multifd channels" in str(caught.value)
    assert "start the destination" not in str(caught.value)
