"""What one run is to do, and what it found; both travel between processes as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

__all__ = ["MIB", "Account", "Measure", "Task"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Task:
    """One migration.

    Arguments:
        reading: where the state comes from: "none", "pread", "read" (a pipe), "recv" (a UNIX socket), "splice", or
            "blocking" (2 ms a chunk; only Python).
        writing: where it goes: "none", "pwrite" or "splice".
        devices: how many.
        size: bytes of state a device.
        chunk: bytes a chunk.
        channels: how many.
        transport: "tcp" (loopback, cubic) or "unix".
        busy: whether a thread computes beside the migration, in the source's process.
        source: the source's threading model by its registered name; only Python, as all that follow.
        destination: the destination's.
        workers: how many threads both models are asked for, and C's source has; 0 leaves it to them, and is one a
            device for C.
        budget: bytes that the destination may hold.
        credits: whether the source offers credits.
        trace: whether spans are recorded.
        bare: what moves the state instead of a migration: "channels", migpool's alone, which read and write nothing
            (``leg.py``), or "calls", the system calls alone (``calls.py``); empty for a migration.
    """

    reading: str = "pread"
    writing: str = "pwrite"
    devices: int = 4
    size: int = 256 * MIB
    chunk: int = MIB
    channels: int = 2
    transport: str = "tcp"
    busy: bool = False
    source: str = "pool"
    destination: str = "receiver"
    workers: int = 2
    budget: int = 64 * MIB
    credits: bool = True
    trace: bool = True
    bare: str = ""

    @property
    def bytes(self) -> int:
        """Of state, over all devices."""
        return self.devices * self.size

    @classmethod
    def decode(cls, text: str) -> Task:
        """From :meth:`encode`."""
        return cls(**json.loads(text))

    def encode(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Account:
    """What one Python process has to say.

    Attributes:
        error: why the migration failed; empty if it did not.
        stamp: CLOCK_MONOTONIC in nanoseconds: when the first read began, or when the last write ended.
        switchover: seconds from the stop of the machine at the source to its start at the destination; 0 at the latter.
        bytes: of state.
        user: CPU seconds of the process during the switchover, in user mode.
        system: the same, in the kernel.
    """

    error: str
    stamp: int
    switchover: float
    bytes: int
    user: float
    system: float

    @classmethod
    def decode(cls, text: str) -> Account:
        """From :meth:`encode`."""
        return cls(**json.loads(text))

    def encode(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Measure:
    """One run.

    Attributes:
        seconds: from the beginning of the first read to the end of the last write.
        bytes: of state that were moved.
        user: CPU seconds of both processes in user mode.
        system: the same, in the kernel.
        switchover: seconds from stop to start; 0 for C.
    """

    seconds: float
    bytes: int
    user: float
    system: float
    switchover: float = 0.0

    @classmethod
    def mean(cls, runs: Sequence[Self]) -> Self:
        """The mean of runs that moved the same bytes."""
        return cls(
            statistics.fmean(run.seconds for run in runs),
            runs[0].bytes,
            statistics.fmean(run.user for run in runs),
            statistics.fmean(run.system for run in runs),
            statistics.fmean(run.switchover for run in runs),
        )

    @property
    def cpu(self) -> float:
        """CPU seconds of both processes."""
        return self.user + self.system

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.bytes / self.seconds
