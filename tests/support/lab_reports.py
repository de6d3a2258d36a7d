"""Made-up reports and results for the tests of the lab."""

from __future__ import annotations

from dataclasses import replace

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.device import Side, StateCosts
from migpool.lab.run.pair_result import PairResult, SideOutcome
from migpool.lab.run.result import LabResult, MachineFacts, MemoryResult, RunResult, ThreadCounts
from migpool.lab.run.side import SideResult
from migpool.migration.report import DeviceReport, SideReport
from migpool.migration.states import State

MS = 1_000_000
MIB = 1 << 20


def report(side: Side, outcome: State = State.COMPLETED, error: str = "", *, peer_gone: bool = False) -> SideReport:
    """A side of a migration whose machine stopped at 10 ms and ran at 30 ms."""
    source = side == "source"
    return SideReport(
        side=side,
        outcome=outcome,
        peer_gone=peer_gone,
        error=error,
        began=1 * MS,
        stopped=10 * MS if source else 0,
        running=30 * MS,
        ended=41 * MS,
        clock="monotonic" if source else "",
        bytes=3 * MIB,
        threads_peak=4 if source else 6,
        budget=8 * MIB,
        high_water=2 * MIB,
        rss_peak=50 * MIB,
        devices=(
            DeviceReport("gpu", "emulated", iterable=True, bytes=2 * MIB, verified=True if source else None),
            DeviceReport("rtc", "captured", iterable=False, bytes=MIB if source else 0),
        ),
        spans=(
            Span(Wait.STOP, 0, -1, 10 * MS, 12 * MS, "migration"),
            Span(Wait.READ, 0, 0, 12 * MS, 20 * MS, "source-worker-0"),
            Span(Wait.SEND, 0, 0, 20 * MS, 21 * MS, "source-worker-0"),
        ),
    )


def result(side: Side, outcome: State = State.COMPLETED, error: str = "", *, peer_gone: bool = False) -> SideResult:
    """The same with costs."""
    return SideResult(report(side, outcome, error, peer_gone=peer_gone), (StateCosts(read=0.5, shared_lock="fw"), None))


def pair(source: SideResult | str, destination: SideResult | str, *, cancelled: bool = False) -> PairResult:
    """Two processes: a result, or how one ended without."""
    sides = [SideOutcome(None, one) if isinstance(one, str) else SideOutcome(one, "") for one in (source, destination)]
    return PairResult(sides[0], sides[1], cancelled)


def freed(one: PairResult) -> PairResult:
    """The same, the source having been ended because the destination had."""
    return replace(one, source=replace(one.source, freed=True))


def run(model: str, repeat: int, downtime: float | None, **more: object) -> RunResult:
    """A run that completed, or failed if it has no downtime."""
    made = RunResult(
        model=model,
        repeat=repeat,
        seed=repeat,
        outcome="failed" if downtime is None else "completed",
        verified=downtime is not None,
        downtime_ms=downtime,
        total_ms=None if downtime is None else downtime * 2,
        threads_peak=10,
        threads=ThreadCounts(source=4, destination=6),
        clock="monotonic",
        attribution={} if downtime is None else {"device read": downtime * 0.75, "send": downtime * 0.25},
        memory=MemoryResult(budget_bytes=8 * MIB, high_water_bytes=3 * MIB, peak_rss_bytes=50 * MIB),
    )
    return made.model_copy(update=more)


def lab_result_of(*runs: RunResult) -> LabResult:
    """A file's worth of runs."""
    facts = MachineFacts(system="Linux", cpus=2, python="CPython 3", migpool="1")
    return LabResult(schema=1, scenario="x", settings={}, machine=facts, runs=list(runs))
