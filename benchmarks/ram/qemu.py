"""The same by QEMU's own multifd: two QEMUs without a guest that runs, so that nothing is written."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.datapath.failure import BenchmarkFailure
from benchmarks.ram.idle import PIECE, random_piece

__all__ = ["QemuPair", "qemu"]

LIMIT = 120.0


def qemu() -> str | None:
    """Where QEMU is."""
    return shutil.which("qemu-system-x86_64")


class _Monitor:
    """One QEMU and its monitor.

    Arguments:
        arguments: the program and its options.
    """

    def __init__(self, arguments: list[str]) -> None:
        self._sock, theirs = socket.socketpair()
        self._sock.settimeout(LIMIT)
        with theirs:
            options = ["-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "chardev=monitor,mode=control"]
            self._process = subprocess.Popen(
                [*arguments, *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._lines = self._sock.makefile("r")
        self._lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, arguments: Mapping[str, object] | None = None) -> dict[str, object]:
        """Execute a command."""
        self._sock.sendall(json.dumps({"execute": command, "arguments": dict(arguments or {})}).encode())
        while line := self._lines.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise BenchmarkFailure(f"QEMU, {command}: {answer['error']['desc']}")
            if "return" in answer:
                found: dict[str, object] = answer["return"]
                return found
        raise BenchmarkFailure(f"QEMU ended in {command}")

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        words = Path(f"/proc/{self._process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait(LIMIT)
        self._lines.close()
        self._sock.close()


class QemuPair:
    """Two QEMUs; a context manager.

    Arguments:
        folder: for the file that the source's memory is mapped from, best in memory itself.
        size: of the memory in bytes.
        channels: how many multifd channels.
        where: a UNIX socket to migrate over; ``None`` for TCP.
        prealloc: whether the destination's memory is there before the migration; QEMU's own default is no.
        ready: called with the size when only the migration is left to do.
        tls: a directory with the certificates of both, if they encrypt.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        channels: int,
        where: Path | None = None,
        *,
        ready: Callable[[int], None],
        prealloc: bool = False,
        tls: Path | None = None,
    ) -> None:
        self._ready = ready
        self._tls = tls
        self._prealloc = ",prealloc=on" if prealloc else ""
        self._where = where
        self._file = folder / "memory"
        with self._file.open("wb") as file:
            piece = random_piece()
            for _ in range(size // PIECE):
                file.write(piece)
        self._size = size
        self._channels = channels

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.unlink()

    def run(self) -> tuple[float, float]:
        """Migrate once; returns the seconds that QEMU says it took, without its set-up, and those of processor time.

        Raises:
            BenchmarkFailure: it did not complete.
        """
        program = qemu()
        assert program is not None
        common = [program, "-nodefaults", "-display", "none", "-accel", "tcg", "-S"]
        machine = ["-machine", "q35,memory-backend=memory", "-m", f"{self._size >> 20}M", "-object"]
        file = f"memory-backend-file,id=memory,size={self._size},mem-path={self._file},share=on,prealloc=on"
        source = _Monitor([*common, *machine, file])
        try:
            destination = _Monitor(
                [
                    *common,
                    *machine,
                    f"memory-backend-ram,id=memory,size={self._size}{self._prealloc}",
                    "-incoming",
                    "defer",
                ]
            )
            try:
                self._ready(self._size)
                before = source.cpu() + destination.cpu()
                seconds = self._migrate(source, destination)
                return seconds, source.cpu() + destination.cpu() - before
            finally:
                destination.end()
        finally:
            source.end()

    def _migrate(self, source: _Monitor, destination: _Monitor) -> float:
        for each in (source, destination):
            each.ask("migrate-set-capabilities", {"capabilities": [{"capability": "multifd", "state": True}]})
            each.ask(
                "migrate-set-parameters",
                {"multifd-channels": self._channels, "max-bandwidth": 1 << 40, "downtime-limit": 300},
            )
        if self._tls is not None:
            _encrypt(source, self._tls, "client")
            _encrypt(destination, self._tls, "server")
        address = f"unix:{self._where}" if self._where else "tcp:127.0.0.1:0"
        destination.ask("migrate-incoming", {"uri": address})
        if not self._where:
            address = _address(destination.ask("query-migrate"))
        source.ask("migrate", {"uri": address})
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            found = source.ask("query-migrate")
            if found.get("status") == "completed":
                return (int(str(found["total-time"])) - int(str(found["setup-time"]))) / 1000
            if found.get("status") in ("failed", "cancelled"):
                raise BenchmarkFailure(f"QEMU's migration {found['status']}: {found.get('error-desc', '')}")
            time.sleep(0.05)
        raise BenchmarkFailure(f"QEMU's migration has not ended within {LIMIT:g} s")


def _encrypt(qemu: _Monitor, directory: Path, endpoint: str) -> None:
    proof = {"dir": str(directory), "endpoint": endpoint, "verify-peer": True}
    qemu.ask("object-add", {"qom-type": "tls-creds-x509", "id": "tls", **proof})
    qemu.ask("migrate-set-parameters", {"tls-creds": "tls", "tls-hostname": "localhost"})


def _address(found: dict[str, object]) -> str:
    where = found["socket-address"]
    assert isinstance(where, list)
    return f"tcp:{where[0]['host']}:{where[0]['port']}"
