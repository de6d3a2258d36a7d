"""Our vfio-user client against servers that misbehave as real ones do: each trap has a server of its own."""

from __future__ import annotations

import errno
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migpool.device import DeviceBusy, DeviceError, Pending
from migpool_plugins.vfio.backend import BackendError, Interruption, NoAnswer
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vfio.migration import Flags, MigrationState
from migpool_plugins.vfio.vfiouser.backend import VfioUserBackend
from migpool_plugins.vfio.vfiouser.connect import connector
from tests.support.vfio.vfio_rig import Blocked
from tests.support.vfio.vfiouser_rig import (
    DMA_READ,
    FEATURE,
    GET,
    READ,
    RESET,
    SET,
    VERSION,
    WRITE,
    Device,
    HandServer,
    hand_server,
)

M = MigrationState
Connect = Callable[..., VfioUserBackend]


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture
def connect() -> Iterator[Connect]:
    made: list[VfioUserBackend] = []

    def one(
        server: HandServer, limit: float = 20.0, write_size: int | None = None, outstanding: int = 8
    ) -> VfioUserBackend:
        backend = VfioUserBackend(
            connector(server.path, limit, 1.0), "server", write_size=write_size, outstanding=outstanding
        )
        made.append(backend)
        return backend

    yield one
    for backend in made:
        backend.close()


def read_all(device: VfioDevice, size: int = 4) -> bytes:
    room = memoryview(bytearray(size))
    data = b""
    while count := device.save_state(room):
        data += room[:count]
    return data


def test_a_plain_server_is_saved_and_loaded(directory: Path, connect: Connect) -> None:
    with hand_server(directory) as server:
        backend = connect(server)
        assert backend.flags == Flags.STOP_COPY
        assert backend.write_size == 32 << 10
        assert backend.data_size() is None
        source = VfioDevice("a/vfio", backend, "source")
        source.save_setup()
        source.stop()
        # The answer is as long as was asked for, and only a part of it is data.
        assert read_all(source, 7) == b"0123456789"
        config = source.save_config()
        source.resume()
        destination = VfioDevice("a/vfio", backend, "destination")
        destination.load_setup(b"")
        destination.load_state(memoryview(b"0123456789"))
        destination.load_config(config)
        destination.start()
        destination.verify()
        assert server.device.loaded == b"0123456789"


def one_receive_for_a_body(
    server: HandServer, connection: socket.socket, number: int, command: int, _flags: int, payload: bytes
) -> bool:
    """As a server that takes a body with one receive: a long write is refused, and its rest is taken for messages."""
    if command == WRITE and len(payload) - 8 > 36_520:
        server.reply(connection, number, command, error=errno.EINVAL)
        connection.sendall(b"\xff" * 64)
        return True
    return False


def test_writes_are_short_unless_the_server_is_known_to_take_more(directory: Path, connect: Connect) -> None:
    with hand_server(directory, one_receive_for_a_body) as server:
        device = VfioDevice("a/vfio", connect(server), "destination")
        device.load_setup(b"")
        device.load_state(memoryview(bytes(100_000)))
        assert server.writes == [32 << 10] * 3 + [100_000 - 3 * (32 << 10)]


@pytest.mark.parametrize("outstanding", [1, 8])
def test_a_long_write_that_loses_the_framing_is_told_with_the_remedy_and_the_device_is_reset(
    outstanding: int, directory: Path, connect: Connect
) -> None:
    with hand_server(directory, one_receive_for_a_body) as server:
        backend = connect(server, write_size=50_000, outstanding=outstanding)
        device = VfioDevice("a/vfio", backend, "destination")
        device.load_setup(b"")
        with pytest.raises(BackendError) as caught:
            device.load_state(memoryview(bytes(150_000)))
        assert str(caught.value) == (
            "a write of 50000 bytes was refused (the server may take less: set write_size to 32KiB): "
            "Invalid argument (EINVAL); the device was in RESUMING, it was reset"
        )
        assert backend.state() is M.RUNNING
        assert server.seen.count(VERSION) == 2  # a connection whose framing is lost is not used again


