"""A VFIO device with engines as migpool sees it: its state as parts with tags, one engine for each caller.

The interface of a kernel has no such parts; emulated devices have, and servers of vfio-user that announce them. Every
engine has a connection of its own, made before the machine stops: what one waits for holds up no other.

Guarantees:

* An abort ends the waits of all engines, whatever they wait for; the next save or load makes the connections anew.
* Where several callers fail at once, each says what failed first. Requests to the device itself, which recover it, are
  made by one of them at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from migpool.device import DeviceError, Part, TaggedDevice
from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vfio.migration import MigrationState


class Engine(Protocol):
    """One engine's connection.

    Attributes:
        over: whether nothing can be asked there any more.
    """

    @property
    def over(self) -> bool:
        """See the class."""

    def read(self, buffer: memoryview) -> Part | None:
        """Read the next part; ``None`` if none is left. Raises :class:`DeviceError`."""

    def write(self, tag: int, data: memoryview) -> None:
        """Write a part, and wait until it is taken. Raises :class:`DeviceError`."""

    def abort(self) -> None:
        """End every wait at once; the connection is finished then."""

    def close(self) -> None:
        """Close it; no other call but ``abort`` may be under way."""


class EngineBackend(Protocol):
    """What a backend of a device with engines can do besides."""

    def open_engine(self) -> Engine:
        """Make a connection for one more engine. Raises :class:`BackendError`."""

    def explain(self, error: BackendError) -> DeviceError:
        """What to say of an engine's failure, by what the other side knows of it."""


class Engines:
    """A device's engines: those that are idle, and the callers that wait for one.

    Arguments:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._changed = threading.Condition()
        self._all: list[Engine] = []
        self._idle: list[Engine] = []
        self._aborted = False

    def open(self, open_one: Callable[[], Engine]) -> None:
        """Have as many connections as there are engines, those that are over made anew. Nobody is at work."""
        with self._changed:
            over = [engine for engine in self._all if engine.over]
            self._all = [engine for engine in self._all if not engine.over]
        for engine in over:
            engine.close()
        for _ in range(self._count - len(self._all)):
            engine = open_one()
            with self._changed:
                self._all.append(engine)
                if self._aborted:
                    engine.abort()
        with self._changed:
            self._idle = list(self._all)

    @contextmanager
    def one(self) -> Iterator[Engine]:
        """An engine for one call; waited for while all are at work. Raises :class:`BackendError` once aborted."""
        with self._changed:
            while not self._idle and not self._aborted:
                self._changed.wait()
            self.check()
            engine = self._idle.pop()
        try:
            yield engine
        finally:
            with self._changed:
                self._idle.append(engine)
                self._changed.notify()

    def check(self) -> None:
        """Raise :class:`BackendError` if they are aborted."""
        if self._aborted:
            raise BackendError("the device's work was aborted")

    def abort(self) -> None:
        with self._changed:
            self._aborted = True
            for engine in self._all:
                engine.abort()
            self._changed.notify_all()

    def renew(self) -> None:
        """Take back an abort."""
        self._aborted = False

    def close(self) -> None:
        """Close every connection; harmless when it has been done. Who is still at work is ended."""
        self.abort()
        with self._changed:
            engines, self._all = self._all, []
        for engine in engines:
            engine.close()


class TaggedVfioDevice(VfioDevice, TaggedDevice):
    """A VFIO device whose state comes as parts with tags; :meth:`serve_with` comes before any other call."""

    _backend: EngineBackend
    _engines: Engines
    _asking: threading.RLock
    _failed_first: DeviceError | None = None

    def serve_with(self, engines: int, backend: EngineBackend) -> None:
        """Say how many engines there are, and who makes their connections."""
        self.engines = engines
        self._backend = backend
        self._engines = Engines(engines)
        self._asking = threading.RLock()

    def save_setup(self) -> bytes:
        setup = super().save_setup()
        self._begin()
        return setup

    def load_setup(self, data: bytes) -> None:
        super().load_setup(data)
        self._begin()

    def _begin(self) -> None:
        self._failed_first = None
        self._engines.open(self._backend.open_engine)

    def save_part(self, buffer: memoryview) -> Part | None:
        """Have an engine read a part straight into ``buffer``; ``None`` if none is left."""
        if not self._stopped:
            with self._asking:  # Who recovers the device after a failure says what failed before others go on here.
                if self._failed_first is not None:
                    raise self._failed_first
            self._guard.check()
            raise DeviceError("the device has not been stopped: there is no state to read yet")
        try:
            with self._engines.one() as engine:
                part = engine.read(buffer)
        except BackendError as error:
            raise self._reading_failed(error) from None
        if part is not None:
            with self._asking:
                self._saved += part.length
        return part

    def load_part(self, tag: int, data: memoryview) -> None:
        """Have an engine write a part."""
        if not self._loading:
            self._guard.check()
            raise DeviceError("the device has not been set up to load: there is no engine to write to")
        try:
            with self._engines.one() as engine:
                engine.write(tag, data)
        except DeviceError as error:
            raise self._writing_failed(error) from None
        with self._asking:
            self._loaded += len(data)

    def _reading_failed(self, error: BackendError) -> DeviceError:
        with self._asking:
            self._engines.check()
            if self._failed_first is None:
                reason = self._backend.explain(error)
                if isinstance(reason, BackendError):
                    reason = self._guard.recovered(reason, MigrationState.STOP)
                self._failed_first = reason
            return self._failed_first

    def _writing_failed(self, error: DeviceError) -> DeviceError:
        with self._asking:
            self._engines.check()
            if self._guard.failure is not None:
                return self._guard.failure
            return self._spoiled(self._backend.explain(error) if isinstance(error, BackendError) else error)

    def abort(self) -> None:
        super().abort()
        self._engines.abort()

    def _renew(self, patience: float | None = None) -> None:
        super()._renew(patience)
        self._engines.renew()
        self._failed_first = None

    def close(self) -> None:
        self._engines.close()
        super().close()
