"""What the resources of a replay are called, where steps take them."""

from __future__ import annotations

from migpool.core.effects import Wait

__all__ = [
    "CHANNELS",
    "PAGE_JOBS",
    "RECEIVER",
    "THREAD",
    "lock_of",
    "thread_of",
    "turns_of",
    "workers_of",
]

CHANNELS = "channels"
PAGE_JOBS = "jobs of the memory"
THREAD = "thread "
RECEIVER = "receiver "


def lock_of(side: str) -> str:
    """The resource that is a side's big lock."""
    return f"{side} lock"


def workers_of(side: str) -> str:
    """The resource that is a side's threads for jobs."""
    return f"{side} workers"


def turns_of(wait: Wait) -> str:
    """The resource that devices share while they are read, or written, by what no span shows."""
    return "reads in turn" if wait is Wait.READ else "writes in turn"


def thread_of(name: str) -> str:
    """The resource that is one channel's thread at the destination."""
    return THREAD + name
