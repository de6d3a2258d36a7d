"""Dask workers as a sweep's crew.

Simulated points go to any worker; real ones to those that have the resource ``real``, as many at once as they have of
it (``dask worker ADDRESS --resources "real=1"``: one). How the cluster is spoken to, TLS with it, is Dask's own
configuration.

What is lost with a worker, Dask has others do again. What is lost with the scheduler is asked for again, once there is
one at the same address.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from migpool.errors import MigpoolError, UsageError
from migpool.lab.run.cluster import check_versions, connected
from migpool.sweeps.local import Deaths
from migpool.sweeps.measure import Done, Task, measure
from migpool.units import count_of

if TYPE_CHECKING:
    from distributed import Future

RETURN_LIMIT: Final = 60.0
"""Seconds for a scheduler that went away to come back, or for a worker."""
REAL: Final = "real"
"""The resource of workers that can run real migrations."""
AHEAD: Final = 2
"""Tasks a thread that are worth having under way: one is there when the one before has been done."""


class ClusterCrew:
    """The workers of a Dask cluster.

    Arguments:
        address: the scheduler's.
        mode: what its workers are to do.

    Raises:
        UsageError: there is no such cluster, or nobody in it who could.
    """

    def __init__(self, address: str, mode: str) -> None:
        self._address = address
        self._resources = {REAL: 1} if mode == "real" else None
        self._tasks: dict[Future, Task] = {}
        self._deaths = Deaths()
        self._alone_since = 0.0
        self._client = connected(address)
        try:
            check_versions(self._client)
            if not self._hands():
                raise UsageError(self._nobody())
        except BaseException:
            self._client.close()
            raise

    @property
    def width(self) -> int:
        return AHEAD * max(1, self._hands())

    def submit(self, task: Task) -> None:
        future = self._client.submit(measure, task, pure=False, resources=self._resources)
        self._tasks[future] = task

    def finished(self, seconds: float) -> list[Done]:
        from distributed import wait

        if not self._tasks:
            return []
        try:
            wait(list(self._tasks), timeout=seconds, return_when="FIRST_COMPLETED")
        except TimeoutError:
            pass
        except Exception:  # noqa: BLE001 -- whatever a lost scheduler shows as; what is lost is told from its state
            time.sleep(min(seconds, 0.1))
        if self._client.status != "running":
            self._reconnect()
            return []
        self._see_that_somebody_is_there()
        return self._taken()

    def close(self) -> None:
        for future in self._tasks:
            future.release()
        self._client.close(timeout=5)

    def _taken(self) -> list[Done]:
        found: list[Done] = []
        for future, task in list(self._tasks.items()):
            if future.status == "pending":
                continue
            del self._tasks[future]
            if future.status == "finished":
                try:
                    found.append(future.result(timeout=RETURN_LIMIT))
                    continue
                except Exception:  # noqa: BLE001 -- its worker, or the scheduler, went away with the result
                    self.submit(task)
            elif future.status == "error":
                self._failed(task, future.exception())
            else:  # cancelled or lost, with the scheduler
                self.submit(task)
        return found

    def _failed(self, task: Task, error: BaseException) -> None:
        if type(error).__name__ != "KilledWorker":
            raise (
                error if isinstance(error, MigpoolError) else MigpoolError(f"a worker: {type(error).__name__}: {error}")
            )
        self._deaths.note(task)
        self.submit(task)

    def _reconnect(self) -> None:
        """The scheduler is gone: wait for one, and ask it for all that is under way."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._client.close(timeout=1)
        deadline = time.monotonic() + RETURN_LIMIT
        while True:
            try:
                self._client = connected(self._address, 2.0)
                break
            except UsageError:
                if time.monotonic() > deadline:
                    raise MigpoolError(
                        f"the scheduler at {self._address} has been gone for {RETURN_LIMIT:.0f} s: what was "
                        "computed is kept; run the same command again to go on"
                    ) from None
                time.sleep(0.5)
        for task in tasks:
            self.submit(task)

    def _see_that_somebody_is_there(self) -> None:
        if self._hands():
            self._alone_since = 0.0
            return
        self._alone_since = self._alone_since or time.monotonic()
        if time.monotonic() - self._alone_since > RETURN_LIMIT:
            raise MigpoolError(f"{self._nobody()}; what was computed is kept: run the same command again to go on")

    def _hands(self) -> int:
        """How many tasks can be done at once."""
        try:
            workers: dict[str, dict[str, Any]] = self._client.scheduler_info(n_workers=-1)["workers"]
        except Exception:  # noqa: BLE001 -- the scheduler has just gone; the next look will see that
            return 1
        if self._resources is None:
            return sum(int(one["nthreads"]) for one in workers.values())
        return sum(int(one["resources"].get(REAL, 0)) for one in workers.values())

    def _nobody(self) -> str:
        workers = count_of(len(self._client.nthreads()), "worker")
        if self._resources is None:
            return f"the cluster at {self._address} has no worker: start one with: dask worker {self._address}"
        return (
            f"no worker of the cluster at {self._address} ({workers}) has the resource real, which marks those that "
            f'can run migrations: start one with: dask worker {self._address} --resources "real=1"'
        )
