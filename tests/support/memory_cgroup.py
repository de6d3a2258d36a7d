"""A limit on the memory of a process that runs already, by a memory cgroup of the system's first or second version."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["limited", "what_is_missing"]

_ROOT: Final = Path("/sys/fs/cgroup")
_LIMIT: Final = 10.0


def what_is_missing() -> str:
    """Why no limit can be set here; empty if one can."""
    if os.geteuid():
        return "only root may make a memory cgroup"
    return "" if _parent() else "the system has no memory cgroups that a test could make"


def _parent() -> Path | None:
    """Where cgroups with a limit of memory can be made."""
    first = _ROOT / "memory"
    if (first / "cgroup.procs").exists() and os.access(first, os.W_OK):
        return first
    try:
        shared = (_ROOT / "cgroup.subtree_control").read_text().split()
    except OSError:
        return None
    return _ROOT if "memory" in shared and os.access(_ROOT, os.W_OK) else None


@contextlib.contextmanager
def limited(process: int, size: int) -> Iterator[Path]:
    """Let a process take so many bytes more than it has; it is killed if it takes still more.

    What it has counts for the cgroup in which it took it.

    Arguments:
        process: its number.
        size: bytes.

    Yields:
        The file that says the most that it has taken, in bytes.
    """
    parent = _parent()
    assert parent is not None
    place = parent / f"migpool-test-{process}"
    place.mkdir()
    first = (place / "memory.limit_in_bytes").exists()
    try:
        (place / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(size))
        (place / "cgroup.procs").write_text(str(process))
        yield place / ("memory.max_usage_in_bytes" if first else "memory.peak")
    finally:
        deadline = time.monotonic() + _LIMIT
        while True:  # a process leaves some time after its end
            try:
                place.rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
