"""The process of one side, on this host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import Final, Protocol

from migpool.schedulers.host_threads import HostThreads

PATIENCE: Final = 5.0
"""Seconds between asking and telling, and between telling and killing."""
LAST_WORDS: Final = 3
"""Lines of what a process printed before it broke that are repeated."""


class SideProcess(Protocol):
    """A process that runs one side, wherever that is; see :mod:`migpool.lab.run.child`.

    Attributes:
        sock: this end of the connection to it. Its other end closes when the process has ended, however it ended.
    """

    sock: socket.socket

    def how_it_ended(self) -> str:
        """After the connection's end: with what status, and its last words; empty if it has not ended."""

    def end(self) -> None:
        """See that it is gone, and everything of it."""


class LocalProcess:
    """A process of this host, started; the leader of a session of its own.

    Arguments:
        network: a descriptor of the network namespace that it is to enter; ``None``: it stays in this one.
        offset: with that, how many seconds its clock is to be ahead.
        threads: those that the migrations of its host have together.
    """

    def __init__(self, network: int | None = None, offset: float = 0.0, threads: HostThreads | None = None) -> None:
        place = [] if network is None else [network]
        arguments = [str(network), str(offset)] if place else []
        with ExitStack() as undo:
            self.sock, theirs = socket.socketpair()
            undo.enter_context(self.sock)
            self._printed = undo.enter_context(tempfile.TemporaryFile())
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "migpool.lab.run.child", str(theirs.fileno()), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=self._printed,
                    stderr=self._printed,
                    pass_fds=(theirs.fileno(), *place, *((threads.reading, threads.writing) if threads else ())),
                    env={**os.environ, **threads.environment()} if threads else None,
                    start_new_session=True,
                )
            undo.pop_all()

    def how_it_ended(self) -> str:
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return ""
        how = f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
        self._printed.seek(0)
        lines = self._printed.read().decode(errors="replace").split("\n")
        last = " | ".join([line.strip() for line in lines if line.strip()][-LAST_WORDS:])
        return f"({how})" + (f": {last}" if last else "")

    def end(self) -> None:
        # To the process the end of the connection is its parent's end: it cancels in order what it still does.
        with self._printed:
            for tell in (self.sock.close, self._process.terminate, self._process.kill):
                tell()
                try:
                    self._process.wait(PATIENCE)
                    break
                except subprocess.TimeoutExpired:
                    continue
