"""Where a destination listens, who can reach it, and what it does with a socket that was there before."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from migpool.errors import MigpoolError, Untrusted, UsageError
from migpool.transport.address import Address
from migpool.transport.listener import PeerProcess, check_process, is_local, listen, peer_process

LIMIT = 20.0


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp:127.0.0.1:0", True),
        ("tcp:127.5.6.7:0", True),
        ("tcp:[::1]:0", True),
        ("tcp:localhost:0", True),
        ("unix:/run/x", True),
        ("tcp:0.0.0.0:0", False),
        ("tcp:[::]:0", False),
        ("tcp:192.0.2.7:0", False),
        ("tcp:[::ffff:192.0.2.7]:0", False),
        ("tcp:no.such.host.invalid:0", False),
    ],
)
def test_strangers_are_kept_out_unless_they_may_come(address: str, local: bool) -> None:
    where = Address.parse(address)
    assert is_local(where) is local
    if local:
        return
    with pytest.raises(UsageError) as caught:
        listen(where, 1)
    assert "give --tls DIR, or --insecure" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_who_may_come_can() -> None:
    listener, bound = listen(Address(host="0.0.0.0"), 1, exposed=True)
    with listener:
        assert bound.port


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
def test_a_unix_socket_lets_in_its_user_alone_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    os.umask(mask)
    path = tmp_path / "s"
    listener, bound = listen(Address(path=str(path)), 1)
    with listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    bound.unlink()


def left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()


def test_a_socket_that_a_dead_process_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    left_behind(path)
    listener, _ = listen(Address(path=str(path)), 1)
    with listener, socket.socket(socket.AF_UNIX) as source:
        source.connect(str(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_that_somebody_has_is_left_alone_and_he_does_not_notice(
    tmp_path: Path, kind: socket.SocketKind
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, kind) as theirs:
        theirs.bind(str(path))
        inode = path.stat().st_ino
        if kind != socket.SOCK_DGRAM:
            theirs.listen()
        theirs.setblocking(False)
        with pytest.raises(UsageError, match="cannot listen there: Address already in use"):
            listen(Address(path=str(path)), 1)
        assert path.stat().st_ino == inode
        with pytest.raises(BlockingIOError):
            theirs.recv(1) if kind == socket.SOCK_DGRAM else theirs.accept()


@pytest.mark.parametrize("kind", ["file", "fifo", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "s", tmp_path / "other"
    if kind == "file":
        path.write_text("kept")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        left_behind(other)
        path.symlink_to(other)
    before = path.lstat()
    with pytest.raises(UsageError, match="cannot listen there"):
        listen(Address(path=str(path)), 1)
    assert path.lstat().st_ino == before.st_ino


def test_of_many_who_find_a_dead_socket_at_once_one_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    left_behind(path)
    start = threading.Barrier(8)
    got: list[socket.socket] = []
    refused: list[str] = []

    def take() -> None:
        start.wait(LIMIT)
        try:
            got.append(listen(Address(path=str(path)), 1)[0])
        except MigpoolError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert (len(got), len(refused)) == (1, 7)
    with got[0], socket.socket(socket.AF_UNIX) as source:
        source.connect(str(path))


def test_this_user_and_root_are_taken_and_others_only_if_the_file_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket.socketpair()
    with near, far:
        found = peer_process(near)
        assert found == PeerProcess(os.getpid(), os.geteuid(), os.getegid())
        check_process(near, "the source")
        stranger = PeerProcess(4242, os.geteuid() + 1, 7)
        monkeypatch.setattr("migpool.transport.listener.peer_process", lambda _: stranger)
        with pytest.raises(Untrusted, match=f"the source is a process of user {stranger.uid}, who"):
            check_process(near, "the source", owner=os.geteuid())
        check_process(near, "the source", owner=stranger.uid)
