"""Our vfio-user server, asked by a client that is written by hand: features, states, data, and what is wrong."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import stat
import struct
from pathlib import Path

import pytest

from migpool.device import DeviceError, OptionValue
from migpool_plugins.vfio.migration import Flags, MigrationState, path
from migpool_plugins.vfio.vfiouser import port, session
from tests.support.qemu_source import wait_until_read
from tests.support.vfio.server_bench import Bench
from tests.support.vfio.vfiouser_rig import (
    DMA_MAP,
    DMA_UNMAP,
    FEATURE,
    GET,
    GET_INFO,
    PROBE,
    READ,
    RESET,
    SET,
    STATES,
    VERSION,
    WRITE,
    Gone,
)

SIZE = 256 << 10


def test_the_version_tells_what_the_server_can_do(bench: Bench) -> None:
    client = bench.one()
    assert client.capabilities == {
        "max_msg_fds": 1,
        "max_data_xfer_size": 4 << 20,
        "migration": {"pgsize": 4096},
        "migpool": {"max_write_size": 1 << 20, "sticky_errors": True, "precopy_info": True},
    }


@pytest.mark.parametrize(
    "payload",
    [b"", b"\0\0\2", struct.pack("=HH", 1, 0), struct.pack("=HH", 0, 2) + b"{", struct.pack("=HH", 0, 2) + b"[1]\0"],
    ids=["empty", "short", "major", "broken", "no object"],
)
def test_a_version_that_is_none_is_refused_and_can_be_said_again(payload: bytes, bench: Bench) -> None:
    client = bench.client(bench.serve()[0], agree=False)
    assert client.ask(VERSION, payload)[0] == errno.EINVAL
    assert client.feature(GET | 2)[0] == errno.EPROTO
    assert client.read(10)[0] == errno.EPROTO
    assert client.ask(VERSION, struct.pack("=HH", 0, 2))[0] == 0
    assert client.state == "RUNNING"


@pytest.mark.parametrize(
    ("options", "flags"), [({}, 3), ({"p2p": False}, 1), ({"precopy": True}, 7), ({"p2p": False, "precopy": True}, 5)]
)
def test_features_are_told_and_probed(options: dict[str, OptionValue], flags: int, bench: Bench) -> None:
    client = bench.one(**options)
    assert client.feature(GET | 1) == (0, struct.pack("=Q", flags))
    assert client.feature(GET | 9) == (0, struct.pack("=Q", SIZE))
    for index, settable in ((1, False), (2, True), (9, False)):
        assert client.feature(PROBE | GET | index, argsz=8)[0] == 0
        assert (client.feature(PROBE | SET | index, argsz=8)[0] == 0) is settable


@pytest.mark.parametrize(
    ("flags", "body", "argsz"),
    [
        (GET | 3, b"", 16),
        (PROBE | GET | 77, b"", 16),
        (GET | 1, b"", 15),
        (GET | 2, b"", 8),
        (GET | 2 | 1 << 20, b"", 16),
        (GET | SET | 2, struct.pack("=II", 2, 0), 16),
        (SET | 1, struct.pack("=Q", 1), 16),
        (SET | 2, b"\2\0\0\0", 16),
        (SET | 2, struct.pack("=II", 2, 0), 12),
        (2, b"", 16),
        (GET | 0xFF01, b"", 24),
    ],
)
def test_a_feature_that_is_wrong_is_refused_and_the_connection_goes_on(
    flags: int, body: bytes, argsz: int, bench: Bench
) -> None:
    client = bench.one(precopy=True)
    assert client.feature(flags, body, argsz)[0] == errno.EINVAL
    assert client.ask(FEATURE, b"\0\0\0")[0] == errno.EINVAL
    assert client.state == "RUNNING"


@pytest.mark.parametrize("flags", [1, 3, 5, 7])
def test_every_pair_of_states_is_reached_or_refused_as_the_arcs_say(flags: int, bench: Bench) -> None:
    known = Flags(flags)
    client = bench.one(p2p=Flags.P2P in known, precopy=Flags.PRE_COPY in known)
    names = [name for name in STATES if name != "ERROR"]
    for begin, end in itertools.product(names, STATES):
        assert client.ask(RESET) == (0, b"")
        if client.go(begin):
            assert path(MigrationState.RUNNING, MigrationState[begin], known) is None
            continue
        way = path(MigrationState[begin], MigrationState[end], known)
        # What has been loaded is not enough to leave RESUMING.
        refused = way is None or (begin == "RESUMING" and bool(way))
        assert client.go(end) == (errno.EINVAL if refused else 0), (begin, end)
        assert client.state == (begin if refused else end)


def test_a_state_that_nobody_knows_is_refused(bench: Bench) -> None:
    client = bench.one()
    assert client.feature(SET | 2, struct.pack("=II", 8, 0))[0] == errno.EINVAL
    assert client.state == "RUNNING"
    assert bench.told == ["0000:01:00.0/vfio: 8 is no migration state"]


@pytest.mark.parametrize("state", ["RUNNING", "STOP", "STOP_COPY", "RESUMING", "PRE_COPY"])
def test_data_moves_only_in_its_states(state: str, bench: Bench) -> None:
    client = bench.one(precopy=True, initial_size=1000)
    assert client.go(state) == 0
    assert (client.read(10)[0] == 0) is (state in ("STOP_COPY", "PRE_COPY"))
    right = bench.client(bench.serve("other")[0])
    assert right.go("STOP_COPY") == 0
    assert (client.write(right.read(10)[1]) == 0) is (state == "RESUMING")
    assert client.state == state


@pytest.mark.parametrize(
    ("command", "payload"),
    [
        (READ, struct.pack("=II", 8, 1)),
        (READ, struct.pack("=II", 8 + (2 << 20), 2 << 20)),
        (READ, b"\0" * 4),
        (READ, b"\0" * 12),
        (WRITE, struct.pack("=II", 8, 4) + b"0123"),
        (WRITE, struct.pack("=II", 20, 5) + b"0123"),
        (WRITE, b"\0" * 4),
        (99, b"what"),
        (GET_INFO, b"\0" * 8),
        (DMA_UNMAP, b""),
        (FEATURE, b"\0" * 70_000),
    ],
)
def test_sizes_that_do_not_fit_and_unknown_commands_leave_the_connection_whole(
    command: int, payload: bytes, bench: Bench
) -> None:
    client = bench.one()
    client.go("RESUMING" if command == WRITE else "STOP_COPY")
    error, answer = client.ask(command, payload)
    assert error in (errno.EINVAL, errno.ENOTSUP)
    assert answer == b""
    assert client.state in ("RESUMING", "STOP_COPY")


def test_a_read_that_wants_no_reply_gets_none_and_takes_nothing(bench: Bench) -> None:
    client = bench.one()
    client.go("STOP_COPY")
    client.send(READ, struct.pack("=II", 8 + 100, 100), flags=0x10)
    assert client.state == "STOP_COPY"  # its answer is the first that comes
    assert bench.told == ["0000:01:00.0/vfio: a read wants no reply, which is where the data would be"]
    assert len(client.read_all()) == SIZE


def test_what_is_no_message_ends_the_connection_and_the_device_stays_as_it_was(bench: Bench) -> None:
    (where,) = bench.serve()
    for header in (struct.pack("=HHIII", 1, FEATURE, 15, 0, 0), struct.pack("=HHIII", 1, FEATURE, 16, 1, 0)):
        client = bench.client(where)
        assert client.go("STOP_COPY") == 0
        client.socket.sendall(header)
        with pytest.raises(Gone):
            client.exactly(1)
        client = bench.client(where)
        assert client.state == "STOP_COPY"
        client.close()


def test_a_device_that_uses_no_guest_memory_answers_what_belongs_to_it(bench: Bench) -> None:
    client = bench.one()
    assert client.ask(DMA_MAP, b"\0" * 32) == (0, b"")
    assert client.ask(DMA_UNMAP, b"\0" * 24) == (0, b"\0" * 24)
    assert client.ask(DMA_MAP, b"\0" * 31)[0] == errno.EINVAL


@pytest.mark.parametrize("cut", [1000, 32 << 10, 100_000])
def test_state_is_saved_loaded_and_the_device_goes_on_with_it(cut: int, bench: Bench) -> None:
    source = bench.one()
    destination = bench.client(bench.serve("d")[0])
    assert source.go("STOP_COPY") == destination.go("RESUMING") == 0
    state = source.read_all()
    assert len(state) == SIZE
    assert source.read(100) == (0, b"")
    for begin in range(0, SIZE, cut):
        assert destination.go("STOP") == errno.EINVAL
        assert destination.write(state[begin : begin + cut]) == 0
    assert destination.go("RUNNING") == source.go("RUNNING") == 0
    assert destination.go("STOP_COPY") == 0
    assert hashlib.sha256(destination.read_all()).digest() == hashlib.sha256(state).digest()


def test_a_wrong_byte_fails_its_write_and_all_later_ones_even_without_replies(bench: Bench) -> None:
    source = bench.one()
    destination = bench.client(bench.serve("d")[0])
    source.go("STOP_COPY")
    destination.go("RESUMING")
    state = bytearray(source.read_all())
    state[5000] ^= 1
    for begin in (0, 4096):
        data = bytes(state[begin : begin + 4096])
        destination.send(WRITE, struct.pack("=II", 8 + len(data), len(data)) + data, flags=0x10)
    assert destination.write(bytes(state[8192:10000])) == errno.EIO
    assert destination.go("STOP") == errno.EIO
    assert bench.told[0] == "0000:01:00.0/vfio: content differs at byte 5000 of the state"


def test_initial_bytes_come_first_then_dirty_ones_and_the_rest_after_the_stop(bench: Bench) -> None:
    source = bench.one(precopy=True, initial_size=10_000, dirty_rate="1MiB")
    destination = bench.client(bench.serve("d", precopy=True)[0])
    destination.go("RESUMING")
    assert source.go("PRE_COPY") == 0
    initial, _ = struct.unpack("=QQ", source.feature(GET | 0xFF01, argsz=24)[1])
    assert initial == 10_000
    moved = source.read(10_000)[1]
    assert len(moved) == 10_000
    initial, dirty = struct.unpack("=QQ", source.feature(GET | 0xFF01, argsz=24)[1])
    assert initial == 0
    while len(moved) < 30_000:  # dirty bytes keep appearing while the device runs
        error, part = source.read(1 << 20)
        assert not error
        moved += part
    assert source.go("PRE_COPY_P2P") == 0
    quiet = [struct.unpack("=QQ", source.feature(GET | 0xFF01, argsz=24)[1]) for _ in range(2)]
    assert quiet[0] == quiet[1]
    assert source.go("STOP_COPY") == 0
    left = struct.unpack("=Q", source.feature(GET | 9)[1])[0]
    rest = source.read_all()
    assert len(rest) == left
    assert len(moved + rest) == SIZE + (len(moved) - 10_000) + quiet[0][1]
    whole = moved + rest
    for begin in range(0, len(whole), 50_000):
        assert destination.write(whole[begin : begin + 50_000]) == 0
    assert destination.go("RUNNING") == 0
    assert dirty <= SIZE


def test_several_clients_are_answered_and_one_alone_migrates(bench: Bench) -> None:
    (where,) = bench.serve()
    first, second = bench.client(where), bench.client(where)
    assert first.go("STOP_COPY") == 0
    assert second.state == "STOP_COPY"
    assert (second.go("RUNNING"), second.ask(RESET)[0], second.read(10)[0]) == (errno.EBUSY,) * 3
    assert bench.told[-3:] == ["0000:01:00.0/vfio: another client migrates the device, which is in STOP_COPY"] * 3
    state = first.read(1000)[1]
    first.close()
    assert second.state == "STOP_COPY"
    state += second.read_all()
    assert len(state) == SIZE
    assert second.go("RUNNING") == 0
    third = bench.client(where)
    assert third.go("STOP_COPY") == 0
    assert third.read_all() == state
    assert second.write(b"x") == errno.EBUSY


def test_clients_that_are_silent_block_no_other_and_are_sent_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (where,) = bench.serve()
    busy = bench.client(where)
    assert busy.go("STOP_COPY") == 0
    for word in (b"", b"\1", struct.pack("=HHIII", 1, VERSION, 20, 0, 0), struct.pack("=HHIII", 1, VERSION, 16, 0, 0)):
        silent = bench.client(where, agree=False)
        silent.socket.sendall(word)
        assert bench.client(where).state == "STOP_COPY"
    monkeypatch.setattr(port, "VERSION_LIMIT", 0.01)
    late = bench.client(where, agree=False)
    late.socket.sendall(b"\1")
    with pytest.raises((Gone, OSError)):
        late.exactly(1)
    assert bench.told[-1] == "0000:01:00.0/vfio: a client was sent away: it said no VERSION within 0.01 s"
    assert len(busy.read_all()) == SIZE


@pytest.mark.parametrize("rest", [b"", b"\x10", struct.pack("=II", 8 + 4096, 4096) + bytes(1000)])
def test_a_message_that_does_not_come_whole_ends_its_connection(
    rest: bytes, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MESSAGE_LIMIT", 0.05)
    (where,) = bench.serve()
    client = bench.client(where)
    assert client.go("RESUMING") == 0
    head = struct.pack("=HHIII", 1, WRITE, 16 + 8 + 4096, 0, 0)
    client.socket.sendall(head + rest if rest else head[:5])
    with pytest.raises((Gone, OSError)):
        client.exactly(1)
    assert bench.told == [
        "0000:01:00.0/vfio: the client's connection is ended: a message did not come whole within 0.05 s"
    ]
    assert bench.client(where).ask(RESET) == (0, b"")


def test_a_client_that_goes_away_from_a_stalled_device_frees_it_for_the_next(bench: Bench) -> None:
    (where,) = bench.serve(fault={"at": 0, "kind": "stall"})
    first = bench.client(where)
    assert first.go("STOP_COPY") == 0
    first.send(READ, struct.pack("=II", 18, 10))
    first.close()
    second = bench.client(where)
    assert second.state == "STOP_COPY"
    assert second.read(10)[0] == errno.EIO
    assert second.ask(RESET) == (0, b"")
    assert second.go("STOP_COPY") == 0
    assert len(second.read_all()) == SIZE


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_fault_is_on_its_side_only(side: str, bench: Bench) -> None:
    (where,) = bench.serve(fault={"at": 0, "kind": "error", "side": side})
    client = bench.client(where)
    right = bench.client(bench.serve("right")[0])
    right.go("STOP_COPY")
    client.go("STOP_COPY")
    assert (client.read(10)[0] == 0) is (side == "destination")
    client.ask(RESET)
    client.go("RESUMING")
    assert (client.write(right.read(10)[1]) == 0) is (side == "source")


def test_many_devices_are_served_each_with_its_own_state(bench: Bench) -> None:
    clients = [bench.client(where) for where in bench.serve("s", 4)]
    for client in clients:
        client.go("STOP_COPY")
    assert len({client.read_all() for client in clients}) == 4


def test_a_socket_that_cannot_be_made_is_one_line(bench: Bench, tmp_path: Path) -> None:
    (where,) = bench.serve()
    with pytest.raises(DeviceError, match=r"a server listens at .*/s: give another path"):
        bench.serve()
    with pytest.raises(DeviceError, match=r"no socket can be made at .*No such file"):
        bench.serve("missing/s")
    (tmp_path / "plain").touch()
    with pytest.raises(DeviceError, match="is no socket: remove it"):
        bench.serve(str(tmp_path / "plain"))
    assert Path(where).is_socket()


def test_a_socket_is_for_this_user_alone_whatever_the_umask_says(bench: Bench) -> None:
    before = os.umask(0)
    try:
        (where,) = bench.serve()
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(where).stat().st_mode) == 0o600


def test_a_short_read_is_no_fault_of_a_server(bench: Bench) -> None:
    with pytest.raises(DeviceError, match="short-read"):
        bench.serve(fault={"at": 5, "kind": "short-read"})


def test_parts_are_announced_to_who_asks_for_them_and_to_nobody_else(bench: Bench) -> None:
    client = bench.one(engines=3)
    assert "parts" not in str(client.capabilities)
    assert client.ask(0xFF01, struct.pack("=III", 4108, 4096, 0))[0] == errno.ENOTSUP
    assert client.go("STOP_COPY") == 0
    assert client.read(4096)[0] == errno.EINVAL
    assert bench.told[-1].endswith("the device gives its state as parts with tags only")
    asking = bench.client(bench.serve("t", engines=3)[0], agree=False)
    table = b'{"capabilities": {"migpool": {"parts": 9}}}\0'
    _, answer = asking.ask(VERSION, struct.pack("=HH", 0, 2) + table)
    assert b'"parts": 3' in answer
    assert asking.go("STOP_COPY") == 0
    size = struct.pack("=III", 12 + 4096, 4096, 0)
    assert asking.ask(0xFF01, size)[1][:12] == struct.pack("=III", 12 + 4096, 4096, 0)
    assert asking.ask(0xFF01, size)[1][:12] == struct.pack("=III", 12 + 4096, 4096, 1)
    assert asking.ask(0xFF01, struct.pack("=III", 12 + 10, 10, 0))[0] == errno.EINVAL
    assert asking.ask(0xFF01, b"")[0] == errno.EINVAL
    assert asking.ask(0xFF02, struct.pack("=III", 13, 1, 0) + b"x")[0] == errno.EINVAL


@pytest.mark.parametrize("engines", [0, 2])
def test_one_client_more_than_are_served_at_once_is_sent_away(engines: int, bench: Bench) -> None:
    (where,) = bench.serve(engines=engines)
    most = port.MOST_CLIENTS + engines
    clients = [bench.client(where) for _ in range(most)]
    with pytest.raises((Gone, OSError)):
        bench.client(where).ask(VERSION, b"")
    assert [client.state for client in clients] == ["RUNNING"] * most
    assert bench.told == [f"0000:01:00.0/vfio: a client was sent away: {most} are connected"]


def test_a_client_that_has_gone_takes_no_place_though_the_device_still_does_what_it_asked_for(bench: Bench) -> None:
    (where,) = bench.serve(stop_time=1.0)
    clients = [bench.client(where) for _ in range(port.MOST_CLIENTS)]
    clients[-1].send(FEATURE, struct.pack("=IIII", 16, SET | 2, STATES.index("STOP"), 0))
    wait_until_read(clients[-1].socket)
    clients[-1].close()
    assert bench.client(where).capabilities
    assert bench.told == []


def test_a_part_may_be_as_long_as_any_data(bench: Bench) -> None:
    most = 4 << 20
    clients = []
    for name in ("source", "destination"):
        client = bench.client(bench.serve(name, engines=1, size=most, chunk=most)[0], agree=False)
        table = {"capabilities": {"max_data_xfer_size": most, "migpool": {"parts": 1}}}
        client.ask(VERSION, struct.pack("=HH", 0, 2) + json.dumps(table).encode() + b"\0")
        clients.append(client)
    source, destination = clients
    assert (source.go("STOP_COPY"), destination.go("RESUMING")) == (0, 0)
    error, part = source.ask(0xFF01, struct.pack("=III", 12 + most, most, 0))
    assert (error, len(part)) == (0, 12 + most)
    assert destination.ask(0xFF02, part) == (0, b"")
    assert destination.go("RUNNING") == 0


def test_capabilities_are_json_that_ends_in_a_nul(bench: Bench) -> None:
    client = bench.client(bench.serve()[0], agree=False)
    _, answer = client.ask(VERSION, struct.pack("=HH", 0, 2))
    assert answer[:4] == struct.pack("=HH", 0, 2)
    assert answer.endswith(b"\0")
    assert set(json.loads(answer[4:-1])) == {"capabilities"}