def test_an_announced_write_size_is_used_and_only_the_last_write_is_answered(directory: Path, connect: Connect) -> None:
    answered: list[bool] = []

    def note(_s: HandServer, _c: socket.socket, _n: int, command: int, flags: int, _p: bytes) -> bool:
        if command == WRITE:
            answered.append(not flags & 0x10)
        return False

    with hand_server(directory, note) as server:
        server.capabilities["migpool"] = {"max_write_size": 40_000, "sticky_errors": True}
        backend = connect(server)
        backend.set_state(M.RESUMING)
        backend.write(memoryview(bytes(100_000)))
        assert server.writes == [40_000, 40_000, 20_000]
        assert answered == [False, False, True]
        # After writes without a reply the state is asked.
        assert server.seen[-2:] == [WRITE, FEATURE]


def test_writes_without_replies_that_moved_the_device_are_an_error(directory: Path, connect: Connect) -> None:
    def fall(server: HandServer, _c: socket.socket, _n: int, command: int, flags: int, _p: bytes) -> bool:
        if command == WRITE and not flags & 0x10:
            server.device.state = 4

            def later() -> None:
                server.device.state = 0

            later_fall.append(later)
        elif command == FEATURE and later_fall:
            later_fall.pop()()
        return False

    later_fall: list[Callable[[], None]] = []
    with hand_server(directory, fall) as server:
        server.capabilities["migpool"] = {"max_write_size": 4, "sticky_errors": True}
        device = VfioDevice("a/vfio", connect(server), "destination")
        device.load_setup(b"")
        with pytest.raises(BackendError, match=r"without a reply failed: .*in ERROR; the device was in ERROR, it was"):
            device.load_state(memoryview(bytes(10)))


@pytest.mark.parametrize("outstanding", [1, 3, 8])
def test_an_error_that_is_not_sticky_fails_the_load_all_the_same(
    outstanding: int, directory: Path, connect: Connect
) -> None:
    def fault_once(server: HandServer, c: socket.socket, number: int, command: int, _f: int, _p: bytes) -> bool:
        if command == WRITE and len(server.writes) == 1 and not failed:
            failed.append(True)
            server.reply(c, number, command, error=errno.EFAULT)
            return True
        return False

    failed: list[bool] = []
    with hand_server(directory, fault_once) as server:
        device = VfioDevice("a/vfio", connect(server, outstanding=outstanding), "destination")
        device.load_setup(b"")
        with pytest.raises(BackendError, match=r"refused: Bad address \(EFAULT\); the device was in RESUMING, it was"):
            device.load_state(memoryview(bytes(200_000)))
        writes = server.seen.count(WRITE)
        with pytest.raises(BackendError, match="EFAULT"):
            device.load_state(memoryview(bytes(10)))
        assert server.seen.count(WRITE) == writes
        assert server.device.state == 2


@pytest.mark.parametrize("state", [3, 4, 6, 0])
def test_a_state_that_outlived_its_user_is_reset_first(state: int, directory: Path, connect: Connect) -> None:
    with hand_server(directory, device=Device(flags=7, state=state)) as server:
        device = VfioDevice("a/vfio", connect(server), "source")
        device.save_setup()
        assert server.device.state == 6
        assert device.note == f"server, found in {M(state).name} and reset"


def test_the_state_survives_a_connection_that_is_lost(directory: Path, connect: Connect) -> None:
    def hang_up(_s: HandServer, c: socket.socket, _n: int, command: int, _f: int, _p: bytes) -> bool:
        if command == READ and not hung:
            hung.append(True)
            c.shutdown(socket.SHUT_RDWR)
            return True
        return False

    hung: list[bool] = []
    with hand_server(directory, hang_up) as server:
        device = VfioDevice("a/vfio", connect(server), "source")
        device.save_setup()
        device.stop()
        with pytest.raises(NoAnswer, match=r"server .*went away before it had answered a read$"):
            device.save_state(memoryview(bytearray(4)))
        assert server.device.state == 3
        device.wake()
        device.resume()
        assert server.device.state == 2


