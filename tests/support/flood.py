"""Strangers that connect to a port and say what strangers say: ``python -m tests.support.flood PORT RATE``.

Scans, resets, garbage, slow bytes, silence, TLS, and beginnings of a source that never becomes whole. It goes on until
its standard input ends, and then prints how many connections it had, and how many found nobody who listened.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from migpool.wire.configuration import Configuration, configuration
from migpool.wire.multifd import initial_packet
from migpool.wire.stream import header

RATE: Final = 200
HELD: Final = 600
"""How many connections it has open at most."""
LIMIT: Final = 20.0
_MAIN: Final = header() + configuration(Configuration("pc-q35-10.0"))
_RESET: Final = struct.pack("ii", 1, 0)


class Way(NamedTuple):
    """What one of them does: says something at once, or a byte at a time, and goes, resets or stays."""

    says: bytes
    slowly: bool = False
    goes: bool = False
    resets: bool = False


WAYS: Final = (
    Way(b"", goes=True),
    Way(b"", resets=True),
    Way(b"GET / HTTP/1.1\r\n\r\n"),
    Way(bytes(range(256)) * 16),
    Way(_MAIN, slowly=True),
    Way(initial_packet(0), slowly=True),
    Way(b""),
    Way(bytes.fromhex("16030102000100")),
    Way(_MAIN),
    Way(_MAIN, goes=True),
    Way(initial_packet(0)),
    Way(initial_packet(1, os.urandom(16)), goes=True),
    Way(initial_packet(200)),
)


class Flood:
    """They come while this context is entered.

    Arguments:
        port: of 127.0.0.1.
        rate: connections a second.
    """

    def __init__(self, port: int, rate: int = RATE) -> None:
        self._command = [sys.executable, "-m", "tests.support.flood", str(port), str(rate)]
        self.connected = self.refused = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            told, _ = self._process.communicate(timeout=LIMIT)
        finally:
            self._process.kill()
            self._process.wait(LIMIT)
        self.connected, self.refused = map(int, told.split())


class Migrations(NamedTuple):
    """What came of several in a row.

    Arguments:
        downtimes: of each, in milliseconds.
        connected: how many strangers were connected meanwhile.
    """

    downtimes: list[float]
    connected: int


def migrate(count: int, model: str, scratch: Path, *, rate: int = RATE) -> Migrations:
    """Migrate the scenario ``small`` so many times over one port, with strangers at it from before until after.

    Arguments:
        model: the threading model.
        scratch: a directory for the result and the destination's log.
        rate: how many strangers come a second; 0: none.

    Raises:
        AssertionError: not all have completed.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command, result, log = [sys.executable, "-m", "migpool"], scratch / "result.json", scratch / "log"
    more = ["--count", str(count), "--model"]
    where = f"tcp:127.0.0.1:{port}"
    with log.open("w") as noted, Flood(port, rate) if rate else contextlib.nullcontext() as flood:
        destination = subprocess.Popen(
            [*command, "receive", "small", "--listen", where, *more, model], stdout=subprocess.DEVNULL, stderr=noted
        )
        try:
            sent = subprocess.run(
                [*command, "send", "small", "--to", where, *more, model.split("+")[0], "--json", str(result)],
                capture_output=True,
                text=True,
                timeout=5 * count + 60,
                check=False,
            )
            assert sent.returncode == 0, f"{sent.stderr[-2000:]} at the destination: {log.read_text()[-4000:]}"
            assert destination.wait(60) == 0, log.read_text()[-2000:]
        finally:
            destination.kill()
            destination.wait(LIMIT)
    runs = json.loads(result.read_text())["runs"]
    assert [run["outcome"] for run in runs] == ["completed"] * count
    return Migrations([run["downtime_ms"] for run in runs], flood.connected if flood else 0)


def main() -> None:
    """Connect until the standard input ends."""
    port, rate = int(sys.argv[1]), int(sys.argv[2])
    held: deque[tuple[socket.socket, memoryview]] = deque()
    connected = refused = 0
    begun = time.monotonic()
    for number, way in enumerate(itertools.cycle(WAYS), 1):
        wait = max(0.0, begun + number / rate - time.monotonic())
        if select.select([sys.stdin], [], [], wait)[0]:
            break
        try:
            sock = socket.create_connection(("127.0.0.1", port), LIMIT)
        except OSError:
            refused += 1
        else:
            connected += 1
            held.append((sock, _begin(sock, way)))
        for _ in range(min(len(held), HELD // rate + 1)):
            sock, rest = held.popleft()
            if rest is not None and len(held) < HELD:
                held.append((sock, _go_on(sock, rest)))
            else:
                sock.close()
    for sock, _ in held:
        sock.close()
    sys.stdout.write(f"{connected} {refused}\n")


def _begin(sock: socket.socket, way: Way) -> memoryview:
    """Say it; what is left to be said."""
    sock.setblocking(False)
    said = memoryview(way.says)
    left = said[1:] if way.slowly else said[:0]
    _go_on(sock, said[: len(said) - len(left)], whole=True)
    if way.resets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    if way.goes or way.resets:
        sock.close()
    return left


def _go_on(sock: socket.socket, rest: memoryview, *, whole: bool = False) -> memoryview:
    if rest and sock.fileno() >= 0:
        try:
            sock.send(rest if whole else rest[:1])
        except OSError:
            sock.close()
    return rest[1:]


if __name__ == "__main__":
    main()
