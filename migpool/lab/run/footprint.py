"""What this process holds right now: after a migration, what that one has left behind.

Linux only, as ``/proc`` is; elsewhere there is nothing to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds.

    Arguments:
        threads: how many threads it has, the main one included; the kernel's count, not only Python's.
        resident_bytes: its memory that is resident.
    """

    threads: int
    descriptors: int
    resident_bytes: int


def footprint() -> Footprint | None:
    """This process's own; ``None`` where the system does not tell."""
    try:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
        # The listing itself holds one descriptor while it lasts.
        descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1
        return Footprint(int(status["Threads"]), descriptors, int(status["VmRSS"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        return None
