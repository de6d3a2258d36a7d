"""What TLS costs, and what Python's own TLS socket would: ``python -m benchmarks.tls``.

One process sends chunks of 1 MiB with their headers over TCP on loopback, another receives them into one buffer: in
turns in clear, with migpool's sockets, with these when the kernel does not encrypt (the same, where it cannot), and
with ``ssl.SSLSocket``. Ratios are taken within a round, so that whatever else the machine does falls on all.
"""

from __future__ import annotations

import argparse
import mmap
import os
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from migpool.transport.address import Address
from migpool.transport.authority import new_authority
from migpool.transport.credentials import credentials
from migpool.transport.sockets import prepare, read_exactly, send_all
from migpool.transport.tls import KERNEL_TLS, shake_hands
from migpool.units import MIB, format_rate

__all__ = ["compare"]

CHUNK = 1 << 20
HEADER = 288
LIMIT = 30.0
WAYS = ("clear", "migpool", "OpenSSL", "SSLSocket")


def transfer(way: str, directory: str, chunks: int) -> tuple[float, float, float]:
    """Send and receive; returns the seconds that it took, and those of CPU of the sender and of the receiver."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if not child:
            try:
                _send(way, directory, listener.getsockname(), chunks)
            finally:
                os._exit(0)
        sock = listener.accept()[0]
    try:
        with _accepted(way, directory, sock) as ready:
            wall, received = _receive(ready, chunks)
    finally:
        used = os.wait4(child, 0)[2]
    return wall, used.ru_utime + used.ru_stime, received


def _send(way: str, directory: str, where: tuple[str, int], chunks: int) -> None:
    sock = socket.create_connection(where)
    client = credentials(directory, "client")
    assert client is not None
    if way != "migpool":
        client.context.options &= ~KERNEL_TLS
    if way in ("migpool", "OpenSSL"):
        sock = client.connected(sock, Address(*where), time.monotonic() + LIMIT, LIMIT, lambda: None)
    elif way == "SSLSocket":
        client.context.sslsocket_class = ssl.SSLSocket
        sock = client.context.wrap_socket(sock, server_hostname="localhost")
    prepare(sock, limit=LIMIT, tick=0.5)
    header, payload = bytes(HEADER), memoryview(mmap.mmap(-1, CHUNK))
    payload[:] = os.urandom(CHUNK)
    for _ in range(chunks):
        if way == "SSLSocket":
            sock.sendall(header)
            sock.sendall(payload)
        else:
            send_all(sock, [header, payload], "chunk")
    sock.close()


def _accepted(way: str, directory: str, sock: socket.socket) -> socket.socket:
    server = credentials(directory, "server")
    assert server is not None
    if way in ("migpool", "OpenSSL"):
        made = server.accepted(sock)
        shake_hands(made, time.monotonic() + LIMIT, LIMIT, lambda: None)
        sock = made
    elif way == "SSLSocket":
        server.context.sslsocket_class = ssl.SSLSocket
        sock = server.context.wrap_socket(sock, server_side=True)
    prepare(sock, limit=LIMIT, tick=0.5)
    return sock


def _receive(sock: socket.socket, chunks: int) -> tuple[float, float]:
    header, payload = memoryview(bytearray(HEADER)), memoryview(mmap.mmap(-1, CHUNK))
    read: Callable[[memoryview, int], object]
    read = lambda view, size: read_exactly(sock, view, size, lambda: None)  # noqa: E731
    if isinstance(sock, ssl.SSLSocket):
        read = lambda view, size: _by_hand(sock, view, size)  # noqa: E731
    began, cpu = time.monotonic(), time.thread_time()
    for _ in range(chunks):
        read(header, HEADER)
        read(payload, CHUNK)
    return time.monotonic() - began, time.thread_time() - cpu


def _by_hand(sock: socket.socket, view: memoryview, size: int) -> None:
    got = 0
    while got < size:
        more = sock.recv_into(view[got:], size - got)
        if not more:
            raise EOFError
        got += more


def compare(rounds: int, chunks: int) -> list[str]:
    """Measure all ways in turns; a line for each."""
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        directory = str(Path(scratch) / "pki")
        new_authority(Path(directory), [], 1)
        assert threading.active_count() == 1, "this process forks"
        for number in range(rounds):
            for way in WAYS if number % 2 else reversed(WAYS):
                found[way].append(transfer(way, directory, chunks))
    lines = []
    for way, times in found.items():
        rate = statistics.median(chunks / wall for wall, *_ in times)
        sender, receiver = (statistics.median(each[end] / chunks * 1024 for each in times) for end in (1, 2))
        ratio = statistics.median(clear[0] / mine[0] for clear, mine in zip(found["clear"], times, strict=True))
        spent = f"CPU a GiB: {sender:.2f} and {receiver:.2f} s"
        lines.append(f"{way:10} {format_rate(rate * MIB):>12}, {ratio:.2f} of clear; {spent}")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tls", description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=7, help="runs of each, in turns (default: 7)")
    parser.add_argument("mib", type=int, nargs="?", default=512, help="chunks of 1 MiB a run (default: 512)")
    chosen = parser.parse_args()
    sys.stdout.write("\n".join(compare(chosen.rounds, chosen.mib)) + "\n")


if __name__ == "__main__":
    main()
