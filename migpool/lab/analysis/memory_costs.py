"""What the memory's part of a downtime takes at least, as the runs show it.

How fast pages can cross at most is what no trace says. What it says is how long at least one packet was on its way into
a socket, and out of one; the pages of the rounds before the stop, and those after it, over these times are rates that
were reached. The best of all runs bounds those runs, and is as good an estimate for others as the runs are many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.lab.analysis.page_jobs import memory_of
from migpool.lab.analysis.span_index import covered
from migpool.migration.report import SideReport


@dataclass(frozen=True, slots=True)
class MemoryCosts:
    """A memory's own work after the stop.

    Arguments:
        look: the look at which pages have been written, before any is sent, in seconds.
        sync: the SYNCs, when all have been sent, in seconds.
        rate: bytes of pages a second that were reached at best; 0 if no page was sent.
    """

    look: float
    sync: float
    rate: float


def memory_costs(runs: Sequence[tuple[SideReport, SideReport]]) -> MemoryCosts:
    """The least of some runs of one machine.

    Arguments:
        runs: source's and destination's report of each; completed, of a machine with a memory.
    """
    looks, syncs, sent, received = [], [], [0.0], [0.0]
    for source, destination in runs:
        memory = memory_of(source)
        own = [span for span in source.spans if span.slot == memory and span.begin >= source.stopped]
        looks.append(min((one.duration for one in own if one.wait is Wait.SCAN and one.index < 0), default=0))
        syncs.append(min((one.duration for one in own if one.wait is Wait.SYNC), default=0))
        sends = {one.index: one for one in source.spans if one.slot == memory and one.wait is Wait.SEND}
        receives = {one.index: one for one in destination.spans if one.slot == memory and one.wait is Wait.RECEIVE}
        told = source.devices[memory]
        for late, size in ((False, told.bytes_before_stop), (True, told.bytes_after_stop)):
            numbers = [number for number, one in sends.items() if (one.begin >= source.stopped) is late]
            sent.append(_rate(size, (sends[number] for number in numbers)))
            received.append(_rate(size, (receives[number] for number in numbers if number in receives)))
    return MemoryCosts(min(looks) / 1e9, min(syncs) / 1e9, min(max(sent), max(received)))


def _rate(size: int, spans: Iterable[Span]) -> float:
    """Bytes a second, over the time in which at least one of the spans was going on."""
    whole = covered((span.begin, span.end) for span in spans)
    return size / (whole / 1e9) if whole else 0.0
