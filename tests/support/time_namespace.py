"""Processes whose CLOCK_MONOTONIC is another one than this process's, as that of another host would be."""

from __future__ import annotations

import socket
import subprocess
import sys
from functools import cache
from typing import Any

from migpool.device import Side
from migpool.lab.run.local_process import LocalProcess, SideProcess

OFFSET = 3
"""Seconds that it is ahead."""
AHEAD = ("unshare", "--time", f"--monotonic={OFFSET}", "--")
"""What starts a command with that clock, in a time namespace of its own; needs root."""


@cache
def possible() -> bool:
    """Whether this process may make time namespaces."""
    try:
        return subprocess.run([*AHEAD, "true"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


class AheadProcess:
    """A side's process with that clock."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*AHEAD, sys.executable, "-m", "migpool.lab.run.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def how_it_ended(self) -> str:
        return f"(exit status {self._process.wait(10)})"

    def end(self) -> None:
        self.sock.close()
        self._process.wait(30)


class HostAhead:
    """Two hosts in one: the destination's clock is ahead of the source's."""

    def start(self, side: Side) -> SideProcess:
        return LocalProcess() if side == "source" else AheadProcess()

    def told(self, side: Side) -> dict[str, Any]:
        del side
        return {"exchanges": 8}
