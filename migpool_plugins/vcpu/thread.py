"""The thread of one vCPU, which runs the guest batch after batch until it is asked to stand.

Guarantees:

* The thread stands only between two batches, and whoever has seen it standing may touch the vCPU until it goes again.
* Every wait here has a limit, and ends at once when :meth:`VcpuThread.abort` is called or the guest fails.
* A guest that fails ends its thread; the reason reaches whoever waits, now or later, as a :class:`DeviceError`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Literal

from migpool.device import DeviceError

_EXPEL_INTERVAL: Final = 0.05
_PATIENCE_BEFORE_EXPEL: Final = 0.5


class VcpuThread:
    """Runs one vCPU; starts standing.

    Arguments:
        index: of the vCPU; the thread's name is ``vcpu-<index>``.
        run_batch: runs the guest to the end of a batch; called only on this thread.
        halt: seconds for which the vCPU rests after each batch, as a guest that waits for a timer would.
    """

    def __init__(self, index: int, run_batch: Callable[[], None], halt: float) -> None:
        self.index = index
        self._run_batch = run_batch
        self.halt = halt
        """May be changed by ``run_batch``, for the rest after its batch."""
        self._changed = threading.Condition()
        self._wish: Literal["stand", "go", "end"] = "stand"
        self._standing = True
        self._batches = 0
        self._failure: str | None = None
        self._aborted = False
        # A daemon, so that an owner who forgets to close cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"vcpu-{index}", daemon=True)
        self._thread.start()

    @property
    def standing(self) -> bool:
        """Whether the vCPU stands still, and will until :meth:`go`."""
        with self._changed:
            return self._standing and self._wish == "stand"

    @property
    def aborted(self) -> bool:
        with self._changed:
            return self._aborted

    def go(self) -> None:
        self._wish_for("go")

    def ask_to_stand(self) -> None:
        """Ask the guest to stand after the batch it is in; does not wait."""
        self._wish_for("stand")

    def wait_standing(self, limit: float) -> None:
        """Wait until the vCPU stands, for ``limit`` seconds at most.

        Raises:
            DeviceError: the limit has passed, the guest has failed, or the wait was aborted.
        """
        if not self._wait(lambda: self._standing, limit):
            raise DeviceError(f"vCPU {self.index} has not stopped within {limit} s: its guest does not end its batch")

    def wait_running(self, limit: float) -> None:
        """Wait until the thread has followed the wish to go; raises as :meth:`wait_standing`."""
        if not self._wait(lambda: not self._standing, limit):
            raise DeviceError(f"vCPU {self.index} does not run after {limit} s: its thread gets no processor time")

    def wait_batches(self, count: int, limit: float) -> bool:
        """Wait until the guest has ended ``count`` batches from now on; false if ``limit`` seconds passed first.

        Raises:
            DeviceError: the guest has failed, or the wait was aborted.
        """
        with self._changed:
            goal = self._batches + count
        return self._wait(lambda: self._batches >= goal, limit)

    def abort(self) -> None:
        """End every wait, and refuse new ones until :meth:`recover`. Does not stop the guest."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def recover(self) -> None:
        with self._changed:
            self._aborted = False

    def check(self) -> None:
        """Raise :class:`DeviceError` if waits were aborted or the guest has failed."""
        with self._changed:
            self._check()

    def end(self, expel: Callable[[], None], limit: float) -> None:
        """End the thread, for good, and wait for it. Harmless when repeated.

        Arguments:
            expel: brings the guest out of a batch that it does not end; called more than once if need be.
            limit: in seconds; a :class:`DeviceError` if the thread has not ended by then.
        """
        self._wish_for("end")
        self._thread.join(min(_PATIENCE_BEFORE_EXPEL, limit))
        deadline = time.monotonic() + limit
        while self._thread.is_alive():
            if time.monotonic() > deadline:
                raise DeviceError(f"the thread of vCPU {self.index} has not ended within {limit} s")
            expel()
            self._thread.join(_EXPEL_INTERVAL)

    def _wish_for(self, wish: Literal["stand", "go", "end"]) -> None:
        with self._changed:
            if self._wish != "end":
                self._wish = wish
            self._changed.notify_all()

    def _wait(self, reached: Callable[[], bool], limit: float) -> bool:
        with self._changed:
            done = self._changed.wait_for(lambda: self._aborted or self._failure is not None or reached(), limit)
            self._check()
            return done

    def _check(self) -> None:
        if self._failure is not None:
            raise DeviceError(f"vCPU {self.index} has failed: {self._failure}")
        if self._aborted:
            raise DeviceError(f"vCPU {self.index}: the migration was aborted")

    def _run(self) -> None:
        while self._may_run():
            try:
                self._run_batch()
            except DeviceError as error:
                with self._changed:
                    self._failure = error.message
                    self._standing = True
                    self._changed.notify_all()
                return
            with self._changed:
                self._batches += 1
                self._changed.notify_all()
                if self.halt:
                    self._changed.wait_for(lambda: self._wish != "go", self.halt)

    def _may_run(self) -> bool:
        """Stand for as long as that is wished; return false when the thread is to end."""
        with self._changed:
            # Said under the same lock as the wish is read: a wish to go cannot slip in between and leave a vCPU that
            # runs and is called standing.
            if self._wish != "go":
                self._standing = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._wish != "stand")
            self._standing = False
            self._changed.notify_all()
            return self._wish == "go"
