"""migpool: the device state of a live migration, moved under a threading model of your choice.

``WorkerPool``, a bounded ``concurrent.futures.Executor``, is here for any program; ``migpool.device`` is for authors of
devices; the rest is used through the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from migpool.errors import MigpoolError, PoolFull

if TYPE_CHECKING:
    from migpool.workers.pool import WorkerPool

__all__ = ["MigpoolError", "PoolFull", "WorkerPool", "__version__"]

__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    # A device process imports migpool.device, and so this file: it should not pay for a pool that it does not use.
    if name == "WorkerPool":
        from migpool.workers.pool import WorkerPool

        return WorkerPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
