"""How much of the destination's memory budget was in use over time, from the spans that its threads left anyway.

A buffer is taken just before a chunk's payload is received, and given back when the chunk has been loaded: nothing else
has to be recorded, and nothing is added to the data path. Pages of memory need no buffer.
"""

from __future__ import annotations

from migpool.core.effects import Wait
from migpool.lab.pagejobs import memory_of
from migpool.migration.report import SideReport

__all__ = ["budget_use"]


def budget_use(destination: SideReport, chunk: int, zero: int) -> list[tuple[int, int]]:
    """Every change, as (nanoseconds since ``zero``, bytes in use from then on).

    Arguments:
        destination: the destination's report.
        chunk: how long a buffer is, in bytes.
        zero: the time to count from, on the destination's clock.
    """
    memory = memory_of(destination)
    changes = [
        (span.begin - zero, 1) for span in destination.spans if span.wait is Wait.RECEIVE and span.slot != memory
    ]
    changes += [(span.end - zero, -1) for span in destination.spans if span.wait is Wait.LOADED]
    used: dict[int, int] = {}
    out = 0
    for time, change in sorted(changes):
        out = max(0, out + change)
        used[time] = out * chunk
    return list(used.items())
