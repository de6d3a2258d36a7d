"""A Dask cluster of this host: a scheduler and workers as processes of their own, to be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

LIMIT = 90.0


class DaskCluster:
    """Processes by name; what is left at the end is killed.

    Arguments:
        folder: for what they say.
    """

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def scheduler(self) -> None:
        self._start("scheduler", ["scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"])
        deadline = time.monotonic() + LIMIT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return
            assert time.monotonic() < deadline, self.said("scheduler")
            time.sleep(0.1)

    def worker(self, name: str, *options: str, before: Sequence[str] = ()) -> None:
        """Start one. ``before``: a command that starts it."""
        arguments = [
            "worker",
            self.address,
            "--name",
            name,
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            *options,
        ]
        self._start(name, arguments, before)

    def wait_for_workers(self, *names: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not all("Registered to" in self.said(name) for name in names):
            assert time.monotonic() < deadline, [self.said(name) for name in names]
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(LIMIT)

    def said(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def _start(self, name: str, arguments: Sequence[str], before: Sequence[str] = ()) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [*before, sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(self._folder)},
                start_new_session=True,
            )

    def end(self) -> None:
        for name in list(self._processes):
            self.kill(name)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[DaskCluster]:
    """A cluster with a scheduler, and no worker yet."""
    made = DaskCluster(folder)
    try:
        made.scheduler()
        yield made
    finally:
        made.end()
