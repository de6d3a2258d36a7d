"""Migrations between two of our ends over TLS: they complete, and whoever is not trusted is told so at both ends."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from migpool.core.cancel import CancelSwitch
from migpool.core.machine import Machine
from migpool.errors import MigpoolError, PeerError, PeerGone, TimeLimitExceeded, UsageError
from migpool.migration.completion import Completion
from migpool.migration.report import SideReport
from migpool.migration.return_path import ReturnPath
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.transport.address import Address
from migpool.transport.credentials import credentials
from migpool.transport.sockets import read_exactly
from migpool.transport.tls import TlsSocket, readable, shake_hands
from migpool.wire.returnpath import Running, Shut, encode
from tests.support.certificates import LIMIT_AT, Certificates, fill, trusted
from tests.support.pool_gates import until
from tests.support.rig import KIB, LIMIT, Pair, Scripted, contents

PLAIN = Settings(channels=2, chunk=16 * KIB, budget=256 * KIB, peer_limit=20, connect_limit=10)
TCP = Address(host="127.0.0.1")
CANARY = b"the canary that nobody may see!!"


def migrated(
    folder: Path,
    source: Path | None,
    destination: Path | None,
    *,
    listen: Address | None = None,
    hostname: str = "",
    channels: int = 2,
    through: Callable[[Address], Address] | None = None,
    state: bytes = contents(300 * KIB),
    refused: Callable[[], object] = lambda: None,
) -> tuple[SideReport, SideReport, Scripted]:
    settings = replace(PLAIN, channels=channels)
    loaded = Scripted(1)
    pair = Pair(
        [Scripted(1, state)],
        [loaded],
        replace(settings, tls=str(source or ""), tls_hostname=hostname),
        replace(settings, tls=str(destination or "")),
        listen=listen,
        through=through,
    )
    pair.prepare(folder)
    sent = pair.sender.run(through(pair.where) if through else pair.where)
    if sent.outcome is State.FAILED:
        refused()  # the destination waits for another one
        pair.to.cancel()
    return sent, pair.ended(), loaded


@pytest.mark.parametrize("listen", [None, TCP], ids=["unix", "tcp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_machine_moves(tmp_path: Path, certificates: Certificates, listen: Address | None, channels: int) -> None:
    state = contents(300 * KIB)
    sent, received, loaded = migrated(
        tmp_path, certificates.good, certificates.good, listen=listen, channels=channels, state=state
    )
    assert (sent.outcome, sent.error) == (State.COMPLETED, "")
    assert (received.outcome, received.error) == (State.COMPLETED, "")
    assert bytes(loaded.got) == state


def test_a_name_is_checked_as_it_was_given(tmp_path: Path, certificates: Certificates) -> None:
    sent, _, _ = migrated(tmp_path, certificates.good, certificates.good, hostname="named.example")
    assert sent.outcome is State.COMPLETED


UNTRUSTED = {
    "another authority": ("stranger", "good", "", "self-signed certificate", "does not trust this end"),
    "expired": ("old", "old", "", "certificate has expired", "does not trust this end"),
    "another name": ("good", "good", "other.example", "other.example", "does not trust this end"),
    "a source of another authority": ("client_of_stranger", "good", "", "does not trust this end", "not accepted"),
    "a source that has expired": ("client_old", "trusts_old", "", "does not trust this end", "certificate has expired"),
    "a plain destination": ("good", "", "", "it may not use TLS", "it is TLS (16 03): give --tls here, too"),
    "a plain source": ("", "good", "", "give --tls here, too", "does not use TLS"),
}


@pytest.mark.parametrize("listen", [None, TCP], ids=["unix", "tcp"])
@pytest.mark.parametrize("case", UNTRUSTED)
def test_both_ends_say_why_in_one_line_and_nothing_is_loaded(
    tmp_path: Path,
    certificates: Certificates,
    case: str,
    listen: Address | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, destination, hostname, at_source, at_destination = UNTRUSTED[case]
    sent, received, loaded = migrated(
        tmp_path,
        getattr(certificates, source, None),
        getattr(certificates, destination, None),
        hostname=hostname,
        listen=listen,
        refused=lambda: until(lambda: at_destination in caplog.text),
    )
    assert (sent.outcome, received.outcome) == (State.FAILED, State.CANCELLED)
    assert at_source in sent.error
    assert "\n" not in sent.error
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert not loaded.got


def test_a_plain_source_that_looks_too_late_hears_it_on_its_return_path() -> None:
    """All was sent to a destination with TLS before that had read a byte."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(bytes.fromhex("15030300020246"))
        theirs.close()
        path = ReturnPath(ours, CancelSwitch(), LIMIT, lambda *_: False, lambda: "", 0, extension=True)
        path.listen()
        assert "give --tls here, too" in str(path.reason(0))