def test_a_refused_state_may_be_answered_with_a_body(directory: Path, connect: Connect) -> None:
    def refuse(server: HandServer, c: socket.socket, number: int, command: int, _f: int, payload: bytes) -> bool:
        if command == FEATURE and payload[4:12] == struct.pack("=II", SET | 2, 3):
            server.reply(c, number, command, payload, errno.EINVAL)  # 32 bytes in all
            return True
        return False

    with hand_server(directory, refuse) as server:
        device = VfioDevice("a/vfio", connect(server), "source")
        device.save_setup()
        with pytest.raises(BackendError) as caught:
            device.stop()
        assert str(caught.value) == (
            "STOP_COPY was refused: Invalid argument (EINVAL); the device was in RUNNING and went to STOP"
        )


def test_a_walk_that_fails_half_way_is_found_where_it_came_to(directory: Path, connect: Connect) -> None:
    def half(server: HandServer, c: socket.socket, number: int, command: int, _f: int, payload: bytes) -> bool:
        if command == FEATURE and payload[4:12] == struct.pack("=II", SET | 2, 3):
            server.device.state = 5
            server.reply(c, number, command, error=errno.EIO)
            return True
        return False

    with hand_server(directory, half, Device(flags=3)) as server:
        device = VfioDevice("a/vfio", connect(server), "source")
        device.save_setup()
        with pytest.raises(BackendError, match=r"\(EIO\); the device was in RUNNING_P2P and went to STOP$"):
            device.stop()


@pytest.mark.parametrize("sent", [0, 7, 16, 24, 30])
def test_a_server_that_dies_in_the_middle_of_a_reply_is_one_line(sent: int, directory: Path, connect: Connect) -> None:
    def die(server: HandServer, c: socket.socket, number: int, command: int, _f: int, _p: bytes) -> bool:
        if command == READ:
            whole = struct.pack("=HHIII", number, command, 34, 1, 0) + struct.pack("=II", 18, 10) + b"0123456789"
            c.sendall(whole[:sent])
            c.shutdown(socket.SHUT_RDWR)
            server.ended.set()
            return True
        return False

    with hand_server(directory, die) as server:
        device = VfioDevice("a/vfio", connect(server), "source")
        device.save_setup()
        device.stop()
        with pytest.raises(NoAnswer, match=r"^the vfio-user server .*went away before it had answered a read$"):
            device.save_state(memoryview(bytearray(10)))


def test_a_stalled_read_has_a_time_limit_and_the_device_is_recovered(directory: Path, connect: Connect) -> None:
    def stall(_s: HandServer, _c: socket.socket, _n: int, command: int, _f: int, _p: bytes) -> bool:
        return command == READ

    with hand_server(directory, stall) as server:
        device = VfioDevice("a/vfio", connect(server, limit=1.0), "source")
        device.save_setup()
        device.stop()
        with pytest.raises(NoAnswer, match=r"read did not return within 1 s$"):
            device.save_state(memoryview(bytearray(10)))
        device.wake()
        device.resume()
        assert server.device.state == 2


