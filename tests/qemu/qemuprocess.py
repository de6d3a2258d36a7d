"""One QEMU process: its monitor, its serial console, and its end. Every wait has a limit."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from tests.support import ROOT

__all__ = ["LIMIT", "OLDEST", "Json", "Qemu", "QemuProcess", "WaitedTooLong", "qemu_here"]

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"

LIMIT: Final = 90.0
OLDEST: Final = 10
_PIECE: Final = 1 << 16
_TICK: Final = re.compile(rb"^tick (\d+)\r?\n", re.MULTILINE)


class WaitedTooLong(AssertionError):
    """QEMU did not do in time what was waited for."""


@dataclass(frozen=True)
class Qemu:
    """A QEMU that can be run.

    Arguments:
        command: how it is started.
        version: its version's first two numbers.
    """

    command: tuple[str, ...]
    version: tuple[int, int]

    def machine(self, family: str = "pc-q35", version: tuple[int, int] | None = None) -> str:
        """The name of a machine's type: the one that belongs to this version, or to an older one."""
        major, minor = version or self.version
        return f"{family}-{major}.{minor}"


def qemu_here() -> Qemu | None:
    """The QEMU that the environment variable QEMU names, a command, or the installed one; None if it is too old."""
    program, *rest = shlex.split(os.environ.get("QEMU", "qemu-system-x86_64"))
    # One in the checkout is that one from whatever directory.
    command = (str(ROOT / program) if "/" in program else program, *rest)
    if shutil.which(command[0]) is None:
        return None
    arguments = [*command, "--version"]
    said = subprocess.run(arguments, capture_output=True, text=True, timeout=LIMIT, check=False).stdout
    found = re.match(r"QEMU emulator version (\d+)\.(\d+)", said)
    return Qemu(command, (int(found[1]), int(found[2]))) if found and int(found[1]) >= OLDEST else None


