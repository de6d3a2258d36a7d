"""Makes the streams of machines with real QEMUs, and has real QEMUs load them. Every wait has a limit."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.qemu.matrix.pairs import MIDDLE, NEW, OLD, Machine

ROOT: Final = Path(__file__).parents[3]
WORK: Final = ROOT / "build" / "qemu-matrix"
LIMIT: Final = 40.0
PROGRAMS: Final[Mapping[str, Sequence[str]]] = {
    OLD: [str(ROOT / "build/debian/in-bookworm"), "qemu-system-x86_64"],
    MIDDLE: ["qemu-system-x86_64"],
    NEW: [str(ROOT / "build/debian/in-sid"), "qemu-system-x86_64"],
}
"""How each release is started: what tests/qemu/matrix/setup brings."""
_FIRMWARE_TIME: Final = 2.5
_CRASHES: Final = 3
"""How often a QEMU is tried that crashes: now and then 7.2 does, at its end."""
_NOISE: Final = re.compile(r"warning:|^\s*$|deprecated|^info:")
_PROGRAM: Final = re.compile(r"^qemu-system-x86_64: ")


@dataclass(frozen=True)
class Outcome:
    """What a QEMU did with a stream.

    Arguments:
        loads: it took the stream.
        message: why not, the first thing it said.
    """

    loads: bool
    message: str


class Failed(Exception):
    """A QEMU did not do what was asked for."""


class Crashed(Failed):
    """A QEMU was ended by a signal, and has said nothing: which is no answer."""


class Qemu:
    """A running QEMU with a monitor on its standard input and output; leaving the context ends it."""

    def __init__(self, machine: Machine, more: Sequence[str] = ()) -> None:
        files = {"bios": 64, "bios128": 128, "rom64": 64, "rom128": 128, "disk": 1024, "disk2": 2048}
        arguments = [
            each.format(**{name: make_file(name, size) for name, size in files.items()}) for each in machine.arguments
        ]
        self._process = subprocess.Popen(
            [*PROGRAMS[machine.release], *arguments, "-qmp", "stdio", *more],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._said = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate(timeout=LIMIT)

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Execute a command of the monitor.

        Raises:
            Failed: it was refused, or the QEMU has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(
                json.dumps({"execute": command, "arguments": dict(arguments or {})}).encode() + b"\n"
            )
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self.message()) from None
        while True:
            reply = self._reply()
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise Failed(f"{command}: {reply['error']['desc']}")

    def message(self) -> str:
        """The first thing that it said on stderr, once it has ended."""
        try:
            _, said = self._process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise Failed("QEMU neither answers nor ends") from None
        lines = [
            _PROGRAM.sub("", line) for line in said.decode("utf-8", "replace").splitlines() if not _NOISE.search(line)
        ]
        if not lines and self._process.returncode < 0:
            raise Crashed(f"QEMU was ended by signal {-self._process.returncode}")
        return lines[0] if lines else f"exit code {self._process.returncode}"

    def wait_for_migration(self) -> str:
        """Wait until the migration has ended, and return its status."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            found = self.execute("query-migrate")
            assert isinstance(found, dict)
            if found.get("status") in ("completed", "failed"):
                return str(found["status"])
            time.sleep(0.02)
        raise Failed(f"the migration did not end within {LIMIT:g} s")

    def _reply(self) -> dict[str, dict[str, str]]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + LIMIT
        while b"\n" not in self._said:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise Failed(f"the monitor said nothing within {LIMIT:g} s")
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise Failed(self.message())
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        found: dict[str, dict[str, str]] = json.loads(line)
        return found


def make_file(name: str, kibibytes: int) -> Path:
    """A firmware that jumps to itself, a ROM, or an empty disk."""
    path = WORK / f"{name}.img"
    if not path.exists():
        content = bytearray(kibibytes << 10)
        if name.startswith("bios"):
            content[-16:-14] = b"\xeb\xfe"
        if name.startswith("rom"):
            content[:3] = bytes((0x55, 0xAA, min(kibibytes * 2, 255)))
        WORK.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def stream_of(machine: Machine) -> Path:
    """The machine's stream; made once.

    Raises:
        Failed: no such machine can be made or saved.
    """
    path = WORK / f"{sha256(repr(machine).encode()).hexdigest()[:16]}.mig"
    if path.exists():
        return path
    new = path.with_suffix(f".{threading.get_ident()}")
    with Qemu(machine) as qemu:
        qemu.execute("qmp_capabilities")
        if machine.runs:
            qemu.execute("cont")
            time.sleep(_FIRMWARE_TIME)
            qemu.execute("stop")
        _set(qemu, machine)
        qemu.execute("migrate", {"uri": f"exec:cat > {new}"})
        if qemu.wait_for_migration() != "completed":
            raise Failed(f"the machine cannot be saved: {qemu.execute('query-migrate')}")
    new.rename(path)
    return path


def load(stream: Path, machine: Machine) -> Outcome:
    """Have a machine load a stream.

    Raises:
        Failed: the machine cannot be started, or does not end, or crashes again and again.
    """
    for _ in range(_CRASHES):
        try:
            return _load(stream, machine)
        except Crashed as error:
            crashed = error
    raise crashed


def _load(stream: Path, machine: Machine) -> Outcome:
    with Qemu(machine, ["-incoming", "defer"]) as qemu:
        qemu.execute("qmp_capabilities")
        _set(qemu, machine)
        try:
            qemu.execute("migrate-incoming", {"uri": f"exec:cat {stream}"})
            status = qemu.wait_for_migration()
        except Crashed:
            raise
        except Failed as failed:
            return Outcome(False, str(failed))
        return Outcome(status == "completed", "" if status == "completed" else qemu.message())


def _set(qemu: Qemu, machine: Machine) -> None:
    if machine.capabilities:
        chosen = [{"capability": name, "state": True} for name in machine.capabilities]
        qemu.execute("migrate-set-capabilities", {"capabilities": chosen})
