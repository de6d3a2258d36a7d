"""Two sides' times on one clock."""

from __future__ import annotations

from dataclasses import replace

from migpool.migration.report import SideReport


def on_source_clock(source: SideReport, destination: SideReport) -> SideReport:
    """The destination's report with its times on the source's clock.

    Where the two have no clock in common, the moment at which the machine ran is known on both: by the destination's
    own clock, and by the source's as the return path tells it. What lies between the two is taken off all its times.
    """
    if source.clock != "return-path" or not source.running or not destination.running:
        return destination
    ahead = destination.running - source.running
    spans = tuple(replace(span, begin=span.begin - ahead, end=span.end - ahead) for span in destination.spans)
    times = {name: at - ahead for name in ("began", "running", "ended") if (at := getattr(destination, name))}
    return replace(destination, spans=spans, **times)
