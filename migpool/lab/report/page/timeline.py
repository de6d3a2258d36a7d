"""The spans of a run as a picture of its switchover needs them: sorted into lanes, and not more than can be drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from migpool.core.effects import Wait
from migpool.core.machine import RAM_IDSTR
from migpool.lab.analysis.kinds import WAITS
from migpool.lab.run.result import LinkResult, RunResult, SideTrace
from migpool.migration.report import DeviceReport

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
        lane: its place among the lanes.
        name: what kind it is: the name of a record in ``migpool/lab/analysis/kinds.py``.
        device: the device's name; empty for none.
        chunk: -1 for none.
        begin: when it begins.
        end: when it ends.
        thread: the thread's name.
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
