"""What one input may cost: a second of this process's time, and 64 MiB of memory more than its size."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Final

__all__ = ["SPARE", "CostsTooMuch", "memory_within", "time_within"]

SPARE: Final = 64 << 20


class CostsTooMuch(Exception):
    """An input that takes too long, or too much memory."""


def memory_within(target: Callable[[bytes], None], data: bytes, spare: int = SPARE) -> None:
    """Run a target on an input, and see that it allocates no more than it may: its size, and ``spare`` bytes."""
    tracemalloc.start()
    try:
        target(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > spare + len(data):
        raise CostsTooMuch(f"{peak} bytes were allocated for an input of {len(data)}")


def time_within(target: Callable[[bytes], None], data: bytes, seconds: float) -> None:
    """Run a target on an input, and see that it takes no more processor time than ``seconds``."""
    before = time.process_time()
    target(data)
    took = time.process_time() - before
    if took > seconds:
        raise CostsTooMuch(f"an input of {len(data)} bytes took {took:.1f} s")
