"""From the trace logs of a QEMU migration to a result, of the form that our own runs have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Literal

from pydantic import JsonValue

from migpool.core.trace import Span
from migpool.device import Side
from migpool.errors import UsageError
from migpool.lab.analysis.attribution import Attribution
from migpool.lab.analysis.why import path_of
from migpool.lab.qemu.actors import Actor
from migpool.lab.qemu.clocks import Clocks, align
from migpool.lab.qemu.destination import DestinationActors, destination_actors, switched
from migpool.lab.qemu.log import Event, SideLog, device_name, read_log
from migpool.lab.qemu.path import Threads, join_of, syncs_said, walk
from migpool.lab.qemu.source import RAM, source_actors, written
from migpool.lab.qemu.views import Views, counted, once, views_of
from migpool.lab.qemu.whatif import LinesWritten, Without, kind_of, without
from migpool.lab.qemu.words import NOTABLE_TRACING, because, says
from migpool.lab.report.chrome_trace import TracedRun
from migpool.lab.run.result import (
    AnalysisResult,
    LabResult,
    ResourceResult,
    RunResult,
    SideTrace,
    TraceResult,
)
from migpool.migration.report import DeviceReport, SideReport
from migpool.migration.states import State
from migpool.units import format_duration

FLAT_VIEWS = "flat views built once"
"""What is called so: QEMU builds the flat views of memory once for all devices that it loads."""
MOST_KINDS = 3
"""Of how many kinds of device it is said how many flat views they built."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What the logs say.

    Attributes:
        result: of the form of ``--json``, with one run.
        traced: the same with spans, for a trace; a side without a log has none.
        threads: those of both sides, and what their waits waited for.
        source, destination: what is kept of the logs, the times of the source's clock; ``None`` without one.
    """

    result: LabResult
    traced: TracedRun
    threads: Threads
    source: SideLog | None = None
    destination: SideLog | None = None

    @property
    def rounds(self) -> tuple[int, ...]:
        """How many pages were dirty in the last rounds of RAM before the stop; empty if the log does not say it."""
        return () if self.source is None else tuple(pages for _, pages in self.source.rounds)


def explain(first: Path, second: Path | None = None) -> Explained:
    """Explain the downtime of a migration by its trace logs.

    Arguments:
        first: a side's log.
        second: the other side's.

    Raises:
        UsageError: a log cannot be used, or they are not of one migration.
    """
    logs = _of_both_sides([read_log(path) for path in (first, second) if path is not None])
    source = next((log for log in logs if log.side == "source"), None)
    destination = next((log for log in logs if log.side == "destination"), None)
    if len(logs) == 2 and logs[0].side == logs[1].side:
        raise UsageError(f"{first} and {second} are both the {logs[0].side}'s: give the log of the other side, too")
    return _Explaining(source, destination).whole()


def _of_both_sides(logs: list[SideLog]) -> list[SideLog]:
    """The logs, as those of a migration: of a QEMU that was both the side that the other log leaves."""
    if len({log.side for log in logs}) == len(logs):
        return logs
    again = max(range(2), key=lambda at: logs[at].both)
    if logs[again].both:
        logs[again] = read_log(logs[again].path, "destination" if logs[again].side == "source" else "source")
    return logs


class _Explaining:
    """Explains one downtime."""

    def __init__(self, source: SideLog | None, destination: SideLog | None) -> None:
        self._source, self._destination = source, destination
        self._clocks = Clocks()
        self._views: dict[str, Views] = {}
        self._lines: dict[Side, LinesWritten] = {}
        if source is not None and destination is not None:
            self._clocks = align(source, destination)
            _shift(destination, -self._clocks.ahead)
        self._begin, self._end = self._interval()
        if self._end <= self._begin:
            raise UsageError(
                f"the machine ran at the destination {format_duration((self._begin - self._end) / 1e9)} before it was "
                "stopped at the source: the logs are not of one migration, or nothing in them ties the clocks together"
            )

    def whole(self) -> Explained:
        begin, end = self._begin, self._end
        actors: dict[Side, list[Actor]] = {"source": [], "destination": []}
        ours, theirs, done = None, None, None
        if self._source is not None:
            main, savers, channels = source_actors(self._source, begin, end)
            done = written(self._source)
            ours = (main, savers)
            actors["source"] = [main, *savers, *channels]
        if self._destination is not None:
            theirs = destination_actors(self._destination, begin, end, done)
            actors["destination"] = [theirs.main, *theirs.threads]
        threads = self._threads(ours, theirs, done)
        self._lines = {log.side: of_it for log in self._logs() if (of_it := _written(log)) is not None}
        path = walk(threads, begin, end)
        self._views = {} if self._destination is None else views_of(self._destination)
        replayed, found = without(threads, begin, end, self._views, self._lines)
        names = self._devices(actors)
        slots = {device.name: at for at, device in enumerate(names)}
        spans = {side: _spans(of_it, slots) for side, of_it in actors.items()}
        run = RunResult(
            model="QEMU",
            repeat=1,
            seed=0,
            outcome="completed",
            verified=None,
            downtime_ms=(end - begin) / 1e6,
            clock=str(self._clocks) if self._source and self._destination else "",
            attribution=path.kinds,
            devices=names,
            checkpoints={point: (time - begin) / 1e6 for point, time in self._checkpoints()},
            remarks=list(self._remarks(path)),
            analysis=self._analysis(path, replayed, found, spans),
        )
        result = LabResult(schema=1, scenario=self._name(), settings=self._settings(), machine=None, runs=[run])
        sides = (
            _report("source", names, spans["source"], begin, end),
            _report("destination", names, spans["destination"], begin, end),
        )
        return Explained(result, TracedRun(*sides, "", path.links), threads, self._source, self._destination)

    def _threads(
        self, ours: tuple[Actor, list[Actor]] | None, theirs: DestinationActors | None, done: int | None
    ) -> Threads:
        if self._source is None:
            return Threads(None, theirs)
        saved = self._source.checkpoints["src-non-iterable-saved"]
        return Threads(ours, theirs, done or 0, syncs_said(self._source), join_of(self._source), saved)

    def _interval(self) -> tuple[int, int]:
        """The downtime, as far as the logs know."""
        source, destination = self._source, self._destination
        if destination is not None:
            end = next(time for point, time in destination.checkpoints.items() if point.endswith("-vm-started"))
            return (switched(destination) if source is None else source.checkpoints["src-downtime-start"]), end
        assert source is not None
        points = source.checkpoints
        return points["src-downtime-start"], points.get("src-downtime-end", points["src-non-iterable-saved"])

    def _checkpoints(self) -> list[tuple[str, int]]:
        return sorted(
            ((point, time) for log in self._logs() for point, time in log.checkpoints.items()), key=lambda one: one[1]
        )

    def _devices(self, actors: dict[Side, list[Actor]]) -> list[DeviceReport]:
        """Every device that is named, in the order in which they were saved, or loaded."""
        iterable: dict[str, bool] = {}
        for log in (self._source, self._destination):
            for event in log.events if log is not None else ():
                if event.event in ("vmstate_downtime_save", "vmstate_downtime_load"):
                    name = device_name(event.said)
                    iterable[name] = iterable.get(name, False) or event.said["type"] == "iterable"
        for actor in (*actors["source"], *actors["destination"]):
            for piece in actor.pieces:
                if piece.device:
                    iterable.setdefault(piece.device, bool(actor.device))
        return [DeviceReport(name, "", one) for name, one in iterable.items()]

    def _analysis(
        self, path: Attribution, replayed: int, found: list[Without], spans: dict[Side, tuple[Span, ...]]
    ) -> AnalysisResult:
        begin = self._begin
        return AnalysisResult(
            why=because(found, path, self._missing()),
            replayed_ms=replayed / 1e6 if replayed else None,
            resources=[
                ResourceResult(
                    resource=_resource(one),
                    side=one.side,
                    devices=list(one.devices),
                    shorter_ms=one.shorter / 1e6,
                    says=says(one, path),
                )
                for one in found
            ],
            path=path_of(path, begin),
            trace=TraceResult(
                source=SideTrace.of(spans["source"], begin), destination=SideTrace.of(spans["destination"], begin)
            ),
            memory=[],
        )

    def _remarks(self, path: Attribution) -> Iterator[str]:
        """What a reader must know of the logs before the numbers are believed."""
        for one in self._logs():
            if one.both:
                yield f"{one.path.name} has downtimes of both sides; that of the {one.side} is explained"
            if one.downtimes > 1:
                yield f"{one.path.name} has {one.downtimes} downtimes, of which the last is explained"
        if self._begins_late():
            yield "destination's log: its first loads are missing; it was cut, and what is said is of what is left"
        for side, log, other in (
            ("source", self._source, "from the destination's switchover on"),
            ("destination", self._destination, "until the source had heard of its end"),
        ):
            if log is None:
                yield f"without the {side}'s log this is only the time {other}, and not all of the downtime"
                continue
            counts = log.counts
            if counts.strange:
                yield (
                    f"{side}'s log: {counts.strange} of {counts.lines} lines have a form that is not known, and were "
                    "passed over"
                )
            if log.left_out:
                yield f"{side}'s log: the last {log.left_out} lines of the downtime were too many, and left out"
        took, lines = self._tracing(path)
        if took >= NOTABLE_TRACING * path.downtime:
            yield (
                f"about {format_duration(took / 1e9)} of it are the tracing itself, {lines} lines on the path: "
                'switch on "vmstate_downtime*" alone for a truer number'
            )
        if self._source is not None and (rounds := self._source.rounds):
            pages = ", ".join(str(pages) for _, pages in rounds)
            yield f"dirty pages found in the last rounds of RAM before the stop: {pages}"
        if self._views:
            yield self._built()

    def _built(self) -> str:
        """How many flat views the destination's loads built."""
        views = self._views
        took, again = (format_duration(spent / 1e9) for spent in (sum(one.took for one in views.values()), once(views)))
        kinds = counted(views, ((device, kind_of(device)) for device in views))
        most = ", ".join(
            f"{count} for {kind}" if devices == 1 else f"{count} for {devices} {kind}"
            for kind, devices, count in kinds[:MOST_KINDS]
        )
        return (
            f"the destination built {sum(one.count for one in views.values())} flat views of memory while devices were "
            f"loaded ({most}), in about {took} of these loads; once for all would take {again}"
        )

    def _tracing(self, path: Attribution) -> tuple[int, int]:
        """What lines of the own threads on the critical path took, at the least, and how many they are."""
        took = lines = 0
        for side, written_ in self._lines.items():
            own = [link for link in path.links if link.side == side and link.thread == "migration"]
            took += sum(written_.took(link.begin, link.end) for link in own)
            lines += sum(written_.count(link.begin, link.end) for link in own)
        return took, lines

    def _begins_late(self) -> bool:
        """Whether the destination's log lacks what it loaded first, the memory's last round."""
        if (
            self._source is None
            or self._destination is None
            or any("post" in at for at in self._destination.checkpoints)
        ):
            return False
        saved, loaded = (
            {device_name(event.said) for event in log.events if event.event == name}
            for log, name in ((self._source, "vmstate_downtime_save"), (self._destination, "vmstate_downtime_load"))
        )
        return RAM in saved and bool(loaded) and RAM not in loaded

    def _missing(self) -> Side | Literal[""]:
        """The side without a log."""
        return "source" if self._source is None else "destination" if self._destination is None else ""

    def _logs(self) -> list[SideLog]:
        return [log for log in (self._source, self._destination) if log is not None]

    def _name(self) -> str:
        return " and ".join(log.path.name for log in self._logs())

    def _settings(self) -> dict[str, JsonValue]:
        return {
            **{
                log.side: {
                    "log": log.path.name,
                    "lines": log.counts.lines,
                    "events": log.counts.events,
                    "not needed": sum(log.counts.others.values()),
                    "no events": log.counts.lines - log.counts.events,
                    "forms not known": log.counts.strange,
                }
                for log in self._logs()
            },
            "clocks": {
                "ahead_ms": self._clocks.ahead / 1e6,
                "uncertainty_ms": None if (off := self._clocks.uncertainty) is None else off / 1e6,
            },
        }


