"""What the page shows, as values: the page's script draws nothing that is not said here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pydantic import JsonValue

from migpool.lab.analysis.kinds import BY_NAME
from migpool.lab.analysis.why import representatives
from migpool.lab.report.device_table import COLUMNS, device_rows
from migpool.lab.report.page.timeline import Lanes, lanes_of
from migpool.lab.report.summary import ModelSummary, summarize
from migpool.lab.run.result import LabResult, RunResult

FINEST = 4000
"""Into how many parts a downtime is divided, at the most, where things follow each other: more cannot be seen."""


def contents(results: Sequence[LabResult]) -> dict[str, JsonValue]:
    """Everything for the script."""
    return {
        "kinds": {
            name: {key: getattr(one, key) for key in ("meaning", "colour", "waits", "layer", "narrow")}
            for name, one in BY_NAME.items()
        },
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
    downtime = run.downtime_ms or 0.0
    drawn = {by: lanes_of(run, by) for by in ("thread", "device")}
    kept = thinned([(link.begin_ms, link.end_ms) for link in analysis.path], downtime)
    return {
        "repeat": run.repeat,
        "downtime": run.downtime_ms,
        "replayed": analysis.replayed_ms,
        "resources": [one.model_dump() for one in analysis.resources],
        "path": [{**analysis.path[at].model_dump(), "end_ms": end} for at, end in kept],
        "lanes": {by: _lanes(lanes, [at for at, _ in kept]) for by, lanes in drawn.items()},
        "memory": _memory(analysis.memory, downtime),
        "budget": run.memory.budget_bytes,
        "devices": {
            "head": list[JsonValue](COLUMNS),
            "rows": [[list(cell) for cell in row] for row in device_rows(run)],
        },
    }


def thinned(path: Sequence[tuple[float, float]], whole: float) -> list[tuple[int, float]]:
    """The links of a path that can be seen, by place, and where each ends: those too short go into the one before.

    Arguments:
        path: begin and end of each link; each begins where the one before ends.
    """
    kept: list[tuple[int, float]] = []
    for at, (begin, end) in enumerate(path):
        if kept and len(path) > FINEST and end - begin < whole / FINEST:
            kept[-1] = (kept[-1][0], end)
        else:
            kept.append((at, end))
    return kept


def _memory(samples: Sequence[tuple[int, int]], whole: float) -> list[JsonValue]:
    """The use of the budget in ms and bytes; of very many samples the highest in each part of the time."""
    if len(samples) <= FINEST:
        return [[time / 1e6, used] for time, used in samples]
    highest: dict[int, tuple[int, int]] = {}
    for time, used in samples:
        part = int(time / 1e6 / whole * FINEST)
        if part not in highest or used > highest[part][1]:
            highest[part] = (time, used)
    return [[time / 1e6, used] for time, used in highest.values()]


def _lanes(lanes: Lanes, path: Sequence[int]) -> dict[str, JsonValue]:
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
        "path": [lanes.path[at] for at in path],
        "leftOut": lanes.left_out,
    }
