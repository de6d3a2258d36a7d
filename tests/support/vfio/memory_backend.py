"""A VFIO device that is a few variables, follows the table of arcs, and fails where it is told to."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.migration import READABLE, Flags, MigrationState, path, states_with

M = MigrationState


@dataclass
class MemoryBackend:
    """A device with ``content`` to save, the first ``initial`` bytes of it before it stops.

    What goes wrong: ``failing`` names requests that fail ("read", "write", "state", "reset" ...) and states that
    cannot be reached; ``half_way`` is a state at which a walk over several arcs ends with an error. ``judges`` lets
    the device refuse to leave RESUMING until it has that many bytes.
    """

    flags: Flags = Flags.STOP_COPY
    content: bytes = b"0123456789"
    initial: int = 0
    knows_size: bool = True
    knows_precopy: bool = True
    write_size: int = 4
    note: str = "in memory"
    here: MigrationState = M.RUNNING
    failing: set[str | MigrationState] = field(default_factory=set)
    half_way: MigrationState | None = None
    judges: int = 0
    calls: list[str] = field(default_factory=list)
    loaded: bytearray = field(default_factory=bytearray)
    offset: int = 0
    dirty: int = 0
    aborted: bool = False
    closed: bool = False
    descriptor: int | None = None

    def _ask(self, what: str) -> None:
        self.calls.append(what)
        if self.closed:
            raise BackendError("the device has been closed")
        if self.aborted:
            raise BackendError("the device's work was aborted")
        if what.split()[0] in self.failing:
            raise BackendError(f"{what} failed", errno.EIO)

    def state(self) -> MigrationState:
        self._ask("state")
        return self.here

    def set_state(self, target: MigrationState) -> None:
        self._ask(f"set {target.name}")
        way = path(self.here, target, self.flags)
        if way is None:
            raise BackendError(f"{self.here.name} to {target.name}: refused", errno.EINVAL)
        for there in way:
            short = len(self.loaded) < self.judges and self.here is M.RESUMING
            if there in self.failing or there is self.half_way or short:
                raise BackendError(f"{self.here.name} to {there.name}: refused", errno.EINVAL)
            assert there in states_with(self.flags)
            if there not in READABLE:
                self.offset = 0
            if there is M.RESUMING:
                self.loaded.clear()
            self.here = there

    def data_size(self) -> int | None:
        self._ask("size")
        return len(self.content) - self.offset if self.knows_size else None

    def precopy_info(self) -> tuple[int, int] | None:
        self._ask("info")
        return (max(0, self.initial - self.offset), self.dirty) if self.knows_precopy else None

    def read(self, buffer: memoryview) -> int:
        self._ask("read")
        assert self.here in READABLE
        end = len(self.content) if self.here is M.STOP_COPY else self.initial
        part = self.content[self.offset : min(end, self.offset + len(buffer))]
        buffer[: len(part)] = part
        self.offset += len(part)
        return len(part)

    def write(self, data: memoryview) -> None:
        self._ask("write")
        assert self.here is M.RESUMING
        self.loaded += data

    def reset(self) -> None:
        self._ask("reset")
        self.here = M.RUNNING
        self.offset = 0
        self.loaded.clear()

    def poll_fd(self) -> int | None:
        return self.descriptor

    def abort(self) -> None:
        self.aborted = True

    def renew(self, patience: float | None = None) -> None:  # noqa: ARG002
        self.aborted = False

    def close(self) -> None:
        self.closed = True
