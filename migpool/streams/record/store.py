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
from pathlib import Path

from migpool.errors import UsageError
from migpool.streams.record.index import Ended, Flow, Index, Side, flow_name, store
from migpool.streams.record.times import TimesWriter

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


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

    def fail(self, path: str, error: OSError) -> None:
        """The disk does not take any more; the first reason stays."""
        with self._lock:
            self.failure = self.failure or f"{self.directory / path} cannot be written: {error.strerror or error}"

    def write(self, index: Index) -> None:
        """Write the index; a disk that does not take it is a failure like any other."""
        try:
            store(self.directory, index)
        except OSError as error:
            self.fail("index.json", error)


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
        self._times: TimesWriter | None = None
        self.passed = 0
        self.recorded = 0
        self.ended = Ended.OPEN

    @property
    def recording(self) -> bool:
        """Whether the disk still takes what passes."""
        return not self._store.failure

    def write(self, data: bytes, now: int) -> None:
        """Record some bytes that passed at ``now``, by CLOCK_MONOTONIC in nanoseconds."""
        self.passed += len(data)
        if not self._open():
            return
        try:
            at = 0
            while at < len(data):
                at += os.write(self._descriptor, data[at:])
        except OSError as error:
            self.recorded += at
            self._store.fail(self._name, error)
            return
        self.recorded += len(data)
        self._note(now)

    def splice(self, pipe: int, size: int, now: int) -> None:
        """Record ``size`` bytes that wait in a pipe; those that the disk does not take stay there."""
        self.passed += size
        if not self._open():
            return
        left = size
        try:
            while left:
                left -= os.splice(pipe, self._descriptor, left)
        except OSError as error:
            self.recorded += size - left
            self._store.fail(self._name, error)
            return
        self.recorded += size
        self._note(now)

    def unrecorded(self, size: int) -> None:
        """Count bytes that passed without being recorded."""
        self.passed += size

    def close(self) -> None:
        """Write the last time stamps and close the files."""
        if self._times is not None:
            try:
                self._times.flush()
            except OSError as error:
                self._store.fail(self._times_name, error)
            self._times.close()
            self._times = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def flow(self) -> Flow:
        """What the index says of this direction."""
        if not self.recorded:
            return Flow(self.passed, 0, self.ended)
        return Flow(self.passed, self.recorded, self.ended, self._name, self._times_name)

    def _open(self) -> bool:
        if self._store.failure:
            return False
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._store.directory / self._name, _FLAGS, 0o600)
                self._times = TimesWriter(os.open(self._store.directory / self._times_name, _FLAGS, 0o600))
            except OSError as error:
                self._store.fail(self._name, error)
                return False
        return True

    def _note(self, now: int) -> None:
        if self._times is None:
            return
        try:
            self._times.note(now, self.recorded)
        except OSError as error:
            self._store.fail(self._times_name, error)
