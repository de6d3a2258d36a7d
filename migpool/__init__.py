"""migpool: the device state of a live migration, moved under a threading model of your choice.

``WorkerPool``, a bounded ``concurrent.futures.Executor``, is here for any program; ``migpool.device`` is for authors of
devices; the rest is used through the command line.
"""

from __future__ import annotations

# Nothing is imported here that is not asked for: a process of a device does not pay for a pool, and nothing takes so
# long that somebody's Ctrl-C comes before the command line is there to be told. Type checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from migpool.errors import MigpoolError, PoolFull
    from migpool.workers.pool import WorkerPool

__all__ = ["MigpoolError", "PoolFull", "WorkerPool", "__version__"]

__version__ = "0.2.0"

_WHERE = {"MigpoolError": "errors", "PoolFull": "errors", "WorkerPool": "workers.pool"}


def __dir__() -> list[str]:
    return [*globals(), *_WHERE]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
