"""What the page shows, as values: the page's script draws nothing that is not said here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pydantic import JsonValue

from migpool.lab.analysis import representatives
from migpool.lab.kinds import MEANINGS
from migpool.lab.page.timeline import Lanes, lanes_of
from migpool.lab.result import LabResult, RunResult
from migpool.lab.summary import ModelSummary, summarize

__all__ = ["contents"]


def contents(results: Sequence[LabResult]) -> dict[str, JsonValue]:
    """Everything for the script.

    Arguments:
        results: each is a part of the page of its own.
    """
    return {
        "kinds": dict(MEANINGS),
        "parts": [_part(result) for result in results],
    }


def _part(result: LabResult) -> dict[str, JsonValue]:
    shown = {result.runs[place].model: result.runs[place] for place in looked_into(result.runs)}
    downtimes: defaultdict[str, list[JsonValue]] = defaultdict(list)
    for run in result.runs:
        if run.downtime_ms is not None and run.outcome == "completed":
            downtimes[run.model].append(run.downtime_ms)
    return {
        "scenario": result.scenario,
        "bound": None if result.lower_bound is None else result.lower_bound.milliseconds,
        "models": [
            _model(one, downtimes[one.model], shown.get(one.model))
            for one in summarize(result.runs)
            if one.downtime is not None
        ],
    }


def looked_into(runs: Sequence[RunResult]) -> list[int]:
    """The places of the runs that have an analysis, one a model; of joined files the one nearest the median."""
    found = []
    for place in representatives(runs):
        wanted = runs[place]
        of_it = [at for at, run in enumerate(runs) if run.model == wanted.model and run.analysis is not None]
        if of_it:
            middle = wanted.downtime_ms or 0.0
            found.append(min(of_it, key=lambda at: abs((runs[at].downtime_ms or 0.0) - middle)))
    return found


def _model(one: ModelSummary, downtimes: list[JsonValue], shown: RunResult | None) -> dict[str, JsonValue]:
    return {
        "name": one.model,
        "median": one.downtime,
        "downtimes": downtimes,
        "kinds": dict(one.kinds),
        "run": None if shown is None or shown.analysis is None else _run(shown),
    }


def _run(run: RunResult) -> dict[str, JsonValue]:
    assert run.analysis is not None
    analysis = run.analysis
    return {
        "repeat": run.repeat,
        "downtime": run.downtime_ms,
        "replayed": analysis.replayed_ms,
        "resources": [
            {"says": one.says, "name": one.resource, "side": one.side, "shorter": one.shorter_ms}
            for one in analysis.resources
        ],
        "path": [
            {
                "begin": link.begin_ms,
                "end": link.end_ms,
                "kind": link.kind,
                "device": link.device,
                "thread": link.thread,
                "chunk": link.chunk,
                "side": link.side,
                "behind": link.behind,
            }
            for link in analysis.path
        ],
        "lanes": {"thread": _lanes(lanes_of(run, "thread")), "device": _lanes(lanes_of(run, "device"))},
        "memory": [[time / 1e6, used] for time, used in analysis.memory],
        "budget": run.memory.budget_bytes,
        "devices": _devices(run),
    }


def _lanes(lanes: Lanes) -> dict[str, JsonValue]:
    words = list(dict.fromkeys(word for one in lanes.spans for word in (one.name, one.device, one.thread)))
    number = {word: at for at, word in enumerate(words)}
    return {
        "names": list[JsonValue](lanes.names),
        "words": list[JsonValue](words),
        "spans": [
            [
                one.lane,
                number[one.name],
                number[one.device],
                number[one.thread],
                one.chunk,
                round(one.begin, 4),
                round(one.end, 4),
            ]
            for one in lanes.spans
        ],
        "path": list[JsonValue](lanes.path),
        "leftOut": lanes.left_out,
    }


def _devices(run: RunResult) -> list[JsonValue]:
    """Each device: what it is, and how long it was on the critical path, in ms by kind."""
    assert run.analysis is not None
    spent: defaultdict[str, float] = defaultdict(float)
    for link in run.analysis.path:
        spent[link.device] += link.end_ms - link.begin_ms
    return [
        {
            "name": device.name,
            "note": device.note,
            "iterable": device.iterable,
            "bytes": device.bytes,
            "verified": device.verified,
            "path": spent[device.name],
        }
        for device in run.devices
    ]
