"""Requests to a VFIO device whose failures are seen to: recovered from where that can be, and remembered where not.

Guarantees:

* A request that fails is recovered from in the order of careful users of the kernel's interface: ask where the device
  is, since a request over several arcs may have come half-way; try the state that fits the failed call; and only then
  reset it, which loses its state but leaves ERROR too. The error says in one line what was found and done.
* After an ``abort`` nothing is recovered before ``renew`` or ``close``.
* A device that was given state which must not be used is reset, and refuses with the same error what comes after, since
  a real driver may take later writes and run with bad state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from migpool.device import DeviceError
from migpool_plugins.vfio.backend import Backend, BackendError
from migpool_plugins.vfio.migration import MigrationState

_T = TypeVar("_T")


class Guard:
    """Makes the requests to one device's backend.

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
        self._answers = True
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
        """Bring the device to ``target``; ``recovery`` as for :meth:`ask`."""
        self.ask(lambda: self._backend.set_state(target), recovery)

    def ask(self, request: Callable[[], _T], recovery: MigrationState | None) -> _T:
        """Return what a request brings.

        Arguments:
            request: a call of the backend.
            recovery: the state to try if it fails; ``None`` resets the device at once.
        """
        try:
            return request()
        except BackendError as error:
            raise self.recovered(error, recovery) from None

    def recovered(self, error: BackendError, recovery: MigrationState | None) -> BackendError:
        """Recover after a failed request; returns the error that tells of both."""
        if self._aborted or self.closed:
            return error
        done = self._recover(recovery, error)
        self._forget()
        return BackendError(f"{error}; {done}" if done else str(error), error.errno)

    def spoiled(self, error: DeviceError) -> DeviceError:
        """Reset a device whose state must not be used; returns the error, which is kept as ``failure``."""
        if self._aborted or self.closed:
            return error
        if self.failure is None:
            done = self._recover(None, error)
            text = f"{error}; {done}" if done else str(error)
            self.failure = BackendError(text, error.errno) if isinstance(error, BackendError) else type(error)(text)
        return self.failure

    def _recover(self, target: MigrationState | None, failure: DeviceError) -> str:
        """Bring a device that failed back to a state in which it can be left. Never raises.

        Arguments:
            target: the state to try first; ``None`` resets at once, where what has been loaded must not be used.
            failure: a device that answers every request with the same words is not reported twice.

        Returns:
            What was found and done, in one line; empty if ``failure`` has told it all.
        """
        said: list[str] = []
        self._answers = False
        try:
            state = self._backend.state()
        except BackendError as error:
            if str(error) == str(failure):
                return ""
            said.append(f"its state cannot be asked ({error})")
        else:
            self._answers = True
            if state is target:
                return f"the device is in {state.name}"
            said.append(f"the device was in {state.name}")
            if target is not None and state is not MigrationState.ERROR:
                try:
                    self._backend.set_state(target)
                except BackendError as error:
                    said.append(f"{target.name} was refused ({error})")
                else:
                    return f"{said[0]} and went to {target.name}"
        try:
            self._backend.reset()
        except BackendError as error:
            said.append(f"a reset failed too ({error})")
        else:
            self._answers = True
            said.append("it was reset")
        return ", ".join(said)

    def abort(self) -> None:
        """End any wait at once, and let later requests fail until ``renew``."""
        self._aborted = True
        self._backend.abort()

    def renew(self) -> None:
        """Take back an abort; raises :class:`DeviceError` if the device has been closed."""
        if self.closed:
            raise DeviceError("the device has been closed")
        self._aborted = False
        self._backend.renew()

    def close(self, *, outlives: bool) -> None:
        """Close the device, harmlessly a second time; if it ``outlives`` that, in RUNNING, if need be by a reset."""
        if self.closed:
            return
        self.closed = True
        # One that answered nothing when it failed is not waited for once more: there may be many such devices.
        if outlives and self._answers:
            try:
                self._backend.renew()
                if self._backend.state() is not MigrationState.RUNNING:
                    self._backend.reset()
            except DeviceError:
                pass  # A server or driver that is gone: there is nobody to leave it to.
        self._backend.close()
