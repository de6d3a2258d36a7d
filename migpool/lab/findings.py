"""From what the two sides say of a run to what is told of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from typing import Literal

from migpool.core.effects import Wait
from migpool.device import StateCosts
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.analysis.span_index import covered
from migpool.lab.report.chrome_trace import TracedRun
from migpool.lab.run.link.use import LinkUse
from migpool.lab.run.processes import PairResult
from migpool.lab.run.result import (
    LabResult,
    LowerBound,
    MachineFacts,
    MemoryResult,
    RunResult,
    ThreadCounts,
)
from migpool.lab.run.side import SideResult
from migpool.migration.report import SideReport
from migpool.migration.states import State
from migpool.scenario.schema import Scenario

MS = 1e-6
"""Milliseconds in a nanosecond."""

Outcome = Literal["completed", "failed", "cancelled", "unconfirmed"]
_OUTCOMES: dict[State, Outcome] = {
    State.COMPLETED: "completed",
    State.CANCELLED: "cancelled",
    State.UNCONFIRMED: "unconfirmed",
    State.FAILED: "failed",
}


def run_result(model: str, repeat: int, seed: int, pair: PairResult) -> RunResult:
    """What is told of a run between two processes; its lower bound is added later."""
    source, destination = pair.source.result, pair.destination.result
    found = RunResult(
        model=model,
        repeat=repeat,
        seed=seed,
        outcome=_outcome(pair),
        verified=pair.verified,
        rounds=list(pair.rounds),
        link=_seen_from(pair),
        warnings=_warnings(pair),
        error=pair.error,
    )
    return _with_sides(found, *(None if side is None else side.report for side in (source, destination)))


def source_result(model: str, repeat: int, seed: int, result: SideResult, warnings: Sequence[str] = ()) -> RunResult:
    """What is told of a run of which only the source is known."""
    found = RunResult(
        model=model,
        repeat=repeat,
        seed=seed,
        outcome=_OUTCOMES.get(result.report.outcome, "failed"),
        verified=result.verified,
        precopy_saved_ms=precopy_saving(result.report),
        warnings=list(warnings),
        error=result.error,
    )
    return _with_sides(found, result.report, None)


def with_bound(run: RunResult, bound: LowerBound | None) -> RunResult:
    """The run, beside what could not have been undercut."""
    if bound is None:
        return run
    efficiency = None if run.downtime_ms is None else bound.efficiency(run.downtime_ms)
    return run.model_copy(update={"lower_bound_ms": bound.milliseconds, "efficiency": efficiency})


def lab_result(scenario: Scenario, runs: Sequence[RunResult], bound: LowerBound | None) -> LabResult:
    """Everything, for the file that ``--json`` writes."""
    return LabResult(
        schema=1,
        scenario=scenario.name,
        settings=scenario.model_dump(mode="json"),
        machine=machine_facts(),
        lower_bound=bound,
        runs=list(runs),
    )


def machine_facts() -> MachineFacts:
    """Where this runs."""
    return MachineFacts(
        # A distributor's suffix names a build, not what the measurements depend on.
        system=f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        cpus=len(os.sched_getaffinity(0)),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        migpool=version("migpool"),
    )


def device_costs(source: SideResult, destination: SideResult) -> list[StateCosts | None]:
    """What each device's own work takes, in the machine's order.

    A lock that only one end knows cannot hold up the other: it counts only if both have it.
    """
    return [
        None if ours is None else ours if theirs is None or theirs.shared_lock else replace(ours, shared_lock="")
        for ours, theirs in zip(source.costs, destination.costs, strict=True)
    ]


def least_costs(runs: Sequence[Sequence[StateCosts | None]]) -> list[StateCosts | None]:
    """The least that each device declares in any run: after pre-copy, what is left to do differs from run to run.

    Arguments:
        runs: what :func:`device_costs` gives for each run, at least one.
    """
    return [_least(declared) for declared in zip(*runs, strict=True)]


def _least(declared: Sequence[StateCosts | None]) -> StateCosts | None:
    known = [costs for costs in declared if costs is not None]
    if len(known) < len(declared):
        return None
    times = [field.name for field in fields(StateCosts) if field.name != "shared_lock"]
    lock = known[0].shared_lock if len({costs.shared_lock for costs in known}) == 1 else ""
    return StateCosts(**{name: min(getattr(costs, name) for costs in known) for name in times}, shared_lock=lock)


def _outcome(pair: PairResult) -> Outcome:
    results = (pair.source.result, pair.destination.result)
    states = [State.FAILED if result is None else result.report.outcome for result in results]
    if pair.cancelled and not all(state is State.COMPLETED for state in states):
        return "cancelled"
    for state in (State.UNCONFIRMED, State.FAILED, State.CANCELLED):
        if state in states:
            return _OUTCOMES[state]
    return "failed" if pair.error else "completed"


def _with_sides(run: RunResult, source: SideReport | None, destination: SideReport | None) -> RunResult:
    """The run with what the sides say of it whose reports are there."""
    reports = [report for report in (source, destination) if report is not None]

    def each(of: Callable[[SideReport], int]) -> ThreadCounts:
        ours, theirs = (None if report is None else of(report) for report in (source, destination))
        return ThreadCounts(source=ours, destination=theirs)

    told: dict[str, object] = {
        "threads_peak": sum(report.threads_peak for report in reports),
        "threads": each(lambda report: report.threads_peak),
        "threads_before": each(lambda report: report.threads_before),
        "remarks": [f"at the {report.side}, {remark}" for report in reports for remark in report.remarks],
    }
    if source is not None:
        ran = source.running and source.stopped
        there = {device.name: device for device in destination.devices} if destination is not None else {}
        told |= {
            "downtime_ms": (source.running - source.stopped) * MS if ran else None,
            "total_ms": (source.ended - source.began) * MS,
            "bytes": source.bytes,
            "bytes_before_stop": source.precopied,
            "bytes_after_stop": source.bytes - source.precopied,
            "clock": source.clock,
            "connections": list(source.connections),
            "devices": [
                replace(device, remark=one.remark, high_water=one.high_water)
                if (one := there.get(device.name))
                else device
                for device in source.devices
            ],
        }
    if destination is not None:
        told["memory"] = MemoryResult(
            budget_bytes=destination.budget,
            high_water_bytes=destination.high_water,
            peak_rss_bytes=destination.rss_peak,
        )
    if source is not None and destination is not None and told["downtime_ms"] is not None:
        told["attribution"] = attribute(source, destination).kinds
        told["precopy_saved_ms"] = precopy_saving(source, destination)
    return run.model_copy(update=told)


def _seen_from(pair: PairResult) -> LinkUse | None:
    """The link's use, its times counted from the stop at the source, or from the beginning without one."""
    if pair.link is None:
        return None
    source = pair.source.result
    zero = 0 if source is None else source.report.stopped or source.report.began
    ways = {way: [(at - zero, count) for at, count in getattr(pair.link, way)] for way in ("forth", "back")}
    return pair.link.model_copy(update=ways)


