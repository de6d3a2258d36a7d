"""What a peer says that means harm: to whoever connects to it, and to whoever listens."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

from migpool.wire.returnpath import Digest, Failed, GrantMessage, Pong, Running, Shut, SwitchoverAck, Welcome, encode

GARBAGE = random.Random(1).randbytes(1 << 16)
RESET = struct.pack("ii", 1, 0)
PAUSE = 0.02
LIMIT = 60.0
Attack = Callable[[socket.socket], object]


def says(*words: bytes) -> Attack:
    """Says it at once, and then nothing."""
    return lambda sock: sock.sendall(b"".join(words))


def slowly(word: bytes) -> Attack:
    """Says it a byte at a time."""

    def say(sock: socket.socket) -> None:
        for number in range(len(word)):
            sock.sendall(word[number : number + 1])
            time.sleep(PAUSE)

    return say


def again_and_again(word: bytes) -> Attack:
    """Says it without an end."""

    def say(sock: socket.socket) -> None:
        for _ in itertools.count():
            sock.sendall(word)

    return say


def grants_more(sock: socket.socket) -> None:
    """Grants one chunk more with each message, without an end."""
    for limit in itertools.count(1):
        sock.sendall(encode(GrantMessage(0, limit)))


def resets(sock: socket.socket) -> None:
    """Goes without an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def ends(sock: socket.socket) -> None:
    """Says nothing, and hears nothing any more."""
    sock.shutdown(socket.SHUT_RDWR)


ATTACKS: Mapping[str, Attack] = {
    "silence": says(),
    "an end": ends,
    "a reset": resets,
    "garbage": says(GARBAGE),
    "a web server": says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    "slow bytes": slowly(GARBAGE),
    "a flood": again_and_again(GARBAGE),
    "a flood of zeros": again_and_again(bytes(1 << 16)),
    "TLS": says(bytes.fromhex("160303007a020000760303") + GARBAGE[:100]),
    "an alert": says(bytes.fromhex("15030300020228")),
    "an early end": says(encode(Shut(0))),
    "an early start": says(
        encode(Pong(1)), encode(Welcome(1 << 16, 2)), encode(Running(bytes(16), 9)), encode(Shut(0))
    ),
    "digests of nothing": says(*(encode(Digest(place, bytes(32))) for place in range(40))),
    "grants of everything": says(encode(Pong(1)), *(encode(GrantMessage(place, (1 << 32) - 1)) for place in range(40))),
    "grants that rise": grants_more,
    "acknowledgements": again_and_again(encode(SwitchoverAck())),
    "answers that nobody asked for": again_and_again(encode(Pong(77))),
    "terms of no size": says(encode(Pong(1)), struct.pack(">HHII", 0x4D01, 8, 0, 0)),
    "a long message": says(struct.pack(">HH", 1, 0xFFFF), bytes(0xFFFF)),
    "escape sequences": says(encode(Failed("\x1b[2J\x1b]0;owned\x07 gone")), encode(Shut(1))),
}
"""Those that a destination, a server of vfio-user or a monitor may make, against whoever connects to it."""


class Hostile:
    """Listens at a path, and does one thing to whoever connects, be it several times. A context manager."""

    def __init__(self, path: Path, attack: Attack) -> None:
        self._attack = attack
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._made: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._over = False

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(LIMIT)
        for sock in self._made:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        for sock in (*self._made, self._listener):
            sock.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while not self._over:
                sock, _ = self._listener.accept()
                self._made.append(sock)
                for action in (self._attack, _drain):
                    self._threads.append(threading.Thread(target=_act, args=(action, sock)))
                    self._threads[-1].start()


def _act(action: Attack, sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        action(sock)


def _drain(sock: socket.socket) -> None:
    while sock.recv(1 << 16):
        pass


@contextlib.contextmanager
def besieged(path: Path, words: Mapping[str, bytes], each: int = 2) -> Iterator[None]:
    """Strangers connect to a listener again and again, and say each of these: at once, slowly, and then go or stay."""
    over = threading.Event()
    every = [word for word in words.values() for _ in range(each)]
    threads = [threading.Thread(target=_besiege, args=(path, word, over)) for word in every]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(LIMIT)
            assert not thread.is_alive()


def _besiege(path: Path, word: bytes, over: threading.Event) -> None:
    for number in itertools.count():
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.settimeout(PAUSE)
            sock.connect(str(path))
            if number % 2:
                sock.sendall(word)
            else:
                for at in range(min(len(word), 20)):
                    sock.sendall(word[at : at + 1])
                    if over.wait(PAUSE / 10):
                        return
            sock.recv(1)
        if over.wait(PAUSE):
            return