class QemuProcess:
    """A running QEMU; leaving the context kills and reaps it.

    Arguments:
        arguments: the program and its options, without those for the monitor and the serial console.
        log: the file for what it says on stderr.
        console: what the guest has printed so far, on whichever QEMU it ran: a line may be cut by a migration.
    """

    def __init__(self, arguments: Sequence[str], log: Path, console: bytes = b"") -> None:
        self.console = console
        self._log = log
        self._replies = b""
        self._events: list[dict[str, Json]] = []
        self._times: dict[str, int] = {}
        self._monitor, monitor = socket.socketpair()
        self._serial, serial = socket.socketpair()
        with monitor, serial, log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *arguments,
                    *("-chardev", f"socket,id=monitor,fd={monitor.fileno()}", "-mon", "chardev=monitor,mode=control"),
                    *("-chardev", f"socket,id=console,fd={serial.fileno()}", "-serial", "chardev:console"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(monitor.fileno(), serial.fileno()),
            )

    def __enter__(self) -> Self:
        try:
            self._next_message(LIMIT)  # the greeting
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        self._process.wait(LIMIT)
        self._monitor.close()
        self._serial.close()

    @property
    def cpu_time(self) -> float:
        """Seconds of processor that it has taken, those of its threads that have ended, too."""
        return time.clock_gettime(~self._process.pid << 3 | 2)  # the clock of another process, CPUCLOCK_SCHED

    @property
    def stderr(self) -> str:
        """What it has said on stderr."""
        return self._log.read_text("utf-8", "replace")

    def wait_for_exit(self, limit: float = LIMIT) -> int:
        """Wait until it ends by itself, and return its exit code."""
        try:
            return self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise WaitedTooLong(f"QEMU still runs after {limit:g} s; it said: {self.stderr}") from None

    def execute(self, command: str, arguments: Mapping[str, Json] | None = None) -> Json:
        """Execute a command of the monitor and return what it returns."""
        request: dict[str, Json] = {"execute": command, "arguments": dict(arguments or {})}
        self._monitor.settimeout(LIMIT)
        self._monitor.sendall(json.dumps(request).encode())
        deadline = time.monotonic() + LIMIT
        while True:
            message = self._next_message(deadline - time.monotonic())
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise AssertionError(f"{command}: {message['error']}")
            self._events.append(message)

    def wait_for_status(self, *wanted: str, limit: float = LIMIT) -> str:
        """Wait until the migration has one of these states, and return it. The capability "events" must be on."""
        while True:
            status = str(self._wait_for_event("MIGRATION", f"become {' or '.join(wanted)}", limit)["status"])
            if status in wanted:
                return status

    def wait_for_pass(self, number: int, limit: float = LIMIT) -> None:
        """Wait until the source goes through the guest's memory for the ``number``th time."""
        while int(str(self._wait_for_event("MIGRATION_PASS", f"come to pass {number}", limit)["pass"])) < number:
            pass

    def _wait_for_event(self, name: str, what: str, limit: float) -> dict[str, Json]:
        """Wait for an event, pass over others, and return its data."""
        deadline = time.monotonic() + limit
        while True:
            while self._events:
                event = self._events.pop(0)
                if event.get("event") == name:
                    data = event["data"]
                    assert isinstance(data, dict)
                    return data
            try:
                self._events.append(self._next_message(deadline - time.monotonic()))
            except WaitedTooLong:
                raise WaitedTooLong(f"the migration did not {what} within {limit:g} s; {self.stderr}") from None

    def time_of(self, event: str) -> int:
        """When an event was that has been seen, the last one of this name; in microseconds of the host's clock."""
        return self._times[event]

    def migration(self) -> dict[str, Json]:
        """What the monitor says of the migration."""
        found = self.execute("query-migrate")
        assert isinstance(found, dict)
        return found

    def reason(self) -> str:
        """Why the migration failed, as the monitor and stderr say together: which says what differs by version."""
        return f"{self.migration().get('error-desc', '')}\n{self.stderr}"

    def running(self) -> bool:
        """Whether the guest runs here."""
        found = self.execute("query-status")
        assert isinstance(found, dict)
        return bool(found["running"])

    def ticks(self) -> list[int]:
        """The guest's ticks so far."""
        assert b"damaged" not in self.console, self.console[-400:]
        return [int(found) for found in _TICK.findall(self.console)]

    def wait_for_ticks(self, more: int, limit: float = LIMIT) -> list[int]:
        """Wait until the guest has ticked so many times more than it has until now, and return all its ticks."""
        wanted = len(self.ticks()) + more
        deadline = time.monotonic() + limit
        while len(self.ticks()) < wanted:
            self._serial.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._serial.recv(_PIECE)
            except TimeoutError:
                data = b""
            if not data:
                raise WaitedTooLong(
                    f"the guest did not tick within {limit:g} s; it printed {self.console[-800:]!r}; "
                    f"QEMU said: {self.stderr}"
                )
            self.console += data
        return self.ticks()

    def drain_console(self) -> bytes:
        """Take what the guest has printed and nobody has read, and return all that it has printed."""
        self._serial.settimeout(0)
        while True:
            try:
                data = self._serial.recv(_PIECE)
            except BlockingIOError:
                return self.console
            if not data:
                return self.console
            self.console += data

    def _next_message(self, limit: float) -> dict[str, Json]:
        deadline = time.monotonic() + limit
        while b"\n" not in self._replies:
            left = deadline - time.monotonic()
            self._monitor.settimeout(max(0.001, left))
            try:
                data = self._monitor.recv(_PIECE) if left > 0 else b""
            except TimeoutError:
                data = b""
            if not data:
                raise WaitedTooLong(f"the monitor said nothing more within {limit:g} s; QEMU said: {self.stderr}")
            self._replies += data
        line, _, self._replies = self._replies.partition(b"\n")
        message: dict[str, Json] = json.loads(line)
        if isinstance(stamp := message.get("timestamp"), dict):
            self._times[str(message["event"])] = int(str(stamp["seconds"])) * 10**6 + int(str(stamp["microseconds"]))
        return message