def _warnings(pair: PairResult) -> list[str]:
    """What either side was warned of; what both were is told once."""
    ours, theirs = pair.source.warnings, pair.destination.warnings
    both = [text for text in ours if text in theirs]
    return [
        *(f"at both sides, {text}" for text in both),
        *(f"at the source, {text}" for text in ours if text not in both),
        *(f"at the destination, {text}" for text in theirs if text not in both),
    ]


def traced_source(model: str, result: SideResult) -> TracedRun:
    """A run of which only the source is known, for a trace."""
    here = result.report
    nothing = replace(here, side="destination", outcome=State.NONE, error="", running=0, spans=())
    return TracedRun(replace(here, running=0), nothing, model)


@dataclass(slots=True)
class _Moving:
    """When one device's state moved after the stop, in nanoseconds; ``end`` is 0 if none did."""

    begin: int = 0
    end: int = 0
    reads: int = 0


def precopy_saving(source: SideReport, destination: SideReport | None = None) -> float | None:
    """About how much longer the downtime would have been without pre-copy, in milliseconds.

    What a device sent before the stop, less what changed afterwards and had to be sent anew, would have had to move
    after it. It is taken to move as fast as the device's state did after the stop in the same run: the bytes of that
    state over the time from the begin of its first read to the end of its last send, or of its last write where the
    destination's times are on the same clock. Devices move at the same time as far as they did: the sum of their times
    is divided by how many of them moved at once on average.

    Returns:
        The estimate; ``None`` if nothing was pre-copied, or no such device had any state left to measure by. A device
        that had none left is not counted.
    """
    clocked = destination is not None and source.clock == "monotonic"
    moving = _moving(source, destination if clocked else None)
    alone = 0.0
    known = False
    for slot, device in enumerate(source.devices):
        after = device.bytes_after_stop - device.config
        if device.bytes_before_stop and after > 0 and slot in moving:
            known = True
            seconds = (moving[slot].end - moving[slot].begin) / 1e9
            alone += max(0, device.bytes_before_stop - device.redone) * seconds / after
    if not known:
        return None
    times = [(one.begin, one.end) for one in moving.values()]
    at_once = sum(end - begin for begin, end in times) / covered(times)
    return alone * 1e3 / at_once


def _moving(source: SideReport, destination: SideReport | None) -> dict[int, _Moving]:
    found: dict[int, _Moving] = {}
    for span in source.spans:
        if span.wait is Wait.READ:
            one = found.setdefault(span.slot, _Moving(span.begin))
            one.begin = min(one.begin, span.begin)
            one.reads = max(one.reads, span.index)
    ends = [span for span in source.spans if span.wait is Wait.SEND]
    if destination is not None:
        ends += [span for span in destination.spans if span.wait is Wait.WRITE]
    for span in ends:
        # The last read finds nothing more; the config is sent under its index, and is no state.
        if span.slot in found and span.index < found[span.slot].reads:
            found[span.slot].end = max(found[span.slot].end, span.end)
    return {slot: one for slot, one in found.items() if one.end > one.begin}
