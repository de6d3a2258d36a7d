"""Chrome trace events: every span of one or more runs as a picture, for Perfetto or ``chrome://tracing``.

The format is the JSON object of the Trace Event Format: ``traceEvents`` with complete events ("X"), metadata ("M"),
instants ("i") and flows ("s", "f"); times are microseconds.

* Each side of each run is a process, each thread a track in it. Where a job waits without a thread, before one takes it
  up or while a channel's thread looks after its channel, the wait stands on a track of the device's own.
* Spans of one track follow each other or lie one in the other: the format knows nothing else.
* An arrow leads from the sending of each chunk to its write (that of the config to its load, that of pages to their
  reception, which puts them where they belong).
* The critical path of each completed run is a process of its own.
* Runs lie over each other: all of them stop the machine at the same place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.errors import UsageError
from migpool.lab.analysis.attribution import Link
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.analysis.kinds import WAITS
from migpool.lab.analysis.page_jobs import memory_of
from migpool.migration.report import SideReport

TraceEvent: TypeAlias = "dict[str, object]"

PROCESSES = 3
"""A run's: source, destination, critical path."""


@dataclass(frozen=True, slots=True)
class TracedRun:
    """One run to draw.

    Arguments:
        label: what to call the run ("per-device+receiver, run 3"); stands before each of its processes.
        links: the critical path; ``None`` to have it found in the spans.
    """

    source: SideReport
    destination: SideReport
    label: str = ""
    links: tuple[Link, ...] | None = None


def chrome_trace(runs: Sequence[TracedRun]) -> dict[str, object]:
    """Draw some runs.

    Arguments:
        runs: completed or failed; a failed run has no critical path.

    Returns:
        A JSON object for ``json.dump``.
    """
    origins = [run.source.stopped or run.source.began for run in runs]
    befores = [0]
    for run, origin in zip(runs, origins, strict=True):
        sides = (run.source, run.destination)
        befores.append(
            origin - min(time for side in sides for time in (side.began, *(one.begin for one in side.spans)))
        )
    events: list[TraceEvent] = []
    for number, (run, origin) in enumerate(zip(runs, origins, strict=True)):
        events.extend(_Drawing(run, number, origin - max(befores)).events())
    return {"traceEvents": events, "displayTimeUnit": "ms"}


