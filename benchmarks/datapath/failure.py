"""How a benchmark ends that cannot be run."""

from __future__ import annotations

from migpool.errors import MigpoolError

__all__ = ["BenchmarkFailure"]


class BenchmarkFailure(MigpoolError):
    """Nothing was measured; the message says why in one line."""
