"""Why the runs that stand for each model took as long as they did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from migpool.core.effects import Wait
from migpool.errors import UsageError
from migpool.flow.window import rooms_for
from migpool.lab.analysis.attribution import attribute
from migpool.lab.analysis.page_jobs import memory_of
from migpool.lab.analysis.path_walk import Link
from migpool.lab.analysis.whatif.resources import Freed, replays
from migpool.lab.analysis.whatif.words import because, named
from migpool.lab.run.result import AnalysisResult, LinkResult, ResourceResult, RunResult, SideTrace, TraceResult
from migpool.migration.report import DeviceReport, SideReport
from migpool.scenario.schema import Scenario


def representatives(runs: Sequence[RunResult]) -> list[int]:
    """The places of the runs to look into: of each model the completed one with the median downtime.

    Of an even number it is the faster of the two in the middle.
    """
    by_model: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for place, run in enumerate(runs):
        if run.outcome == "completed" and run.downtime_ms is not None:
            by_model[run.model].append((run.downtime_ms, place))
    return sorted(sorted(of_it)[(len(of_it) - 1) // 2][1] for of_it in by_model.values())


def analyse(source: SideReport, destination: SideReport, chunk: int) -> AnalysisResult | None:
    """Everything that a run's traces say about its downtime; ``None`` if it has none.

    Arguments:
        chunk: how long a buffer of the destination is, in bytes.
    """
    try:
        whole = attribute(source, destination)
    except UsageError:
        return None
    found = replays(source, destination)
    zero = source.stopped
    return AnalysisResult(
        why=because(found, whole),
        replayed_ms=None if found is None else found.replayed / 1e6,
        resources=[] if found is None else [_resource(one) for one in found.freed],
        path=[_link(link, zero) for link in whole.links],
        trace=TraceResult(source=SideTrace.of(source.spans, zero), destination=SideTrace.of(destination.spans, zero)),
        memory=budget_use(destination, chunk, zero),
    )


def buffer_size(scenario: Scenario, devices: Sequence[DeviceReport]) -> int:
    """How long the destination's buffers are in a scenario with these devices, in bytes."""
    in_need = sum(device.iterable for device in devices) + any(device.described for device in devices)
    return rooms_for(int(scenario.memory.budget), int(scenario.memory.chunk), in_need)[0]


def budget_use(destination: SideReport, chunk: int, zero: int) -> list[tuple[int, int]]:
    """The use of the destination's budget: every change, as (nanoseconds since ``zero``, bytes in use from then on).

    A buffer is taken just before a chunk's payload is received, and given back when the chunk has been loaded: nothing
    else has to be recorded on the data path. Pages of memory need no buffer.

    Arguments:
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


def _resource(one: Freed) -> ResourceResult:
    return ResourceResult(
        resource=one.resource,
        side="source" if one.side == "source" else "destination" if one.side else "",
        devices=list(one.devices),
        shorter_ms=one.shorter / 1e6,
        says=named(one),
    )


def _link(link: Link, zero: int) -> LinkResult:
    return LinkResult(
        begin_ms=(link.begin - zero) / 1e6,
        end_ms=(link.end - zero) / 1e6,
        kind=link.kind,
        side=link.side,
        device=link.device,
        thread=link.thread,
        chunk=link.index,
        behind=link.behind,
    )
