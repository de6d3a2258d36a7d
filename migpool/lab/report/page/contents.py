"""What the page shows, as values: the page's script draws nothing that is not said here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from pydantic import JsonValue

from migpool.core.effects import Wait
from migpool.core.machine import RAM_IDSTR
from migpool.lab.analysis.kinds import BY_NAME, WAITS
from migpool.lab.report.link import HEADINGS, over_time
from migpool.lab.report.link import rows as rows_of_link
from migpool.lab.report.summary import ModelSummary, looked_into, summarize
from migpool.lab.report.table import device_rows
from migpool.lab.run.result import LabResult, LinkResult, RunResult, SideTrace
from migpool.migration.report import DeviceReport
from migpool.units import RATE_NAME, RATE_UNIT

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
    shown = looked_into(result.runs)
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
    head, rows = device_rows(run)
    kept = thinned([(link.begin_ms, link.end_ms) for link in analysis.path], downtime)
    return {
        "repeat": run.repeat,
        "downtime": run.downtime_ms,
        "why": analysis.why,
        "replayed": analysis.replayed_ms,
        "resources": [one.model_dump() for one in analysis.resources],
        "path": [{**analysis.path[at].model_dump(), "end_ms": end} for at, end in kept],
        "lanes": {by: _lanes(lanes, [at for at, _ in kept]) for by, lanes in drawn.items()},
        "memory": _memory(analysis.memory, downtime),
        "budget": run.memory.budget_bytes,
        "link": {
            "use": over_time(run),
            "rate": None if run.link is None or run.link.rate is None else run.link.rate / RATE_UNIT,
            "unit": RATE_NAME,
        },
        "connections": {
            "head": list[JsonValue](HEADINGS),
            "rows": [[[cell, "number" if at else ""] for at, cell in enumerate(row)] for row in rows_of_link(run)],
        },
        "devices": {
            "head": list[JsonValue](head),
            "rows": [[list(cell) for cell in row] for row in rows],
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


By: TypeAlias = Literal["thread", "device"]

OTHERS = "other devices"
MEMORY = "memory"
OWN = "migration"
CRITICAL = "critical path"
MOST_DRAWN = 6000
"""Spans that a browser still draws and moves without a wait that one feels."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One span in its lane. Times are milliseconds from the stop at the source.

    Arguments:
        name: what kind it is: the name of a record in ``migpool/lab/analysis/kinds.py``.
        chunk: -1 for none.
    """

    lane: int
    name: str
    device: str
    chunk: int
    begin: float
    end: float
    thread: str


@dataclass(frozen=True, slots=True)
class Lanes:
    """A switchover, lane by lane.

    Attributes:
        names: the lanes, from top to bottom; the first is the critical path's.
        spans: what is in them; what covers others comes later.
        path: the critical path: for each link its lane.
        left_out: how many spans are too short to be drawn.
    """

    names: list[str]
    spans: list[Drawn]
    path: list[int]
    left_out: int


def lanes_of(run: RunResult, by: By) -> Lanes:
    """The lanes of a run that was looked into.

    Arguments:
        run: one with an ``analysis``.
        by: a lane for each thread, or at each side for the memory and each iterable device.
    """
    assert run.analysis is not None, "only a run with an analysis has a time line"
    end = run.downtime_ms or 0.0
    names = [CRITICAL]
    spans: list[Drawn] = []
    for side, trace in (("source", run.analysis.trace.source), ("destination", run.analysis.trace.destination)):
        for drawn, lane in _side(trace, run.devices, by, end):
            label = f"{side}: {lane}"
            if label not in names:
                names.append(label)
            spans.append(Drawn(names.index(label), *drawn))
    path = [_lane_of(link, run.devices, by, names) for link in run.analysis.path]
    spans.sort(key=lambda span: -(span.end - span.begin))
    kept = spans[:MOST_DRAWN]
    used = sorted({0, *path, *(span.lane for span in kept)})
    place = {old: new for new, old in enumerate(used)}
    return Lanes(
        names=[names[lane] for lane in used],
        spans=[replace(one, lane=place[one.lane]) for one in kept],
        path=[place[lane] for lane in path],
        left_out=len(spans) - len(kept),
    )


def _side(
    trace: SideTrace, devices: Sequence[DeviceReport], by: By, end: float
) -> Iterator[tuple[tuple[str, str, int, float, float, str], str]]:
    receivers = {row[5] for row in trace.spans if row[0] == "receive"}
    for wait, slot, chunk, begin, until, thread in trace.spans:
        if until <= 0 or begin / 1e6 >= end or until <= begin:
            continue
        # A job that waits without a thread is on no thread's lane.
        threadless = wait == "queued" or (wait == "starved" and thread in receivers)
        if by == "thread" and threadless:
            continue
        # A channel that has its SYNC waits for the main channel, and keeps nobody.
        if by == "device" and wait == "sync" and thread in receivers:
            continue
        name = trace.threads[thread]
        device = devices[slot].name if 0 <= slot < len(devices) else ""
        times = max(0.0, begin / 1e6), min(end, until / 1e6)
        lane = name if by == "thread" else _device_lane(slot, devices)
        yield (WAITS[Wait[wait.upper()]].name, device, chunk, *times, name), lane


def _device_lane(slot: int, devices: Sequence[DeviceReport]) -> str:
    if not 0 <= slot < len(devices):
        return OWN
    if devices[slot].name == RAM_IDSTR:
        return MEMORY
    return devices[slot].name if devices[slot].iterable else OTHERS


def _lane_of(link: LinkResult, devices: Sequence[DeviceReport], by: By, names: list[str]) -> int:
    """The lane of a link; its own lane above all others if there is none for it."""
    if by == "thread":
        label = f"{link.side}: {link.thread}"
    else:
        slot = next((at for at, device in enumerate(devices) if device.name == link.device), -1)
        label = f"{link.side}: {_device_lane(slot, devices)}"
    return names.index(label) if label in names else 0
