"""Directories with certificates: good ones, and one for each way in which they can be wrong; a connection by them."""

from __future__ import annotations

import datetime
import shutil
import socket
import threading
from pathlib import Path
from typing import Final

from migpool.transport.address import Address
from migpool.transport.authority import new_authority
from migpool.transport.credentials import credentials
from migpool.transport.sockets import prepare
from migpool.transport.tls import TlsSocket, shake_hands

__all__ = ["LIMIT_AT", "Certificates", "fill", "trusted"]

LIMIT: Final = 60.0
LIMIT_AT: Final = float("inf")


class Certificates:
    """Made once, below a directory.

    Attributes:
        good: both ends trust each other.
        stranger: those of another authority.
        old: expired yesterday.
        client_of_stranger, client_old: good, but for the source's own certificate.
        trusts_old: good for a destination, which trusts the authority of ``client_old``.
    """

    def __init__(self, directory: Path) -> None:
        now = datetime.datetime.now(datetime.UTC)
        self.good, self.stranger, self.old = (directory / name for name in ("good", "stranger", "old"))
        new_authority(self.good, ["named.example"], 1)
        new_authority(self.stranger, [], 1)
        new_authority(self.old, [], 1, now - datetime.timedelta(days=2))
        self.client_of_stranger = self._mixed(directory / "client-of-stranger", self.stranger)
        self.client_old = self._mixed(directory / "client-old", self.old)
        self.trusts_old = self._mixed(directory / "trusts-old", self.old, "ca-cert.pem")

    def _mixed(self, directory: Path, other: Path, *names: str) -> Path:
        shutil.copytree(self.good, directory)
        for name in names or ("client-cert.pem", "client-key.pem"):
            shutil.copy(other / name, directory / name)
        return directory


def trusted(certificates: Certificates, *, tcp: bool = False) -> tuple[TlsSocket, TlsSocket]:
    """Both ends of a connection, the client's first; over a UNIX socket, or over TCP."""
    near, far = _connected() if tcp else socket.socketpair()
    theirs = credentials(str(certificates.good), "server")
    ours = credentials(str(certificates.good), "client")
    assert theirs is not None
    assert ours is not None
    server = theirs.accepted(far)
    thread = threading.Thread(target=shake_hands, args=(server, LIMIT_AT, LIMIT, lambda: None))
    thread.start()
    client = ours.connected(near, Address(path="x"), LIMIT_AT, LIMIT, lambda: None)
    thread.join(LIMIT)
    for sock in (client, server):
        prepare(sock, limit=LIMIT, tick=0.05)
    return client, server


def fill(client: TlsSocket, server: TlsSocket) -> tuple[int, int]:
    """Send until there is no room, and read so much that no piece is left half; how much was sent, and read."""
    piece, sent, got = bytes(10_000), 0, 0
    client.settimeout(0)
    full = False
    while not full:
        try:
            sent += client.sendmsg([piece])
        except BlockingIOError:
            full = True
    while full:
        got += len(server.recv(len(piece)))
        try:
            sent += client.sendmsg([piece])
            full = False
        except BlockingIOError:
            pass
    return sent, got


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname()[:2])
        return near, listener.accept()[0]
