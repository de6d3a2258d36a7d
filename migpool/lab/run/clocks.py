"""Two hosts' clocks, related by messages that went there and back during the migration.

What the destination answered, it answered after it had been asked and before the answer was heard: each exchange says
between what its clock is ahead of the source's. All of them must be right, so what they have in common is the answer;
half of its width is how far that can be off. If both ways take equally long, as on a link that is idle, it is off by
much less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from migpool.migration.report import Exchange, SideReport
from migpool.units import format_duration

EXCHANGES: Final = 16
"""Messages there and back by which two hosts' clocks are related."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """How the destination's clock stands to the source's, in nanoseconds.

    Arguments:
        ahead: by how much it is ahead.
        uncertainty: how far that can be off, to either side.
        exchanges: by how many messages there and back that is known.
    """

    ahead: int
    uncertainty: int
    exchanges: int

    def __str__(self) -> str:
        off = format_duration(self.uncertainty / 1e9)
        return f"{standing(self.ahead)}, at most {off} off, by {self.exchanges} messages and answers"


def standing(ahead: int) -> str:
    """By how much the destination's clock is ahead of the source's, or behind it, in words; in nanoseconds."""
    way = "ahead of" if ahead >= 0 else "behind"
    return f"the destination's is {format_duration(abs(ahead) / 1e9)} {way} the source's"


def relate(source: Sequence[Exchange], destination: Sequence[Exchange]) -> Clocks | None:
    """How the clocks stand, by both sides' exchanges; ``None`` if they have none in common."""
    answered = {one.value: one.begin for one in destination}
    known = [
        (answered[one.value] - one.end, answered[one.value] - one.begin) for one in source if one.value in answered
    ]
    if not known:
        return None
    least, most = max(least for least, _ in known), min(most for _, most in known)
    if least > most:
        # The clocks have drifted from one exchange to the next: the quickest one is nearest to the truth.
        least, most = min(known, key=lambda one: one[1] - one[0])
    return Clocks((least + most) // 2, (most - least + 1) // 2, len(known))


def on_one_clock(source: SideReport, destination: SideReport) -> tuple[SideReport, SideReport, Clocks | None]:
    """Both reports by the source's clock.

    Returns:
        The reports, and how the clocks stood: ``None`` if there is one clock, or nothing but the estimate of when the
        machine ran relates the two.
    """
    if source.clock != "return-path":
        return source, destination, None
    clocks = relate(source.exchanges, destination.exchanges)
    if clocks is None:
        if source.running and destination.running:
            # The one moment that is known on both: by the destination's own clock, and as the return path tells it.
            destination = _moved(destination, destination.running - source.running)
        return source, destination, None
    destination = _moved(destination, clocks.ahead)
    return replace(source, running=destination.running or source.running, clock="exchanges"), destination, clocks


def _moved(report: SideReport, ahead: int) -> SideReport:
    spans = tuple(replace(span, begin=span.begin - ahead, end=span.end - ahead) for span in report.spans)
    times = {name: at - ahead for name in ("began", "stopped", "running", "ended") if (at := getattr(report, name))}
    return replace(report, spans=spans, **times)
