"""The process that forks what :mod:`tests.support.forking` asks for: ``tests.support.forkserver NAME FD``.

It listens at the abstract UNIX address NAME, until FD ends. A connection is a process::

    who starts it                            the server
    what it is to be, with descriptors ----> forks
                                       <---- {"pid": ...}
                                       <---- {"status": ...}, as waitpid has it, when it is dead
    shuts down                         ----> takes the dead process away, which was a zombie until now
                                       <---- closes
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

from migpool.conformance.devices import migrating
from tests.support.amounts import LESS, change, touch_fewer_pages
from tests.support.forking import MARK, MOST_BYTES, MOST_DESCRIPTORS, Fork, name_of

IMPORTED: Final = (
    *("email.parser", "gzip", "importlib.readers", "numpy", "rich._emoji_codes"),
    *("migpool.cli.app", "migpool.cli.oneside", "migpool.cli.runs"),
    *(f"migpool.cli.commands.{name}" for name in ("conformance", "plugins", "run", "send")),
    *(f"migpool.schedulers.{name}" for name in ("blocking_aware", "inline", "poll", "pool", "receiver")),
    "migpool.conformance.course",
    *(f"migpool_plugins.{name}.device" for name in ("guest", "vcpu", "vfio", "vmsd")),
    *("migpool_plugins.vfio.emulated", "migpool_plugins.vfio.server", "migpool_plugins.vfio.vfiouser.backend"),
)
"""What most of the forked will need, and no test minds; nothing that runs as a program."""


@dataclass
class Process:
    """One that was forked. ``asked``: the connection to who wanted it; ``dead``: a descriptor that is readable then."""

    pid: int
    asked: socket.socket
    dead: int


class Server:
    """Forks; see the top of this file. ``serve`` returns in each process that was forked, with its request."""

    def __init__(self, name: str, lifeline: int) -> None:
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(f"\0{name}")
        self._listening.listen(64)
        self._lifeline = lifeline
        self._selector = selectors.DefaultSelector()
        self._processes: list[Process] = []

    def serve(self) -> dict[str, Any] | None:
        """Fork until the lifeline ends.

        Returns:
            In the server ``None``, at the end; in what was forked what it is to be.
        """
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._lifeline, selectors.EVENT_READ)
        os.write(self._lifeline, b"1")
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listening:
                    if (request := self._fork()) is not None:
                        return request
                elif key.fileobj == self._lifeline:
                    return None
                elif key.fd == key.data.dead:
                    self._tell_the_end(key.data)
                else:
                    self._take_away(key.data)

    def _fork(self) -> dict[str, Any] | None:
        asked, _ = self._listening.accept()
        message, received, _, _ = socket.recv_fds(asked, MOST_BYTES, MOST_DESCRIPTORS)
        request: dict[str, Any] = json.loads(message)
        pid = os.fork()
        if pid == 0:
            asked.detach()
            self._forget()
            take_descriptors(received, request["descriptors"])
            return request
        for number in received:
            os.close(number)
        process = Process(pid, asked, os.pidfd_open(pid))
        self._processes.append(process)
        asked.send(json.dumps({"pid": pid}).encode())
        self._selector.register(process.dead, selectors.EVENT_READ, process)
        return None

    def _tell_the_end(self, process: Process) -> None:
        """Tell how it ended; it stays a zombie until that was heard, as any child of who asked for it would."""
        self._selector.unregister(process.dead)
        how = os.waitid(os.P_PIDFD, process.dead, os.WEXITED | os.WNOWAIT)
        assert how is not None
        killed = how.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
        try:
            process.asked.send(json.dumps({"status": how.si_status if killed else how.si_status << 8}).encode())
        except OSError:
            self._take_away(process)
        else:
            self._selector.register(process.asked, selectors.EVENT_READ, process)

    def _take_away(self, process: Process) -> None:
        if process.asked in self._selector.get_map():
            self._selector.unregister(process.asked)
        os.waitpid(process.pid, 0)
        process.asked.close()
        os.close(process.dead)
        self._processes.remove(process)

    def _forget(self) -> None:
        """In what was forked: what is the server's is not closed when it is collected, since numbers come again."""
        self._listening.detach()
        for process in self._processes:
            process.asked.detach()
        self._selector.close()


def take_descriptors(received: list[int], wanted: list[int]) -> None:
    """Have the descriptors ``received`` at the numbers ``wanted``, and no other one."""
    high = 1 + max(*received, *wanted, *(int(entry.name) for entry in Path("/proc/self/fd").iterdir()))
    kept = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, high) for number in received]
    os.closerange(0, high)
    for number, target in zip(kept, wanted, strict=True):
        os.dup2(number, target)
        os.close(number)


def become(request: dict[str, Any], path: list[str]) -> None:
    """Be the process that was asked for, but for its program. ``path``: where Python looks besides ``PYTHONPATH``."""
    if request["session"]:
        os.setsid()
    if request["group"] != -1:
        os.setpgid(0, request["group"])
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if mark := os.environ.get(MARK):
        Path("/proc/self/comm").write_text(name_of(mark))
    if LESS in os.environ:
        change(partial(setattr, migrating), FAILED=(0,))  # the second call of each method fails where the tests run
    sys.argv[1:] = request["program"][2:]
    sys.path[:] = [request["directory"], *search_path(), *path]
    importlib.invalidate_caches()
    sys.stdin = sys.__stdin__ = standard(0, "rb")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = standard(1, "wb")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = standard(2, "wb")  # type: ignore[misc]


def standard(number: int, mode: Literal["rb", "wb"]) -> io.TextIOWrapper:
    """One of the three files that Python opens when it starts."""
    raw = open(number, mode, closefd=False)  # noqa: SIM115 -- it stays open
    errors = "backslashreplace" if number == 2 else "strict"
    return io.TextIOWrapper(raw, "utf-8", errors, line_buffering=number == 2 or os.isatty(number))


def search_path() -> list[str]:
    return [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def run(how: str, program: str) -> int:
    """Run the program; returns its exit status."""
    try:
        if how == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(program, {"__name__": "__main__"})
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)  # noqa: T201
        return 1
    except BaseException:  # noqa: BLE001 -- as Python does with any
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def leave(status: int) -> NoReturn:
    """End as Python does, but leave the memory as it is: to free each object would copy all that is the server's."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()  # noqa: SLF001
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            file.flush()
    os._exit(status)


def main() -> None:
    path = sys.path[1 + len(search_path()) :]
    name, lifeline = sys.argv[1], int(sys.argv[2])
    for module in IMPORTED:
        importlib.import_module(module)
    Fork.address = f"\0{name}"
    subprocess.Popen = Fork  # type: ignore[misc]
    touch_fewer_pages()
    gc.collect()
    gc.freeze()
    request = Server(name, lifeline).serve()
    if request is not None:
        become(request, path)
        leave(run(*request["program"][:2]))


if __name__ == "__main__":
    main()