def test_no_byte_of_the_state_is_on_the_wire_in_clear(tmp_path: Path, certificates: Certificates) -> None:
    for directory, seen in ((None, True), (certificates.good, False)):
        wire = bytearray()
        with Tap(wire) as tap:
            sent, _, _ = migrated(tmp_path, directory, directory, listen=TCP, through=tap.before, state=CANARY * 2000)
        assert sent.outcome is State.COMPLETED, sent.error
        assert (CANARY in wire) is seen


class Tap:
    """Stands in a connection's way and keeps what passes; may cut it after so many bytes from the source."""

    def __init__(self, wire: bytearray) -> None:
        self._wire = wire
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = [self._listener]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        for sock in self._sockets:
            sock.close()

    def before(self, address: Address) -> Address:
        """An address before this one."""
        self._start(self._accept, address)
        return Address(host="127.0.0.1", port=self._listener.getsockname()[1])

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=run, args=arguments))
        self._threads[-1].start()

    def _accept(self, address: Address) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection((address.host, address.port))
            self._sockets += near, far
            self._start(self._pass, near, far)
            self._start(self._pass, far, near)

    def _pass(self, origin: socket.socket, target: socket.socket) -> None:
        try:
            while data := origin.recv(1 << 16):
                self._wire += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            target.close()


# ---------------------------------------------------------------------- one connection


def never() -> None:
    raise AssertionError("nothing to wait for")


def test_a_channel_that_is_cut_is_an_error_and_one_that_is_ended_is_not(certificates: Certificates) -> None:
    for cut in (False, True):
        client, server = trusted(certificates)
        with client, server:
            client.sendmsg([b"all of it"])
            if cut:
                with socket.socket(fileno=os.dup(client.fileno())) as bare:
                    bare.shutdown(socket.SHUT_WR)
            else:
                client.shutdown(socket.SHUT_WR)
            buffer = bytearray(20)
            if cut:
                with pytest.raises(PeerGone, match="was cut: the source has not said that it ends"):
                    read_exactly(server, buffer, 20, never)
            else:
                assert read_exactly(server, buffer, 20, never) == 9
            assert buffer[:9] == b"all of it"


@pytest.mark.parametrize("tcp", [*[False] * 8, True])
def test_an_end_is_said_behind_full_buffers(certificates: Certificates, *, tcp: bool) -> None:
    """Eight times, since it is only lost if the other end has not begun to read."""
    client, server = trusted(certificates, tcp=tcp)
    with client, server:
        sent, got = fill(client, server)
        client.settimeout(LIMIT)
        thread = threading.Thread(target=client.shutdown, args=(socket.SHUT_WR,))
        thread.start()
        rest = bytearray(sent - got + 1)
        assert read_exactly(server, rest, len(rest), lambda: None) == sent - got
        thread.join(LIMIT)


def test_what_comes_behind_our_own_end_is_read(certificates: Certificates) -> None:
    client, server = trusted(certificates)
    with client, server:
        server.sendmsg([b"before"])
        server.sendmsg([b"waits in memory"])
        assert client.recv(6) == b"before"
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        server.sendmsg([b", comes later"])
        buffer = bytearray(28)
        assert read_exactly(client, buffer, 28, never) == 28
        assert buffer == b"waits in memory, comes later"


def test_what_was_kept_while_a_refusal_was_looked_for_is_read_first(certificates: Certificates) -> None:
    client, server = trusted(certificates)
    with client, server:
        server.sendmsg([b"first"])
        client.look()
        server.sendmsg([b", then"])
        buffer = bytearray(11)
        assert read_exactly(client, buffer, 11, never) == 11
        assert buffer == b"first, then"


