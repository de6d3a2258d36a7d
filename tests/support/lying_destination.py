"""A destination that loads nothing, and says what a script tells it to: when it may, too early, or never."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from migpool.core.machine import Machine
from migpool.device import Device
from migpool.errors import MigpoolError
from migpool.migration.sections import MachineSchema
from migpool.wire.commands import Command, CommandKind
from migpool.wire.stream import Eof, StreamReader

Phase = Literal["connected", "greeted", "switchover", "end"]
PHASES: tuple[Phase, ...] = ("connected", "greeted", "switchover", "end")
"""How far the source has come: it has connected, sent its PING, has begun to send what it stopped for, has sent all."""
LIMIT = 20.0
IDLE = 0.1
"""Seconds without a byte after which it gives up a source that has sent all."""


class LyingDestination:
    """Listens at a path, takes all that comes there, and answers by the script.

    Arguments:
        path: where to listen.
        devices: a machine's, of which the stream's sections are; none is loaded.
        channels: how many multifd channels the source opens.
        script: what to say in each phase, as bytes.
        patience: seconds without a byte after which it gives up a source that has more to send. Where the script may
            leave that waiting, no test has to wait for the source's limit.
    """

    def __init__(
        self,
        path: Path,
        devices: Sequence[Device],
        channels: int,
        script: Mapping[Phase, Sequence[bytes]],
        patience: float = LIMIT,
    ) -> None:
        self._patience = patience
        self._script = script
        self._channels = channels
        self._reader = StreamReader(MachineSchema(Machine("machine", devices)))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(LIMIT)
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        """Wait until the source has gone."""
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.ExitStack() as stack:
            made = [stack.enter_context(self._listener.accept()[0]) for _ in range(self._channels + 1)]
            for each in made:
                stack.callback(_end, each)
            firsts = {each: each.recv(4, socket.MSG_WAITALL) for each in made}
            main = next(each for each, first in firsts.items() if first == b"QEVM")
            for each in made:
                if each is not main:
                    self._threads.append(threading.Thread(target=_drain, args=(each,)))
                    self._threads[-1].start()
            with contextlib.suppress(OSError, MigpoolError):
                self._answer(main)
        for thread in self._threads[1:]:
            thread.join(LIMIT)

    def _answer(self, main: socket.socket) -> None:
        self._say(main, "connected")
        self._reader.feed(b"QEVM")
        main.settimeout(self._patience)
        while data := main.recv(1 << 16):
            self._reader.feed(data)
            for item in self._reader.events():
                if isinstance(item, Command) and item.kind in _BEGINS:
                    self._say(main, _BEGINS[item.kind])
                elif isinstance(item, Eof):
                    self._say(main, "end")
                    main.settimeout(IDLE)

    def _say(self, main: socket.socket, phase: Phase) -> None:
        for message in self._script.get(phase, ()):
            main.sendall(message)


_BEGINS: Mapping[CommandKind, Phase] = {
    CommandKind.PING: "greeted",
    CommandKind.SWITCHOVER_START: "switchover",
}


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(1 << 16):
            pass


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
