"""A QEMU's monitor as a test wants it: a server of its own, which logs what a real QEMU has logged."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.commandline import Command, started
from tests.support.qemu_logs import lines_of, real

NAMES = ("vmstate_downtime_checkpoint", "vmstate_downtime_load", "migration_bitmap_sync_end", "handle_qmp_command")


@dataclass(eq=False)
class FakeQemu:
    """What the monitor answers; while it is entered, it serves one client after the other.

    Arguments:
        real: the log that a migration appends to what is logged.
        state: "running" or "inmigrate".
        timed: whether what it logs has times.
        traces: whether what it traces comes to its log.
        version: its first two numbers.
        ends: the status with which its migration ends; empty: it does not end.
        mute: it takes connections and says nothing.
        peer: loads what this one sends.
        on: which tracepoints are on.
        asked: the commands that came.
        quiet: it tells of nothing by itself.
    """

    path: Path
    real: Path
    state: str = "running"
    timed: bool = True
    traces: bool = True
    version: tuple[int, int] = (10, 0)
    ends: str = "completed"
    mute: bool = False
    log: Path | None = None
    on: set[str] = field(default_factory=set)
    capabilities: dict[str, bool] = field(default_factory=lambda: {"events": False, "multifd": False})
    asked: list[tuple[str, Any]] = field(default_factory=list)
    quiet: bool = False
    dies_at: str = ""
    migration: dict[str, Any] = field(default_factory=dict)
    peer: FakeQemu | None = None
    _streams: list[Any] = field(default_factory=list)
    _clients: list[socket.socket] = field(default_factory=list)
    _speaks: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def serving(self) -> Iterator[FakeQemu]:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(self.path))
            server.listen()
            thread = threading.Thread(target=self._serve, args=(server,))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown(socket.SHUT_RDWR)
                thread.join(10)

    def _serve(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                with client, client.makefile("rwb") as stream, contextlib.suppress(ConnectionError, BrokenPipeError):
                    if not self.mute:
                        major, minor = self.version
                        version = {"qemu": {"major": major, "minor": minor, "micro": 2}, "package": ""}
                        self._say(stream, {"QMP": {"version": version, "capabilities": []}})
                    self._streams.append(stream)
                    self._clients = [client]
                    try:
                        for request in _requests(client):
                            if request["execute"] == self.dies_at:
                                break
                            answer = self._answer(request["execute"], request.get("arguments", {}))
                            self._say(stream, {**answer, "id": request["id"]} if "id" in request else answer)
                    finally:
                        self._streams.remove(stream)

    def _say(self, stream: Any, message: dict[str, Any]) -> None:
        with self._speaks:
            stream.write(json.dumps(message).encode() + b"\n")
            stream.flush()

    def tell(self, event: str, **data: Any) -> None:
        """Tell whoever listens, by itself."""
        said = {"event": event, "data": data, "timestamp": {"seconds": 1700000000, "microseconds": 0}}
        for stream in [] if self.quiet else list(self._streams):
            self._say(stream, said)

    def _answer(self, command: str, said: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((command, said))
        if "handle_qmp_command" in self.on:
            self._trace(f"handle_qmp_command mon 0x1 req: {command}")
        match command:
            case "query-status":
                return {"return": {"status": self.state, "running": self.state == "running"}}
            case "query-migrate":
                return {"return": self.migration}
            case "query-migrate-capabilities":
                rows = [{"capability": name, "state": state} for name, state in self.capabilities.items()]
                return {"return": rows}
            case "query-migrate-parameters":
                return {"return": {"downtime-limit": 300, "multifd-channels": 2, "tls-creds": ""}}
            case "migrate-set-capabilities":
                for row in said["capabilities"]:
                    self.capabilities[row["capability"]] = row["state"]
            case "trace-event-get-state":
                names = fnmatch.filter(NAMES, said["name"])
                return {
                    "return": [{"name": one, "state": "enabled" if one in self.on else "disabled"} for one in names]
                }
            case "trace-event-set-state":
                names = fnmatch.filter(NAMES, said["name"])
                self.on = self.on | set(names) if said["enable"] else self.on - set(names)
            case "human-monitor-command":
                found = re.fullmatch(r'logfile "(.*)"', said["command-line"])
                assert found
                self.log = Path(found[1])
                return {"return": ""}
            case "migrate":
                self.migrate()
            case _:
                pass
        return {"return": {}}

    def hang_up(self) -> None:
        """End as a QEMU does that is killed."""
        for client in self._clients:
            client.shutdown(socket.SHUT_RDWR)

    def migrate(self) -> None:
        """What a migration leaves behind."""
        if "vmstate_downtime_checkpoint" in self.on and self.log is not None:
            with self.log.open("a") as file:
                file.writelines(f"{line}\n" for line in lines_of(self.real))
        self.migration = {"status": self.ends or "active", "downtime": 41, "ram": {"transferred": 1 << 20, "mbps": 8.0}}
        if self.peer is not None:
            self.peer.migrate()
        if self.ends == "failed":
            self.migration["error-desc"] = "the link\nwent away"
        if self.capabilities["events"]:
            self.tell("MIGRATION", status=self.migration["status"])

    def _trace(self, event: str) -> None:
        if self.traces and self.log is not None:
            with self.log.open("a") as file:
                file.write(f"1@1700000000.000000:{event}\n" if self.timed else f"{event}\n")


def _requests(client: socket.socket) -> Iterator[dict[str, Any]]:
    """What a client says: objects one after the other, with nothing that must stand between them."""
    said, decoder = "", json.JSONDecoder()
    while data := client.recv(1 << 16):
        said += data.decode()
        with contextlib.suppress(json.JSONDecodeError):
            while said := said.lstrip():
                request, end = decoder.raw_decode(said)
                said = said[end:]
                yield request


@contextlib.contextmanager
def observing(source: Path, destination: Path) -> Iterator[Command]:
    """The command, once it waits for a migration."""
    with started("observe", "--source", str(source), "--destination", str(destination)) as command:
        command.complained_of("waiting for the migration to begin")
        yield command


@contextlib.contextmanager
def fake_pair(source: Path, destination: Path) -> Iterator[tuple[FakeQemu, FakeQemu]]:
    """The monitors of a source and of a destination that loads what the source sends."""
    ours, theirs = real("checkpoints-alone")
    first, second = FakeQemu(source, ours), FakeQemu(destination, theirs, state="inmigrate")
    first.peer = second
    with first.serving(), second.serving():
        yield first, second
