"""What one run says of its downtime is not told where another run of the same table contradicts it."""

from __future__ import annotations

import pytest

from migpool.lab.analysis.why import consistent
from migpool.lab.run.result import AnalysisResult, ResourceResult, RunResult, SideTrace, ThreadCounts, TraceResult
from tests.support.lab_reports import run

NOTHING = SideTrace(threads=[], spans=[])
KINDS = {"queued": 60.0, "device read": 40.0}


def resource(name: str, shorter: float, side: str = "", devices: tuple[str, ...] = ()) -> ResourceResult:
    made = {"resource": name, "side": side, "devices": list(devices), "shorter_ms": shorter, "says": f"it is {name}"}
    return ResourceResult.model_validate(made)


def told(model: str, downtime: float, threads: int, *resources: ResourceResult) -> RunResult:
    analysis = AnalysisResult(
        why=f"it is {resources[0].resource}." if resources else "",
        replayed_ms=downtime,
        resources=list(resources),
        path=[],
        trace=TraceResult(source=NOTHING, destination=NOTHING),
        memory=[],
    )
    counts = ThreadCounts(source=threads, destination=threads)
    return run(model, 1, downtime, threads=counts, attribution=KINDS, analysis=analysis)


def why(first: RunResult, *others: RunResult) -> str:
    analysis = consistent([first, *others])[0].analysis
    assert analysis is not None
    return analysis.why


WORKERS = resource("workers", 40.0)
CHANNELS = resource("channels", 38.0)
SHARED = resource("shared by writes", 60.0, "destination", ("a", "b"))
SLOW = resource("slow device", 60.0, "", ("a",))


def test_too_few_threads_are_not_told_where_more_of_them_were_no_help() -> None:
    one = told("inline", 100.0, 2, WORKERS, CHANNELS)
    assert why(one) == "it is workers."
    assert why(one, told("per-device", 70.0, 8)) == "it is workers."
    assert why(one, told("per-device", 95.0, 8)) == "it is channels. Without that: 62.0 ms instead of 100 ms."
    assert why(one, told("other", 95.0, 2)) == "it is workers."  # it has no more threads
    alone = told("inline", 100.0, 2, WORKERS)
    assert why(alone, told("per-device", 95.0, 8)) == "no one thing. The largest part is queued, 60.0 ms (60 %)."


def test_a_pool_with_as_many_threads_as_channels_has_too_few_channels() -> None:
    channels = resource("channels", 41.0)
    assert why(told("pool", 100.0, 2, WORKERS, channels)).startswith("it is channels.")
    assert why(told("pool:queue+receiver", 100.0, 2, WORKERS, channels)).startswith("it is channels.")
    assert why(told("pool:1", 100.0, 2, WORKERS, channels)) == "it is workers."
    assert why(told("inline", 100.0, 2, WORKERS, channels)) == "it is workers."


@pytest.mark.parametrize("claim", [SHARED, SLOW], ids=["shared", "slow"])
def test_what_would_hold_under_every_model_is_not_told_where_one_is_quicker(claim: ResourceResult) -> None:
    one = told("poll", 100.0, 3, claim)
    assert why(one, told("pool", 90.0, 3)) == f"it is {claim.resource}."
    assert why(one, told("pool", 45.0, 3)).startswith("no one thing.")
    assert consistent([one, told("pool", 45.0, 3)])[0].analysis is not None
    kept = consistent([one, told("pool", 45.0, 3)])[0].analysis
    assert kept is not None
    assert kept.resources == []