def test_a_server_that_answers_nothing_is_waited_for_once_when_it_is_woken_and_once_when_it_is_resumed(
    directory: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deaf(_s: HandServer, _c: socket.socket, _n: int, command: int, _f: int, _p: bytes) -> bool:
        if command == READ:
            stalled.append(True)
        return bool(stalled)

    stalled: list[bool] = []
    with hand_server(directory, deaf) as server:
        device = VfioDevice("a/vfio", connect(server, limit=0.5), "source")
        device.save_setup()
        device.stop()
        with pytest.raises(NoAnswer, match="read did not return"):
            device.save_state(memoryview(bytearray(10)))
        monkeypatch.setattr("migpool_plugins.vfio.device.WAKE_PATIENCE", 0.25)
        with pytest.raises(DeviceBusy, match=r"did not answer 'version' within 0\.25 s"):
            device.wake()
        with pytest.raises(NoAnswer, match=r"did not answer 'version' within 0\.5 s"):
            device.resume()
        asked = server.seen.count(VERSION)
        with pytest.raises(NoAnswer):
            device.resume()
        device.close()
        assert server.seen.count(VERSION) == asked == 3


def test_a_server_that_dribbles_does_not_get_the_limit_again_and_again(directory: Path, connect: Connect) -> None:
    def dribble(server: HandServer, c: socket.socket, number: int, command: int, _f: int, _p: bytes) -> bool:
        if command != READ:
            return False
        reply = struct.pack("=HHIII", number, command, 34, 1, 0) + struct.pack("=II", 18, 10) + b"0123456789"
        for byte in reply:
            if server.ended.wait(0.4):
                break
            c.sendall(bytes([byte]))
        return True

    with hand_server(directory, dribble) as server:
        backend = connect(server, limit=1.0)
        backend.set_state(M.STOP_COPY)
        with pytest.raises(BackendError, match="did not return within"):
            backend.read(memoryview(bytearray(10)))


def test_a_long_answer_that_nobody_wants_does_not_get_the_limit_for_each_part(
    directory: Path, connect: Connect
) -> None:
    def dribble(server: HandServer, c: socket.socket, number: int, command: int, _f: int, _p: bytes) -> bool:
        if command != RESET:
            return False
        parts = 40
        c.sendall(struct.pack("=HHIII", number, command, 16 + (parts << 16), 0x21, errno.EIO))
        for _ in range(parts):
            if server.ended.wait(0.3):
                break
            c.sendall(bytes(1 << 16))
        return True

    with hand_server(directory, dribble) as server:
        backend = connect(server, limit=1.0)
        with pytest.raises(BackendError, match="did not answer 'reset' within"):
            backend.reset()


def test_a_second_client_is_told_that_it_is_not_answered(directory: Path, connect: Connect) -> None:
    with hand_server(directory) as server:
        connect(server)
        with pytest.raises(BackendError, match=r"let us in, but .* within 0\.5 s: it may be serving somebody else"):
            connect(server, limit=0.5)


def test_guest_memory_that_a_server_asks_for_is_refused_and_the_reply_is_found(
    directory: Path, connect: Connect
) -> None:
    answers: list[tuple[int, ...]] = []

    def ask(server: HandServer, c: socket.socket, _n: int, command: int, _f: int, _p: bytes) -> bool:
        if command == READ:
            for number, what in ((7, DMA_READ), (8, 12), (9, 44)):
                c.sendall(struct.pack("=HHIII", number, what, 16 + 20, 0, 0) + bytes(20))
                answers.append(struct.unpack("=HHIII", server.exactly(c, 16)))
            c.sendall(struct.pack("=HHIII", 10, DMA_READ, 16, 0x10, 0))  # wants no reply
        return False

    with hand_server(directory, ask) as server:
        backend = connect(server)
        backend.set_state(M.STOP_COPY)
        room = memoryview(bytearray(10))
        assert backend.read(room) == 10
        assert bytes(room) == b"0123456789"
        assert answers == [
            (7, DMA_READ, 16, 0x21, errno.EFAULT),
            (8, 12, 16, 0x21, errno.EFAULT),
            (9, 44, 16, 0x21, errno.ENOTSUP),
        ]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (struct.pack("=HHIII", 60_000, READ, 16, 1, 0), "answered message 60000"),
        (struct.pack("=HHIII", 0, 0, 3, 0, 0), "lost the framing: a message says that it has 3 bytes"),
        (b"\xff" * 16, "lost the framing"),
    ],
)
def test_a_reply_that_is_none_ends_the_connection(
    reply: bytes, message: str, directory: Path, connect: Connect
) -> None:
    def lie(_s: HandServer, c: socket.socket, _n: int, command: int, _f: int, _p: bytes) -> bool:
        if command == READ:
            c.sendall(reply)
        return command == READ

    with hand_server(directory, lie) as server:
        backend = connect(server)
        backend.set_state(M.STOP_COPY)
        with pytest.raises(BackendError, match=message):
            backend.read(memoryview(bytearray(10)))
        assert backend.state() is M.STOP_COPY  # on a new connection