class _Drawing:
    """One run's events.

    Arguments:
        number: its place among the runs; the processes' numbers follow from it.
        zero: the time that is drawn as 0, on the source's clock, in nanoseconds.
    """

    def __init__(self, run: TracedRun, number: int, zero: int) -> None:
        self._run = run
        self._zero = zero
        self._source, self._destination, self._path = (number * PROCESSES + place + 1 for place in range(PROCESSES))
        self._prefix = f"{run.label}: " if run.label else ""
        self._first_flow = number << 32

    def events(self) -> Iterator[TraceEvent]:
        run = self._run
        source = _tracks(run.source)
        destination = _tracks(run.destination)
        yield from self._side(self._source, run.source, source)
        yield from self._side(self._destination, run.destination, destination)
        yield from self._flows(source, destination, memory_of(run.source))
        if run.source.stopped:
            yield self._event("i", "stopped", self._source, 1, run.source.stopped, s="p")
        if run.destination.running:
            yield self._event("i", "running", self._destination, 1, run.destination.running, s="p")
        try:
            links = attribute(run.source, run.destination).links if run.links is None else run.links
        except UsageError:
            return  # it failed: there is no downtime
        yield from self._named(self._path, "critical path", ["critical path"])
        for link in links:
            yield self._link(link)

    def _side(self, pid: int, report: SideReport, tracks: dict[str, list[Span]]) -> Iterator[TraceEvent]:
        yield from self._named(pid, report.side, list(tracks))
        for tid, spans in enumerate(tracks.values(), 1):
            for span in spans:
                more = {"cat": report.side, "args": _about(_device(report, span.slot), span.index)}
                yield self._event("X", WAITS[span.wait].name, pid, tid, span.begin, dur=span.duration / 1e3, **more)

    def _named(self, pid: int, process: str, tracks: list[str]) -> Iterator[TraceEvent]:
        def named(event: str, tid: int, **args: object) -> TraceEvent:
            return {"ph": "M", "name": event, "pid": pid, "tid": tid, "ts": 0, "args": args}

        yield named("process_name", 0, name=self._prefix + process)
        yield named("process_sort_index", 0, sort_index=pid)
        for tid, track in enumerate(tracks, 1):
            yield named("thread_name", tid, name=track)
            yield named("thread_sort_index", tid, sort_index=tid)

    def _flows(
        self, source: dict[str, list[Span]], destination: dict[str, list[Span]], memory: int
    ) -> Iterator[TraceEvent]:
        """From each chunk's sending to what was done with it."""
        sent = {
            (span.slot, span.index): (tid, span)
            for tid, spans in enumerate(source.values(), 1)
            for span in spans
            if span.wait is Wait.SEND
        }
        flow = self._first_flow
        for tid, spans in enumerate(destination.values(), 1):
            for span in spans:
                found = sent.get((span.slot, span.index))
                loads = Wait.RECEIVE if span.slot == memory else Wait.WRITE
                if span.wait not in (loads, Wait.LOAD_CONFIG) or found is None:
                    continue
                flow += 1
                from_tid, sending = found
                yield self._event("s", "chunk", self._source, from_tid, sending.begin, id=flow, cat="chunk")
                yield self._event("f", "chunk", self._destination, tid, span.begin, id=flow, cat="chunk", bp="e")

    def _link(self, link: Link) -> TraceEvent:
        args = {"side": link.side, "thread": link.thread, "behind": link.behind} | _about(link.device, link.index)
        more = {"cat": "critical path", "args": {key: value for key, value in args.items() if value != ""}}
        return self._event("X", link.kind, self._path, 1, link.begin, dur=link.duration / 1e3, **more)

    def _event(self, phase: str, name: str, pid: int, tid: int, at: int, **more: object) -> TraceEvent:
        return {"ph": phase, "name": name, "pid": pid, "tid": tid, "ts": (at - self._zero) / 1e3, **more}


def _about(device: str, index: int) -> dict[str, object]:
    args: dict[str, object] = {}
    if device:
        args["device"] = device
    if index >= 0:
        args["chunk"] = index
    return args


def _device(report: SideReport, slot: int) -> str:
    return report.devices[slot].name if 0 <= slot < len(report.devices) else ""


def _tracks(report: SideReport) -> dict[str, list[Span]]:
    """The spans by track, each track's in the order of their begins."""
    receivers = {span.thread for span in report.spans if span.wait is Wait.RECEIVE}
    wanted: defaultdict[str, list[Span]] = defaultdict(list)
    for span in report.spans:
        threadless = span.wait is Wait.QUEUED or (span.wait is Wait.STARVED and span.thread in receivers)
        track = f"{_device(report, span.slot)} (no thread)".lstrip() if threadless else span.thread
        wanted[track].append(span)
    tracks: dict[str, list[Span]] = {}
    for track, spans in wanted.items():
        for number, lane in enumerate(_lanes(spans), 1):
            tracks[track if number == 1 else f"{track} ({number})"] = lane
    return tracks


def _lanes(spans: list[Span]) -> list[list[Span]]:
    """Share spans out, so that those of one lane follow each other or lie one in the other."""
    lanes: list[list[Span]] = []
    open_until: list[list[int]] = []
    for span in sorted(spans, key=lambda span: (span.begin, -span.end)):
        for lane, ends in zip(lanes, open_until, strict=True):
            while ends and ends[-1] <= span.begin:
                ends.pop()
            if not ends or span.end <= ends[-1]:
                lane.append(span)
                ends.append(span.end)
                break
        else:
            lanes.append([span])
            open_until.append([span.end])
    return lanes
