"""The real command line in a process of its own, and everything below it in sight."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from migpool.cli import main
from tests.support import ROOT
from tests.support.forking import MARK, name_of

LIMIT = 90.0


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Command:
    """``migpool`` with arguments, started.

    It and every process below it, however orphaned, carry a mark in their environment, or in their name.
    """

    def __init__(self, *arguments: str, extra: Mapping[str, str] | None = None, limit: float = LIMIT) -> None:
        self._mark = uuid.uuid4().hex
        self._limit = limit
        self._files = contextlib.ExitStack()
        self._out = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- by close()
        self._err = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- by close()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "migpool", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={**os.environ, "COLUMNS": "", MARK: self._mark, **(extra or {})},
            start_new_session=True,
        )

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """What the terminal does on Ctrl-C: the signal goes to the whole foreground process group."""
        os.killpg(self.process.pid, number)

    def alive(self) -> list[int]:
        """The ids of this process and all that came from it, and still run."""
        found = []
        with_mark = (f"{MARK}={self._mark}".encode(), f"{name_of(self._mark)}\n")
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        return sorted(pid for pid in found if _carries(pid, *with_mark))

    def wait(self) -> Ended:
        """Its end, within the limit."""
        code = self.process.wait(self._limit)
        return Ended(code, self.printed(), self.complained())

    def printed(self) -> str:
        return _text(self._out)

    def complained(self) -> str:
        return _text(self._err)

    def threads_and_descriptors(self) -> tuple[int, int]:
        """How many of each it has now."""
        own = Path(f"/proc/{self.process.pid}")
        return len(list((own / "task").iterdir())), len(list((own / "fd").iterdir()))

    def all_gone(self, limit: float = 10.0) -> bool:
        """Whether nothing that came from it runs any more; what ends by itself is given a moment."""
        deadline = time.monotonic() + limit
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def complained_of(self, text: str, *, times: int = 1) -> str:
        """Wait until stderr has so many lines with ``text``, and return the last of them."""
        return self._awaited(self.complained, text, times)

    def printed_of(self, text: str, *, times: int = 1) -> str:
        """The same of stdout."""
        return self._awaited(self.printed, text, times)

    def _awaited(self, said: Callable[[], str], text: str, times: int) -> str:
        deadline = time.monotonic() + self._limit
        while True:
            lines = [line for line in said().splitlines() if text in line]
            if len(lines) >= times:
                return lines[times - 1]
            assert self.process.poll() is None, f"it ended first: {self.complained()}"
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.complained()}"
            time.sleep(0.02)

    def close(self) -> None:
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(self._limit)
        self._files.close()


def _carries(pid: int, variable: bytes, name: str) -> bool:
    """Whether a process runs, not as a zombie, that has the variable in its environment or is called so."""
    entry = Path(f"/proc/{pid}")
    try:
        if (entry / "comm").read_text() == name:
            return (entry / "statm").read_text().split()[0] != "0"
        return variable in (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _text(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), 1 << 24, 0).decode()


@contextlib.contextmanager
def started(*arguments: str, extra: Mapping[str, str] | None = None) -> Iterator[Command]:
    """A command that is running; whatever is left of it is killed at the end."""
    command = Command(*arguments, extra=extra)
    try:
        yield command
    finally:
        command.close()


def migpool(*arguments: str, extra: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end, and see that nothing is left of it."""
    with started(*arguments, extra=extra) as command:
        ended = command.wait()
        assert command.all_gone()
        return ended


def here(*arguments: str, extra: Mapping[str, str] | None = None) -> Ended:
    """Run a command in this very process, which is faster; what it starts, it starts with ``extra`` in the environment.

    Handlers of signals are as they were afterwards. A test of what a signal does needs a process of its own.
    """
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["migpool", *arguments])
        for name, value in {"COLUMNS": "", **(extra or {})}.items():
            patch.setenv(name, value)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        else:
            raise AssertionError("a command ends with an exit code")
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Ended(code, out.getvalue(), err.getvalue())


class Fifo:
    """A named pipe that a holding device writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        # For writing too: so that opening does not wait, and the end of a writer is no end of the pipe.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def holds(self) -> tuple[str, int]:
        """Wait until a device holds; returns its side and process id."""
        readable, _, _ = select.select([self._fd], [], [], LIMIT)
        assert readable, "no device held"
        side, pid = os.read(self._fd, 100).decode().splitlines()[0].split()
        return side, int(pid)

    def close(self) -> None:
        os.close(self._fd)


def announced(directory: Path, name: str, entry_points: str) -> str:
    """Announce a package in a directory for ``sys.path``, as an installer would; returns a ``PYTHONPATH``."""
    info = directory / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    return os.pathsep.join([str(directory), str(ROOT)])


RING_SCENARIO = """
name = "third-party"

[[devices]]
plugin = "ringnic"
count = 3
options = {ring = 300000}

[channels]
count = 2
transport = "unix"

[memory]
budget = "256KiB"
chunk = "64KiB"
"""
"""Devices of the example's package."""


def scenario_file(path: Path, devices: Sequence[str], tables: str = "") -> str:
    """Write a scenario of some ``[[devices]]`` tables."""
    entries = "\n".join(f"[[devices]]\n{device}\n" for device in devices)
    path.write_text(f'name = "test"\n{entries}\n{tables}\n')
    return str(path)


@dataclass(frozen=True)
class Holding:
    """A scenario with a device that holds still."""

    scenario: str
    fifo: Fifo
    environment: dict[str, str]


MakeHolding = Callable[..., Holding]
