"""Requests to a VFIO device whose failures are seen to: recovered from where that can be, and remembered where not.

Guarantees:

* A request that fails is followed by the question where the device is, by the recovery that fits the call, and at last
  by a reset; the error says in one line what was found and done. After an ``abort`` nothing is recovered before
  ``renew`` or ``close``.
* A device that was given state which must not be used is reset, and refuses with the same error what comes after, since
  a real driver may take later writes and run with bad state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from migpool.device import DeviceError
from migpool_plugins.vfio.backend import Backend, BackendError
from migpool_plugins.vfio.migration import MigrationState
from migpool_plugins.vfio.recovery import recover

__all__ = ["Guard"]

_T = TypeVar("_T")


class Guard:
    """Stands before one device's backend.

    Arguments:
        backend: the device; closed with the guard.
        forget: called after a recovery: what was under way with the device is over.

    Attributes:
        closed: whether the device is closed.
        failure: why the device's state must not be used; ``None`` while nothing is wrong with it.
    """

    def __init__(self, backend: Backend, forget: Callable[[], None]) -> None:
        self._backend = backend
        self._forget = forget
        self._aborted = False
        self._deaf = False
        self.closed = False
        self.failure: DeviceError | None = None

    def check(self) -> None:
        """Raise what stands in the way of any further work."""
        if self.closed:
            raise DeviceError("the device has been closed")
        if self._aborted:
            raise DeviceError("the device's work was aborted")
        if self.failure is not None:
            raise self.failure

    def go(self, target: MigrationState, recovery: MigrationState | None) -> None:
        """Bring the device to ``target``.

        Arguments:
            target: the state.
            recovery: the state to try if it cannot; ``None`` resets it at once.
        """
        try:
            self._backend.set_state(target)
        except BackendError as error:
            raise self.told(error, recovery) from None

    def tried(self, call: Callable[[], _T], recovery: MigrationState | None) -> _T:
        """Return what a request brings; ``recovery`` as for :meth:`go`."""
        try:
            return call()
        except BackendError as error:
            raise self.told(error, recovery) from None

    def told(self, error: BackendError, recovery: MigrationState | None) -> BackendError:
        """Recover after a failure; returns the error that tells of both."""
        if self._aborted or self.closed:
            return error
        done = self._recovered(recovery, error)
        self._forget()
        return BackendError(f"{error}; {done}" if done else str(error), error.errno)

    def spoiled(self, error: DeviceError) -> DeviceError:
        """Reset a device whose state must not be used; returns the error, which is kept as ``failure``."""
        if self._aborted or self.closed:
            return error
        if self.failure is None:
            done = self._recovered(None, error if isinstance(error, BackendError) else None)
            text = f"{error}; {done}" if done else str(error)
            self.failure = BackendError(text, error.errno) if isinstance(error, BackendError) else type(error)(text)
        return self.failure

    def _recovered(self, recovery: MigrationState | None, because: BackendError | None) -> str:
        done = recover(self._backend, recovery, because)
        self._deaf = not done.reached
        return done.words

    def abort(self) -> None:
        """End any wait at once, and let later requests fail until ``renew``."""
        self._aborted = True
        self._backend.abort()

    def renew(self) -> None:
        """Take back an abort.

        Raises:
            DeviceError: the device has been closed.
        """
        if self.closed:
            raise DeviceError("the device has been closed")
        self._aborted = False
        self._backend.renew()

    def close(self, *, outlives: bool) -> None:
        """Close the device; harmless when it has been done.

        Arguments:
            outlives: whether it goes on to exist, and so must be left in RUNNING, by a reset if it is elsewhere.
        """
        if self.closed:
            return
        self.closed = True
        # One that answered nothing when it failed is not waited for once more: there may be many such devices.
        if outlives and not self._deaf:
            try:
                self._backend.renew()
                if self._backend.state() is not MigrationState.RUNNING:
                    self._backend.reset()
            except DeviceError:
                pass  # A server or driver that is gone: there is nobody to leave it to.
        self._backend.close()