def _report(side: Side, devices: list[DeviceReport], spans: tuple[Span, ...], begin: int, end: int) -> SideReport:
    """A side as if it had reported itself, as far as its log tells."""
    return SideReport(
        side=side,
        outcome=State.COMPLETED,
        error="",
        began=begin,
        stopped=begin,
        running=end,
        ended=end,
        clock="",
        bytes=0,
        threads_peak=0,
        budget=0,
        high_water=0,
        rss_peak=0,
        devices=tuple(devices),
        spans=spans,
    )


FEWEST = 10
"""How many gaps between lines there must be for the shortest of them to be what a line takes."""


def _written(log: SideLog) -> LinesWritten | None:
    """What a side's own thread wrote: where next to nothing lies between two lines, that is what a line takes."""
    times = [event.time for event in log.own()]
    gaps = sorted(later - sooner for sooner, later in pairwise(times))
    return LinesWritten(times, int(quantiles(gaps, n=10)[0])) if len(gaps) >= FEWEST else None


def _resource(one: Without) -> str:
    """What the chart calls it."""
    if one.resource == "tracing":
        return "the trace's own lines"
    if one.resource == "in parallel":
        return f"{one.kind or 'all devices'} in parallel"
    if one.resource == "flat views":
        return FLAT_VIEWS
    if one.resource == "all like the first":
        return f"each {one.kind} like the first"
    if one.resource == "step":
        return {"device stop": "the machine's stop", "start": "the machine's start"}.get(
            one.kind, "after the last load"
        )
    return f"{one.resource} {one.devices[0]}" if one.devices else one.resource


def _spans(actors: list[Actor], slots: dict[str, int]) -> tuple[Span, ...]:
    spans = [span for actor in actors for span in actor.spans(slots)]
    return tuple(sorted(spans, key=lambda span: (span.begin, span.end)))


def _shift(log: SideLog, by: int) -> None:
    """Move all times of a log."""
    if not by:
        return
    log.events = [Event(event.time + by, *event[1:]) for event in log.events]
    log.checkpoints = {point: time + by for point, time in log.checkpoints.items()}
