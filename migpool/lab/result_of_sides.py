"""A run's result, made of what its two sides report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from migpool.lab.analysis.critical_path import attribute
from migpool.lab.analysis.precopy_saving import precopy_saving
from migpool.lab.report.chrome_trace import TracedRun
from migpool.lab.run.link.use import LinkUse
from migpool.lab.run.machine_facts import machine_facts
from migpool.lab.run.pair_result import PairResult
from migpool.lab.run.result import (
    LabResult,
    LowerBound,
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
        clocks="" if pair.clocks is None else str(pair.clocks),
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
                device.completed_by(one) if (one := there.get(device.name)) else device for device in source.devices
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