def test_a_peer_that_talks_on_does_not_keep_an_end_from_being_said(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = trusted(certificates)
    with client, server:
        said: list[int] = []

        def more(_sock: TlsSocket, size: int) -> bytes:
            said.append(size)
            assert sum(said) < 4 << 20, "all that comes is kept"
            return bytes(size)

        monkeypatch.setattr(TlsSocket, "read", more)
        client.shutdown(socket.SHUT_WR)
        monkeypatch.undo()
        assert said
        assert server.recv(1) == b""


@pytest.mark.parametrize("blocking", [True, False])
def test_every_byte_arrives_once_and_in_order_whatever_the_buffers(certificates: Certificates, blocking: bool) -> None:
    sizes = [0, 1, 288, 4096, 16384, 16385, 65536, 65537, 300_000, 5]
    data = [contents(size, size) for size in sizes]
    whole = b"".join(data)
    client, server = trusted(certificates)
    got = bytearray(len(whole))
    with client, server:
        client.setblocking(blocking)
        thread = threading.Thread(target=read_exactly, args=(server, got, len(whole), lambda: None))
        thread.start()
        rest = [memoryview(piece) for piece in data]
        while rest:
            try:
                sent = client.sendmsg(rest)
            except BlockingIOError:
                assert not blocking
                continue
            while rest and sent >= len(rest[0]):
                sent -= len(rest.pop(0))
            if sent:
                rest[0] = rest[0][sent:]
        thread.join(LIMIT)
    assert got == whole


def test_a_changed_byte_is_an_error(certificates: Certificates) -> None:
    client, server = trusted(certificates)
    with client, server:
        with socket.socket(fileno=os.dup(client.fileno())) as bare:
            bare.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(MigpoolError, match="TLS with the source failed"):
            server.recv(1)


def test_a_handshake_that_nobody_goes_on_with_has_an_end(certificates: Certificates) -> None:
    ours = credentials(str(certificates.good), "client")
    assert ours is not None
    near, far = socket.socketpair()
    with near, far, pytest.raises(TimeLimitExceeded, match="has not ended the TLS handshake within 1 s"):
        ours.connected(near, Address(path="x"), 0.0, 1, lambda: None)


@pytest.mark.parametrize("late", ["client", "server"])
def test_who_speaks_just_when_it_is_listened_for_uses_tls_all_the_same(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """What came between the look for it and the handshake was gone, and what follows it is no beginning."""
    ours, theirs = credentials(str(certificates.good), "client"), credentials(str(certificates.good), "server")
    assert ours is not None
    assert theirs is not None
    near, far = socket.socketpair()
    client = TlsSocket.on(near, ours.context, server=False, name="localhost", peer="the destination")
    socks = {"client": client, "server": theirs.accepted(far)}
    listener = socks["server" if late == "client" else "client"]
    other = threading.Thread(target=shake_hands, args=(socks[late], LIMIT_AT, LIMIT, lambda: None))
    handshake = TlsSocket.do_handshake

    def interrupted(sock: TlsSocket) -> None:
        if sock is listener and not sock.server_side and other.ident is None:
            with contextlib.suppress(ssl.SSLWantReadError):
                handshake(sock)  # says hello
        if sock is listener and other.ident is None:
            other.start()
            until(lambda: readable(sock))
        handshake(sock)

    monkeypatch.setattr(TlsSocket, "do_handshake", interrupted)
    with client, socks["server"]:
        over = listener.shake_hands()
        if other.ident is None:
            other.start()
        if not over:
            shake_hands(listener, LIMIT_AT, LIMIT, lambda: None)
        other.join(LIMIT)
        assert all(sock.version() == "TLSv1.3" for sock in socks.values())


def test_a_source_without_a_certificate_is_told_so(certificates: Certificates) -> None:
    theirs = credentials(str(certificates.good), "server")
    assert theirs is not None
    near, far = socket.socketpair()
    server = theirs.accepted(far)
    context = ssl.create_default_context(cafile=str(certificates.good / "ca-cert.pem"))
    heard: list[str] = []

    def connect() -> None:
        try:
            with context.wrap_socket(near, server_hostname="localhost") as client:
                client.recv(1)
        except ssl.SSLError as error:
            heard.append(str(error.reason))

    thread = threading.Thread(target=connect)
    thread.start()
    with server, pytest.raises(MigpoolError, match="the source has shown no certificate"):
        shake_hands(server, LIMIT_AT, LIMIT, lambda: None)
    thread.join(LIMIT)
    assert heard == ["TLSV13_ALERT_CERTIFICATE_REQUIRED"]


@pytest.mark.parametrize("how", ["ended", "cut", "answered"])
def test_a_destination_that_was_cut_off_has_not_answered_whether_the_machine_runs_there(
    certificates: Certificates, how: str
) -> None:
    client, server = trusted(certificates)
    refused: list[str] = []
    with client, server:
        switch = CancelSwitch()
        heard = ReturnPath(client, switch, 1, lambda *_: True, lambda: "", 0, extension=True)
        heard.expect_running()
        completion = Completion(Machine("m", []), heard, lambda: None, credited=True, limit=LIMIT, sent=0, round_trip=0)
        if how == "answered":
            server.sendmsg([encode(Running(bytes(16), 1)), encode(Shut(0))])
        if how == "cut":
            with socket.socket(fileno=os.dup(server.fileno())) as bare:
                bare.shutdown(socket.SHUT_WR)
        else:
            server.shutdown(socket.SHUT_WR)
        heard.listen()
        if how == "answered":
            assert completion.running(lambda: None, never)[1] == "return-path"
        else:
            with pytest.raises(
                PeerError, match="has not said before its connection was cut" if how == "cut" else "closed"
            ):
                completion.running(lambda: None, lambda: refused.append("refused"))
    assert refused == (["refused"] if how == "ended" else [])


# ---------------------------------------------------------------------- directories


def test_each_end_needs_its_own_pair_alone(certificates: Certificates, tmp_path: Path) -> None:
    for end in ("client", "server"):
        for name in ("ca-cert.pem", f"{end}-cert.pem", f"{end}-key.pem"):
            (tmp_path / name).write_bytes((certificates.good / name).read_bytes())
    assert credentials(str(tmp_path), "client") is not None
    (tmp_path / "client-key.pem").unlink()
    assert credentials(str(tmp_path), "server") is not None
    with pytest.raises(UsageError, match=r"client-key\.pem is missing, by which this end proves who it is"):
        credentials(str(tmp_path), "client")
    (tmp_path / "server-cert.pem").write_text("none")
    with pytest.raises(UsageError, match=r"server-cert\.pem cannot be used"):
        credentials(str(tmp_path), "server")
    (tmp_path / "keys.psk").write_text("qemu:00")
    with pytest.raises(UsageError, match="found both of them"):
        credentials(str(tmp_path), "server")


def test_a_directory_without_any_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it must hold ca-cert\.pem or keys\.psk, found neither"):
        credentials(str(tmp_path), "client")


@pytest.mark.parametrize("text", ["", "qemu", "qemu:xyz", "qemu:00", ":" + "00" * 32])
def test_a_key_file_that_is_none_is_told_of(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.psk").write_text(text)
    with pytest.raises(UsageError, match=r"keys\.psk"):
        credentials(str(tmp_path), "client")


PSK = hasattr(ssl.SSLContext, "set_psk_client_callback")


@pytest.mark.skipif(PSK, reason="this Python can")
def test_a_shared_key_needs_a_newer_python(tmp_path: Path) -> None:
    (tmp_path / "keys.psk").write_text("qemu:" + "5a" * 32)
    with pytest.raises(UsageError, match=r"a shared key needs Python 3\.13 or later"):
        credentials(str(tmp_path), "client")


@pytest.mark.skipif(not PSK, reason="needs Python 3.13 or later")
def test_who_has_the_key_is_trusted_and_who_has_another_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, key in (("good", "5a"), ("other", "a5")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys.psk").write_text(f"qemu:{key * 32}\n")
    sent, received, _ = migrated(tmp_path, tmp_path / "good", tmp_path / "good")
    assert (sent.error, received.error) == ("", "")
    sent, received, loaded = migrated(
        tmp_path,
        tmp_path / "other",
        tmp_path / "good",
        refused=lambda: until(lambda: "TLS with the source failed" in caplog.text),
    )
    assert (sent.outcome, received.outcome) == (State.FAILED, State.CANCELLED)
    assert "does not trust this end" in sent.error
    assert not loaded.got
