"""Why the runs that stand for each model took as long as they did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from migpool.core.effects import Wait
from migpool.errors import UsageError
from migpool.lab.analysis.attribution import Attribution
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.analysis.page_jobs import memory_of
from migpool.lab.analysis.whatif.resources import Freed, Replays, replays
from migpool.lab.run.result import AnalysisResult, LinkResult, ResourceResult, RunResult, SideTrace, TraceResult
from migpool.migration.report import SideReport
from migpool.units import format_duration


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
        resources=[
            ResourceResult(
                resource=one.resource,
                side=one.side,
                devices=list(one.devices),
                shorter_ms=one.shorter / 1e6,
                says=named(one),
            )
            for one in (() if found is None else found.freed)
        ],
        path=path_of(whole, zero),
        trace=TraceResult(source=SideTrace.of(source.spans, zero), destination=SideTrace.of(destination.spans, zero)),
        memory=budget_use(destination, chunk, zero),
    )


def path_of(whole: Attribution, zero: int) -> list[LinkResult]:
    """The critical path as the result has it; ``zero`` is the time to count from, in nanoseconds."""
    return [
        LinkResult(
            begin_ms=(link.begin - zero) / 1e6,
            end_ms=(link.end - zero) / 1e6,
            kind=link.kind,
            side=link.side,
            device=link.device,
            thread=link.thread,
            chunk=link.index,
            behind=link.behind,
        )
        for link in whole.links
    ]


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


WORTH_NAMING = 0.05
"""The share of the downtime that a resource must be good for to be called the reason."""
TRUSTED = 0.15
"""How far the replay may be from what was measured before the sentence says so."""
UNSPECIFIC = ("link", "CPU", "memory budget")
ENOUGH = 0.95
"""The share of what both sides of a resource are good for from which on one side is the reason by itself."""
NAMED = 4


def because(found: Replays | None, attribution: Attribution) -> str:
    """What limits the downtime, in a sentence or two; what is not sure is called so."""
    kind, spent = next(iter(attribution.nanoseconds.items()), ("other", 0))
    share = 100 * spent / max(1, attribution.downtime)
    largest = f"no one thing. The largest part is {kind}, {_time(spent)} ({share:.0f} %)."
    first = None if found is None else reason(found.freed)
    if found is None or first is None or first.shorter < WORTH_NAMING * found.downtime:
        return largest
    said = f"{named(first)}. {instead(max(0, found.downtime - first.shorter), found.downtime)}"
    away = found.replayed / found.downtime - 1
    return said if abs(away) <= TRUSTED else f"{said} Not sure: the replay is {100 * away:+.0f} % off."


def instead(without: int, downtime: int) -> str:
    """What the downtime would be without the reason, in nanoseconds, as a sentence."""
    return f"Without that: {_time(without)} instead of {_time(downtime)}."


def reason(freed: Sequence[Freed]) -> Freed | None:
    """The resource to call the reason: what is specific before what is not, and one side's before both sides'.

    Were nothing to take time on its way or in a processor, almost anything would be shorter: that is the reason only
    where nothing else is good for half as much.
    """
    if not freed:
        return None
    most = max(one.shorter for one in freed)
    specific = [one for one in freed if one.resource not in UNSPECIFIC and one.shorter >= most / 2]
    if not specific:
        return max(freed, key=lambda one: one.shorter)
    best = max(specific, key=lambda one: one.shorter)
    sides = [one for one in specific if one.resource == best.resource and one.side]
    return next((one for one in sides if one.shorter >= ENOUGH * best.shorter), best)


def named(one: Freed) -> str:
    """A resource as a reason, in a clause."""
    at = f"at the {one.side}" if one.side else "at both sides"
    match one.resource:
        case "shared by reads" | "shared by writes" | "shared by reads and writes":
            what = one.resource.removeprefix("shared by ")
            return (
                f"the {what} of {listed(one.devices)} never run at the same time: these devices share a lock, or "
                "something like it, outside of migpool"
            )
        case "slow device":
            return f"{one.devices[0]} is slow: it takes {_time(one.turn)}, the next slowest {_time(one.wait)}"
        case "big lock":
            doing = {"source": "are saved", "destination": "load"}.get(one.side, "are saved, and load,")
            return f"the devices' configs {doing} one after the other under the big lock"
        case "workers":
            return f"there are too few threads {at}: jobs wait for one that works for another device"
        case "receiving threads":
            return "there are too few channels: their threads load, too, and what comes meanwhile lies in the sockets"
        case "channels":
            return "there are too few channels: chunks wait for an idle one"
        case "pre-copied":
            return "the destination is still loading what was sent before the stop"
        case "link":
            return "state takes its time on the way through the sockets"
        case "memory budget":
            return "the destination's memory budget is short: the source waits for room"
        case _:
            return "threads compute, or wait for a processor, between their waits"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; of many, the first ones and how many more there are."""
    if len(names) > NAMED + 1:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _time(nanoseconds: int) -> str:
    return format_duration(nanoseconds / 1e9)
