"""Commands of migpool that start at once: each is forked from a process that has imported everything already.

Most of what a process of migpool takes is the start of Python and its imports. Here ``subprocess.Popen`` of
``[sys.executable, "-m", MODULE, ...]``, for a module of ``RUNS``, is a fork of the server in
``tests.support.forkserver``, and so is the device process of the vfio plug-in: in the process of the tests, and in all
that were forked. It is a process like any other, with the session, environment, directory and descriptors that were
asked for, with signals, memory and threads of its own, and may be killed. Only how Python itself starts and ends is not
tested so: :func:`as_a_user_does` has it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from migpool_plugins.vfio.client import _BOOT
from tests.support import ROOT

RUNS: Final = (
    *("migpool", "migpool.lab.run.child", "migpool.lab.run.link.keeper", "migpool.conformance.child"),
    "tests.support.guestend",
)
"""What is started so, as ``python -m`` has it."""
SET_AFTERWARDS: Final = ("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
"""Variables of Python's that a process may still be given once Python runs; with others it is not forked."""
MARK: Final = "MIGPOOL_TEST_MARK"
"""A variable by which a process and all that come from it are found; see :func:`name_of`."""
PIPES: Final = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
BEYOND: Final = ("executable", "preexec_fn", "shell", "uid", "gid", "gids")
NEEDED: Final = {*PIPES, *BEYOND, "args", "pass_fds", "cwd", "env", "start_new_session", "umask", "process_group"}
"""What ``Popen`` calls what it is asked for, within itself; a Python that has other names there does not fork."""
MOST_DESCRIPTORS: Final = 16
MOST_BYTES: Final = 1 << 17

STARTING: Final = threading.Lock()
"""Held by who starts the server: several threads may find that there is none."""

PYTHON: Final = sys.executable
RealPopen: Final = subprocess.Popen


class Fork(subprocess.Popen[Any]):
    """A ``Popen`` whose process the server forks, if it is one of ``RUNS``.

    The server, whose child the process is, says how it ended; all else is as ever.

    Attributes:
        address: the server's; empty for none.
        start: called when nobody listens there.
        inherited: the environment in which the server was started.
        forked: whether this process is a fork.
    """

    address = ""
    start: Callable[[], None] | None = None
    inherited: Mapping[str, str] = {}
    _server: socket.socket | None = None

    @property
    def forked(self) -> bool:
        return self._server is not None

    def _execute_child(self, *given: Any) -> None:
        names = RealPopen._execute_child.__code__.co_varnames[1:]  # type: ignore[attr-defined]  # noqa: SLF001
        asked = dict(zip(names, given, strict=False))
        if not self.address or not asked.keys() >= NEEDED or not forkable(asked):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        pipes = [asked[name] for name in PIPES]
        kept = list(asked["pass_fds"])
        request = {
            "program": program_of(asked["args"]),
            "environment": dict(os.environ if asked["env"] is None else asked["env"]),
            "directory": os.fspath(asked["cwd"] or Path.cwd()),
            "session": asked["start_new_session"],
            "group": asked["process_group"],
            "descriptors": [0, 1, 2, *kept],
        }
        standard = [pipe if pipe != -1 else at for at, pipe in enumerate((pipes[0], pipes[3], pipes[5]))]
        try:
            server = self._connect()
        except ConnectionRefusedError:  # from a network namespace of its own, where nobody listens
            super()._execute_child(*given)  # type: ignore[misc]
            return
        try:
            socket.send_fds(server, [json.dumps(request).encode()], [*standard, *kept])
            self.pid = json.loads(server.recv(MOST_BYTES))["pid"]
        except BaseException:
            server.close()
            raise
        self._server, self._hearing = server, threading.Lock()
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _connect(self) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            try:
                server.connect(self.address)
            except ConnectionRefusedError:
                if (start := type(self).start) is None:
                    raise
                with STARTING:
                    start()
                server.connect(self.address)
        except BaseException:
            server.close()
            raise
        return server

    def poll(self) -> int | None:
        if self._server is None:
            return super().poll()
        self._hear(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self._server is None:
            return super().wait(timeout)
        self._hear(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def _hear(self, timeout: float | None) -> None:
        """Take what the server says of the end, if it comes in time."""
        assert self._server is not None
        with self._hearing:
            if self.returncode is None and select.select([self._server], [], [], timeout)[0]:
                told = self._server.recv(MOST_BYTES)
                self._server.shutdown(socket.SHUT_WR)
                self._server.recv(1)  # the end: the zombie is gone
                self._server.close()
                self.returncode = os.waitstatus_to_exitcode(json.loads(told)["status"])


def forkable(asked: Mapping[str, Any]) -> bool:
    """Whether a process needs nothing that only a start of Python can give it."""
    if program_of(asked["args"]) is None:
        return False
    environment = os.environ if asked["env"] is None else asked["env"]
    for_python = {name for name in {*environment, *Fork.inherited} if name.startswith("PYTHON")}
    return (
        not any(asked[name] for name in BEYOND)
        and asked["umask"] == -1
        and all(environment.get(name) == Fork.inherited.get(name) for name in for_python.difference(SET_AFTERWARDS))
        and len(asked["pass_fds"]) + 3 <= MOST_DESCRIPTORS
    )


def program_of(arguments: object) -> list[str] | None:
    """``["-m", MODULE, ...]`` or ``["-c", CODE, ...]`` if that is what these arguments start, and it may be forked."""
    match arguments:
        case [python, "-m", module, *more] if python == PYTHON and module in RUNS:
            return ["-m", module, *map(str, more)]
        case [python, "-I", "-S", "-c", code, *more] if python == PYTHON and code == _BOOT:
            return ["-c", code, *map(str, more)]
    return None


def name_of(mark: str) -> str:
    """What a forked process with a mark is called in ``/proc/PID/comm``; its environment in there is the server's."""
    return mark[:15]


@contextlib.contextmanager
def as_a_user_does() -> Iterator[None]:
    """Here processes are started as a user does: Python, from nothing; and so is what they start."""
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, Fork, "address", Fork.address)
        Fork.address = ""
        yield


class Forkserver:
    """The server for this process, started when the first fork is wanted. Close it.

    Where the server's own file is left out, as in the guest of the kernel's tests, processes are started as ever.
    """

    def __init__(self) -> None:
        # The server lives as long as the other end is open.
        self._ours, self._theirs = socket.socketpair()
        self._process: subprocess.Popen[bytes] | None = None
        if find_spec("tests.support.forkserver") is None:
            return
        Fork.address = f"\0migpool-tests-{os.getpid()}"
        Fork.inherited = dict(os.environ)
        Fork.start = self._start
        subprocess.Popen = Fork  # type: ignore[misc]

    @property
    def pid(self) -> int:
        """0 while there is none."""
        return self._process.pid if self._process else 0

    def _start(self) -> None:
        if self._process is not None:
            return
        number = self._theirs.fileno()
        self._process = RealPopen(
            [sys.executable, "-m", "tests.support.forkserver", Fork.address[1:], str(number)],
            stdin=subprocess.DEVNULL,
            env={**Fork.inherited, "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=(number,),
            cwd=ROOT,
            start_new_session=True,
        )
        self._theirs.close()
        assert self._ours.recv(1) == b"1", "the server of forks has not begun"

    def close(self) -> None:
        subprocess.Popen = RealPopen  # type: ignore[misc]
        Fork.address, Fork.start = "", None
        self._ours.close()
        self._theirs.close()
        if self._process:
            self._process.wait(10)
