"""Where a recorder puts what passes: a directory, and a pair of files for each direction of a connection.

Guarantees:

1. A disk that takes no more ends the recording of every direction, never the migration: who passes bytes on is told by
   ``Store.failure`` and goes on without the disk.
2. What has been recorded of a direction is a prefix of what passed, byte for byte.
3. The files hold a guest's memory: only their owner can read them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from migpool.errors import UsageError
from migpool.streams.record.index import INDEX, PAIR, Ended, Flow, Index, Side, flow_name, store

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_TIMES_AT_ONCE: Final = 1 << 16


class Store:
    """A recording's directory while it is made.

    Arguments:
        directory: made if it is not there; must be empty if it is.

    Attributes:
        failure: why nothing more is recorded, in one line; empty as long as all is well.

    Raises:
        UsageError: the directory cannot be made, or something is in it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.failure = ""
        self._lock = threading.Lock()
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            if any(directory.iterdir()):
                raise UsageError(f"{directory} is not empty: name a new directory for the recording")
            if not os.access(directory, os.W_OK | os.X_OK):
                raise UsageError(f"{directory} cannot be written: no permission")
        except OSError as error:
            raise UsageError(f"{directory} cannot be made: {error.strerror or error}") from None

    @contextmanager
    def taking(self, name: str) -> Iterator[None]:
        """Note it, and go on, if the disk does not take the file ``name`` any more; the first reason stays."""
        try:
            yield
        except OSError as error:
            with self._lock:
                self.failure = self.failure or f"{self.directory / name} cannot be written: {error.strerror or error}"

    def write(self, index: Index) -> None:
        """Write the index; a disk that does not take it is a failure like any other."""
        with self.taking(INDEX):
            store(self.directory, index)


class FlowFile:
    """The file of one direction of a connection, and the file of its time stamps. One thread writes.

    Arguments:
        store: the recording.
        number: the connection's.
        side: who sends in this direction.
    """

    def __init__(self, store: Store, number: int, side: Side) -> None:
        self._store = store
        self._name = flow_name(number, side, "bytes")
        self._times_name = flow_name(number, side, "times")
        self._descriptor = -1
        self._times: BinaryIO | None = None
        self.passed = 0
        self.recorded = 0
        self.ended = Ended.OPEN

    @property
    def recording(self) -> bool:
        """Whether the disk still takes what passes."""
        return not self._store.failure

    def write(self, data: bytes, now: int) -> None:
        """Record some bytes that passed at ``now``, by CLOCK_MONOTONIC in nanoseconds."""
        self._record(len(data), now, lambda left: os.write(self._descriptor, data[len(data) - left :]))

    def splice(self, pipe: int, size: int, now: int) -> None:
        """Record ``size`` bytes that wait in a pipe; those that the disk does not take stay there."""
        self._record(size, now, lambda left: os.splice(pipe, self._descriptor, left))

    def unrecorded(self, size: int) -> None:
        """Count bytes that passed without being recorded."""
        self.passed += size

    def close(self) -> None:
        """Write the last time stamps and close the files."""
        if self._times is not None:
            with self._store.taking(self._times_name):
                self._times.close()
            self._times = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Remove the files. They are closed."""
        for name in (self._name, self._times_name):
            with self._store.taking(name):
                (self._store.directory / name).unlink(missing_ok=True)

    def flow(self) -> Flow:
        """What the index says of this direction."""
        if not self.recorded:
            return Flow(self.passed, 0, self.ended)
        return Flow(self.passed, self.recorded, self.ended, self._name, self._times_name)

    def _record(self, size: int, now: int, put: Callable[[int], int]) -> None:
        """Have ``put`` write ``size`` bytes: it is told how many are left, and returns how many it wrote."""
        self.passed += size
        with self._store.taking(self._name):
            if not self.recording:
                return
            if self._times is None:
                self._descriptor = os.open(self._store.directory / self._name, _FLAGS, 0o600)
                times = os.open(self._store.directory / self._times_name, _FLAGS, 0o600)
                self._times = open(times, "wb", _TIMES_AT_ONCE)  # noqa: PTH123, SIM115 -- open already; closed by close
            left = size
            while left:
                written = put(left)
                self.recorded += written
                left -= written
            with self._store.taking(self._times_name):
                self._times.write(PAIR.pack(now, self.recorded))
