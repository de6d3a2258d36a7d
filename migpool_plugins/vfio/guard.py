"""Requests to a VFIO device whose failures are seen to: recovered from where that can be, and remembered where not.

Guarantees:

* A request that is refused is recovered from in the order of careful users of the kernel's interface: ask where the
  device is, since a request over several arcs may have come half-way; try the state that fits the failed call; and only
  then reset it, which loses its state but leaves ERROR too. The error says in one line what was found and done.
* A request that nobody answers is told at once, and nothing is asked in its stead before ``renew`` or ``close``: others
  wait for the news.
* What a reset came to is asked, never believed: see :meth:`Guard.restore`.
* After an ``abort`` nothing is recovered before ``renew`` or ``close``.
* A device that was given state which must not be used is reset, and refuses with the same error what comes after, since
  a real driver may take later writes and run with bad state.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from migpool.device import DeviceError
from migpool_plugins.vfio.backend import Backend, BackendError, NoAnswer
from migpool_plugins.vfio.migration import MigrationState

_T = TypeVar("_T")
REMEDY: Final = "rebind its driver or restart its server"
"""What is left to do with a device that neither a reset nor a request brings to RUNNING."""


class Restored(NamedTuple):
    """How a device was brought to RUNNING.

    Attributes:
        said: in words.
        emptied: whether a reset was the last thing that it did, so that nothing is left of what it had been given.
    """

    said: str
    emptied: bool


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
        done = "" if isinstance(error, NoAnswer) else self._recover(recovery, error)
        self._forget()
        return BackendError(f"{error}; {done}", error.errno) if done else error

    def spoiled(self, error: DeviceError) -> DeviceError:
        """Reset a device whose state must not be used; returns the error, which is kept as ``failure``."""
        if self._aborted or self.closed:
            return error
        if self.failure is None:
            done = "" if isinstance(error, NoAnswer) else self._recover(None, error)
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
        said = ""
        try:
            state = self._backend.state()
            if state is target:
                return f"the device is in {state.name}"
            said = f"the device was in {state.name}"
            if target is not None and state is not MigrationState.ERROR:
                refused = self._refusal(lambda: self._backend.set_state(target))
                if refused is None:
                    return f"{said} and went to {target.name}"
                said += f", {target.name} was refused ({refused})"
            return f"{said}, {self.restore().said}"
        except BackendError as error:
            if str(error) == str(failure):
                return said
            return f"{said}, {error}" if said else f"its state cannot be asked ({error})"

    def restore(self) -> Restored:
        """Bring the device to RUNNING with nothing left of what was under way: reset it, and see what that came to.

        There are servers that refuse a reset in STOP_COPY, and servers that carry it out and stay in RESUMING, where
        the next load would be put behind the last. Such a device is led out by a request for RUNNING, and then reset,
        since leaving RESUMING has given it what it had been sent.

        Raises:
            BackendError: it is not in RUNNING, or nobody says where it is.
        """
        said: list[str] = []
        for _ in range(2):
            refused = self._refusal(self._backend.reset)
            state = self._backend.state()
            if state is MigrationState.RUNNING:
                # A late answer is none, but nothing else than the reset can have brought it there at first.
                emptied = refused is None or (isinstance(refused, NoAnswer) and not said)
                said.append("it was reset" if emptied else f"a reset was refused ({refused})")
                return Restored(", ".join(said), emptied)
            said.append(f"a reset was refused ({refused})" if refused else f"a reset left it in {state.name}")
            if state is not MigrationState.ERROR:
                refused = self._refusal(lambda: self._backend.set_state(MigrationState.RUNNING))
                said.append(f"RUNNING was refused ({refused})" if refused else "it went to RUNNING")
        state = self._backend.state()
        if state is not MigrationState.RUNNING:
            text = f"{', '.join(dict.fromkeys(said))}: it stays in {state.name} and cannot be used, {REMEDY}"
            raise BackendError(text)
        return Restored(", ".join(said), emptied=False)

    @staticmethod
    def _refusal(request: Callable[[], None]) -> BackendError | None:
        """Why a request was refused; ``None`` if it was not. One whose answer is late may be carried out all the same,
        which is asked next; where nobody is there to ask, that is raised."""
        try:
            request()
        except BackendError as error:
            if isinstance(error, NoAnswer) and error.errno != errno.ETIMEDOUT:
                raise
            return error
        return None

    def abort(self) -> None:
        """End any wait at once, and let later requests fail until ``renew``."""
        self._aborted = True
        self._backend.abort()

    def renew(self, patience: float | None = None) -> None:
        """Take back an abort; raises :class:`DeviceError` if the device has been closed.

        Arguments:
            patience: as for the backend.
        """
        if self.closed:
            raise DeviceError("the device has been closed")
        self._aborted = False
        self._backend.renew(patience)

    def close(self, *, outlives: bool) -> None:
        """Close the device, harmlessly a second time; if it ``outlives`` that, in RUNNING.

        One that cannot be brought there is warned of: its next user will be refused.
        """
        if self.closed:
            return
        self.closed = True
        if outlives:
            try:
                self._backend.renew()
                if self._where_at_last() is not MigrationState.RUNNING:
                    self.restore()
            except NoAnswer:
                pass  # A server that is gone: there is nobody to leave the device to.
            except DeviceError as error:
                logging.getLogger(__name__).warning("a device could not be left in order: %s", error)
        self._backend.close()

    def _where_at_last(self) -> MigrationState:
        try:
            return self._backend.state()
        except NoAnswer as error:
            if error.errno == errno.ETIMEDOUT:
                raise
            return self._backend.state()  # A connection that was lost meanwhile is made again.