@pytest.mark.parametrize("number", [134, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_an_error_number_that_nobody_knows_is_told_as_it_came(number: int, directory: Path, connect: Connect) -> None:
    def refuse(s: HandServer, c: socket.socket, n: int, command: int, _f: int, _p: bytes) -> bool:
        if command == RESET:
            s.reply(c, n, command, error=number)
        return command == RESET

    with hand_server(directory, refuse) as server, pytest.raises(BackendError) as caught:
        connect(server).reset()
    assert str(caught.value) == f"the reset was refused: error {number}, which has no name"


@pytest.mark.parametrize("announced", [1 << 31, 1 << 32, 10**30])
def test_a_server_that_announces_more_than_a_message_can_carry_is_given_less(
    announced: int, directory: Path, connect: Connect
) -> None:
    with hand_server(directory) as server:
        server.capabilities = {
            "migration": {},
            "max_data_xfer_size": announced,
            "migpool": {"max_write_size": announced},
        }
        backend = connect(server)
        assert backend.write_size == 64 << 20
        backend.set_state(M.RESUMING)
        backend.write(memoryview(b"0123456789"))
        assert server.device.loaded == b"0123456789"


@pytest.mark.parametrize(("says", "rest"), [(11, 18), (9, 12), (0, 4)])
def test_more_data_than_was_asked_for_or_came_is_not_taken(
    says: int, rest: int, directory: Path, connect: Connect
) -> None:
    def lie(_s: HandServer, c: socket.socket, number: int, command: int, _f: int, _p: bytes) -> bool:
        if command == READ:
            body = struct.pack("=II", 18, says) + bytes(30)
            c.sendall(struct.pack("=HHIII", number, command, 16 + rest, 1, 0) + body[:rest])
        return command == READ

    with hand_server(directory, lie) as server:
        backend = connect(server)
        backend.set_state(M.STOP_COPY)
        with pytest.raises(BackendError, match=r"server .* answered a read"):
            backend.read(memoryview(bytearray(10)))


@pytest.mark.parametrize(
    ("capabilities", "flags", "message"),
    [
        ({}, 0, "cannot migrate: it knows no STOP_COPY"),
        ({}, -1, r"cannot migrate: get-migration was refused: Invalid argument \(EINVAL\)"),
        ({"migration": {}, "max_data_xfer_size": "much"}, 1, "no JSON of the right form"),
        ({"migration": {}, "max_data_xfer_size": 0}, 1, "max_data_xfer_size of 0, with which no data can move"),
    ],
)
def test_a_device_that_cannot_migrate_is_refused_when_it_is_opened(
    capabilities: dict[str, object], flags: int, message: str, directory: Path, connect: Connect
) -> None:
    with hand_server(directory, device=Device(flags=flags)) as server:
        server.capabilities = capabilities
        with pytest.raises(DeviceError, match=message):
            connect(server)


def test_a_server_that_knows_no_parts_is_refused_in_one_line(directory: Path) -> None:
    with hand_server(directory, device=Device()) as server:
        with pytest.raises(BackendError) as refused:
            VfioUserBackend(connector(server.path, 20.0, 1.0), "server at s", engines=4)
        assert str(refused.value) == (
            "the server at s knows no parts with tags: leave engines out, or take a server that announces them"
        )


@pytest.mark.parametrize("what", ["read", "write", "set", "connect"])
def test_abort_ends_every_wait_from_another_thread(what: str, directory: Path, connect: Connect) -> None:
    def stall(_s: HandServer, _c: socket.socket, _n: int, command: int, _f: int, payload: bytes) -> bool:
        set_state = command == FEATURE and struct.unpack("=I", payload[4:8])[0] == SET | 2
        return stalling.is_set() and (command in (READ, WRITE) or set_state)

    stalling = threading.Event()
    interruption = Interruption()
    with hand_server(directory, stall) as server:
        backend = connect(server)
        backend.set_state(M.RESUMING if what == "write" else M.STOP_COPY)
        stalling.set()
        if what == "connect":
            other = connector(str(directory / "nobody"), 20.0, 600.0)
            blocked = Blocked(lambda: other(interruption, False))
            interruption.interrupt()
        else:
            calls: dict[str, Callable[[], object]] = {
                "read": lambda: backend.read(memoryview(bytearray(10))),
                "write": lambda: backend.write(memoryview(bytes(100_000))),
                "set": lambda: backend.set_state(M.STOP),
            }
            blocked = Blocked(calls[what])
            backend.abort()
        assert str(blocked.ended()) == "the device's work was aborted"
        interruption.close()
        stalling.clear()
        if what != "connect":
            with pytest.raises(BackendError, match="aborted"):
                backend.state()
            backend.renew()
            assert backend.state() in (M.RESUMING, M.STOP_COPY)


@pytest.mark.parametrize("whole", [True, False], ids=["between messages", "in a message"])
def test_an_abort_keeps_the_connection_unless_a_message_stands_still(
    whole: bool, directory: Path, connect: Connect
) -> None:
    """What is owed comes late, and is no answer to what is asked then."""
    came = b"0123456789"
    aborted = threading.Event()

    def late(server: HandServer, c: socket.socket, number: int, command: int, _f: int, _p: bytes) -> bool:
        if command != READ:
            return False
        reply = struct.pack("=HHIII", number, command, 34, 1, 0) + struct.pack("=II", 18, 10) + came
        c.sendall(reply[: 0 if whole else 20])
        assert aborted.wait(20)
        if whole:
            c.sendall(struct.pack("=HHIII", 7, DMA_READ, 16, 0, 0))  # it may ask before it answers
            assert server.exactly(c, 16)
            c.sendall(reply)
        return True

    with hand_server(directory, late) as server:
        backend = connect(server)
        backend.set_state(M.STOP_COPY)
        blocked = Blocked(lambda: backend.read(memoryview(bytearray(10))))
        backend.abort()
        assert str(blocked.ended()) == "the device's work was aborted"
        backend.renew(0.01)
        if whole:
            with pytest.raises(NoAnswer, match="is busy with what was interrupted"):
                backend.state()
        aborted.set()
        backend.renew()
        assert backend.state() is M.STOP_COPY
        assert server.clients == (1 if whole else 2)


def test_a_socket_whose_server_comes_later_is_waited_for(directory: Path) -> None:
    path = directory / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as early:
        early.bind(str(path))
        found: list[VfioUserBackend] = []
        waiting = Blocked(lambda: found.append(VfioUserBackend(connector(str(path), 20.0, 20.0), "server")))
        assert not found
    path.unlink()
    with hand_server(directory):
        assert waiting.ended() is None
        found[0].close()


def test_where_nobody_listens_is_one_line(directory: Path) -> None:
    path = directory / "s"
    with pytest.raises(BackendError, match=r"there is no vfio-user server at .*/s: start one"):
        VfioUserBackend(connector(str(path), 1.0, 0.05), "server")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(path))
        with pytest.raises(BackendError, match=r"is there, but nobody listens on it \(0\.05 s were waited\)"):
            VfioUserBackend(connector(str(path), 1.0, 0.05), "server")
    path.unlink()
    path.touch()
    with pytest.raises(BackendError, match="is not a socket"):
        VfioUserBackend(connector(str(path), 1.0, 0.05), "server")


def test_precopy_of_a_server_that_cannot_say_what_is_left(directory: Path, connect: Connect) -> None:
    with hand_server(directory, device=Device(flags=5)) as server:
        device = VfioDevice("a/vfio", connect(server), "source")
        device.save_setup()
        assert device.pending() == Pending(precopy=256 << 20, guessed=True)
        room = memoryview(bytearray(100))
        assert device.iterate(room) == 10
        assert device.iterate(room) == 0
        assert device.pending() == Pending()
        device.stop()
        assert read_all(device) == b""
        device.close()
        assert server.device.state == 2
        assert server.seen[-2:] == [RESET, FEATURE]


def test_a_state_that_is_none_is_refused(directory: Path, connect: Connect) -> None:
    def lie(server: HandServer, c: socket.socket, number: int, command: int, _f: int, payload: bytes) -> bool:
        if command == FEATURE and payload[4:8] == struct.pack("=I", GET | 2):
            server.reply(c, number, command, payload[:8] + struct.pack("=II", 99, 0))
            return True
        return False

    with hand_server(directory, lie) as server, pytest.raises(BackendError, match="is in state 99, which is none"):
        connect(server).state()
