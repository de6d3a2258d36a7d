"""Why the runs that stand for each model took as long as they did."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final, Protocol, TypeVar

from migpool.core.effects import Wait
from migpool.device import StateCosts
from migpool.errors import UsageError
from migpool.lab.analysis.attribution import Attribution
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.analysis.page_jobs import memory_of
from migpool.lab.analysis.whatif.resources import Freed, replays
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


def analyse(
    source: SideReport, destination: SideReport, chunk: int, costs: Sequence[StateCosts | None] = ()
) -> AnalysisResult | None:
    """Everything that a run's traces say about its downtime; ``None`` if it has none.

    Arguments:
        chunk: how long a buffer of the destination is, in bytes.
        costs: what the devices declare, by slot; empty if none declares anything.
    """
    try:
        whole = attribute(source, destination)
    except UsageError:
        return None
    found = replays(source, destination, costs)
    zero = source.stopped
    replayed = None if found is None else found.replayed / 1e6
    resources = [
        ResourceResult(
            resource=one.resource,
            side=one.side,
            devices=list(one.devices),
            shorter_ms=one.shorter / 1e6,
            says=named(one),
        )
        for one in (() if found is None else found.freed)
    ]
    return AnalysisResult(
        why=because(resources, whole.downtime / 1e6, replayed, whole.kinds),
        replayed_ms=replayed,
        resources=resources,
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
NAMED = 2


def because(
    resources: Sequence[ResourceResult], downtime: float, replayed: float | None, kinds: Mapping[str, float]
) -> str:
    """What limits the downtime, in a sentence or two; what is not sure is called so. Times are milliseconds.

    Arguments:
        replayed: the downtime as the replay has it; ``None`` without one.
        kinds: the downtime by kind of wait, the largest first.
    """
    kind, spent = next(iter(kinds.items()), ("other", 0.0))
    first = reason(resources)
    if replayed is None or first is None or first.shorter_ms < WORTH_NAMING * downtime:
        share = 100 * spent / downtime if downtime else 0
        return f"no one thing. The largest part is {kind}, {_time(spent * 1e6)} ({share:.0f} %)."
    said = f"{first.says}. {instead(max(0.0, downtime - first.shorter_ms), downtime)}"
    short = next((one for one in resources if one.resource == "processors" and one is not first), None)
    if short is not None and short.shorter_ms >= WORTH_NAMING * downtime:
        said += f" Besides, {short.says}. {instead(downtime - short.shorter_ms, downtime)}"
    away = replayed / downtime - 1
    return said if abs(away) <= TRUSTED else f"{said} Not sure: the replay is {100 * away:+.0f} % off."


def instead(without: float, downtime: float) -> str:
    """What the downtime would be without the reason, in milliseconds, as a sentence."""
    return f"Without that: {_time(without * 1e6)} instead of {_time(downtime * 1e6)}."


def consistent(runs: Sequence[RunResult]) -> list[RunResult]:
    """Runs of one scenario, without what one says that others contradict.

    That a pool has too few threads is told as what it follows from where it has as many as there are channels. That
    threads are too few at all is contradicted by a model that has more of them and is not shorter by half of what was
    promised: the replay knows how many threads there were, not what the processors, and what the threads share, allow.
    That devices share something, or that one is slow, would be so under every model: it is contradicted by one that is
    shorter by half of that without.
    """
    return [_reconsidered(run, runs) for run in runs]


_BY_CHANNELS: Final = re.compile(r"(pool|poll)(:[a-z]+)*(\+(pool|poll|receiver)(:[a-z]+)*)?( .*)?")
"""Models that have as many threads as channels unless they are told a number."""


def _reconsidered(run: RunResult, runs: Sequence[RunResult]) -> RunResult:
    if run.analysis is None or run.downtime_ms is None:
        return run
    kept = [one for one in run.analysis.resources if not _contradicted(one, run, runs)]
    channels = max((one.shorter_ms for one in kept if one.resource == "channels"), default=0.0)
    if _BY_CHANNELS.fullmatch(run.model):
        kept = [one for one in kept if one.resource != "workers" or one.shorter_ms > channels]
    if len(kept) == len(run.analysis.resources):
        return run
    why = because(kept, run.downtime_ms, run.analysis.replayed_ms, run.attribution)
    return run.model_copy(update={"analysis": run.analysis.model_copy(update={"resources": kept, "why": why})})


def _contradicted(one: ResourceResult, run: RunResult, runs: Sequence[RunResult]) -> bool:
    promised = (run.downtime_ms or 0.0) - one.shorter_ms / 2
    if one.resource.startswith("shared by ") or one.resource == "slow device":
        others = [other for other in runs if other.model != run.model and other.outcome == "completed"]
        return any(other.downtime_ms is not None and other.downtime_ms < promised for other in others)
    if one.resource not in ("workers", "receiving threads") or one.shorter_ms < WORTH_NAMING * (run.downtime_ms or 0.0):
        return False
    sides = [one.side] if one.side else ["source", "destination"]
    more: defaultdict[str, list[float]] = defaultdict(list)
    for other in runs:
        has_more = all((getattr(other.threads, side) or 0) > (getattr(run.threads, side) or 0) for side in sides)
        if other.model != run.model and other.outcome == "completed" and other.downtime_ms is not None and has_more:
            more[other.model].append(other.downtime_ms)
    best = min((median(times) for times in more.values()), default=None)
    return best is not None and best > promised


class _Resource(Protocol):
    @property
    def resource(self) -> str: ...

    @property
    def side(self) -> str: ...

    @property
    def shorter(self) -> float: ...


R = TypeVar("R", bound=_Resource)


def reason(freed: Sequence[R]) -> R | None:
    """The resource to call the reason: what is specific before what is not, and one side's before both sides'.

    Were nothing to take time on its way or in a processor, almost anything would be shorter: that is the reason only
    where nothing else is good for half as much. Threads are the reason, and not the channels that a pool has as many
    of, where they alone are good for almost as much.
    """
    if not freed:
        return None
    most = max(one.shorter for one in freed)
    specific = [one for one in freed if one.resource not in UNSPECIFIC and one.shorter >= most / 2]
    if not specific:
        return max(freed, key=lambda one: one.shorter)
    best = max(specific, key=lambda one: one.shorter)
    if best.resource == "channels":
        threads = [one for one in specific if one.resource == "workers" and one.shorter >= ENOUGH * best.shorter]
        best = max(threads, key=lambda one: one.shorter, default=best)
    sides = [one for one in specific if one.resource == best.resource and one.side]
    return next((one for one in sides if one.shorter >= ENOUGH * best.shorter), best)


def named(one: Freed) -> str:
    """A resource as a reason, in a clause."""
    at = f"at the {one.side}" if one.side else "at both sides"
    match one.resource:
        case "shared by reads" | "shared by writes" | "shared by reads and writes":
            what = one.resource.removeprefix("shared by ")
            return (
                f"the {what} of {listed(one.devices)} never run at the same time: they share a lock, or something "
                "like it, outside of migpool"
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
        case "sections":
            return (
                f"{len(one.devices)} devices are saved and loaded one after the other as sections of the main channel"
            )
        case "link":
            return "state takes its time on the way through the sockets"
        case "memory budget":
            return "the destination's memory budget is short: the source waits for room"
        case "processors":
            return f"there are too few processors: for {_time(one.wait)} some thread was ready and had none"
        case _:
            return "threads compute, or wait for a processor, between their waits"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; of many, the first ones and how many more there are."""
    if len(names) > NAMED + 1:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _time(nanoseconds: float) -> str:
    return format_duration(nanoseconds / 1e9)
