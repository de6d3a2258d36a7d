"""The memory's jobs in a trace, told apart: as if each of them were an iterable device of its own.

Several jobs share a round of the memory, all of them for one device, and the destination has no job for them at all: a
channel's thread puts the pages where they belong. So that a walk along the critical path and a replay need not know
that, each job of the last round gets a number behind those of the devices, under the memory's name, and what the
destination received of it gets the same.

A job is told from the others by its times: an effect begins at the nanosecond at which the one before ended, whatever
thread it is on. A packet is known at both ends by its number on the wire. Packets that went together, in one call, have
numbers in a row: they are one here at the destination, too, under the number of the first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import replace

from migpool.core.effects import Wait
from migpool.core.machine import RAM_IDSTR
from migpool.core.trace import Span
from migpool.lab.analysis.kinds import PAGE_JOB_WAITS
from migpool.migration.report import DeviceReport, SideReport


def memory_of(report: SideReport) -> int:
    """The place of the memory among the devices; -1 without one."""
    return next((at for at, device in enumerate(report.devices) if device.name == RAM_IDSTR), -1)


def page_jobs_of(report: SideReport) -> frozenset[int]:
    """The numbers of the memory's jobs in a report that has them as devices."""
    return frozenset(at for at, device in enumerate(report.devices) if device.name == RAM_IDSTR and device.has_job)


def with_page_jobs(source: SideReport, destination: SideReport) -> tuple[SideReport, SideReport]:
    """Both reports, with a device more for each job of the memory that sent pages after the stop."""
    memory = memory_of(source)
    if memory < 0:
        return source, destination
    told = _Told(memory, len(source.devices))
    of_jobs = [span for span in source.spans if _is_of_a_job(span, memory) and span.begin >= source.stopped > 0]
    kept = [span for span in source.spans if not (_is_of_a_job(span, memory) and span.begin >= source.stopped > 0)]
    jobs = told.sorted_out(of_jobs)
    received = _received(destination.spans, memory, {span.index: span.slot for span in jobs if span.wait is Wait.SEND})
    more = tuple(DeviceReport(RAM_IDSTR, "", iterable=True) for _ in range(told.jobs))
    spans = sorted([*kept, *jobs], key=lambda span: (span.begin, span.end))
    return (
        replace(source, devices=(*source.devices, *more), spans=tuple(spans)),
        replace(destination, devices=(*destination.devices, *more), spans=tuple(received)),
    )


def _received(spans: Iterable[Span], memory: int, sent: Mapping[int, int]) -> list[Span]:
    """The destination's spans, with what was sent together received together.

    Arguments:
        sent: which job sent what, by the number of the first packet.
    """
    firsts = sorted(sent)
    found: list[Span] = []
    places: dict[int, int] = {}
    for span in spans:
        place = bisect_right(firsts, span.index) if span.wait is Wait.RECEIVE and span.slot == memory else 0
        if not place:
            found.append(span)
            continue
        first = firsts[place - 1]
        if first not in places:
            places[first] = len(found)
            found.append(replace(span, slot=sent[first], index=first))
        else:
            before = found[places[first]]
            found[places[first]] = replace(before, end=max(before.end, span.end))
    return found


def _is_of_a_job(span: Span, memory: int) -> bool:
    """A look at the log, which no job does, has no index; a SYNC's wait for a channel is none of a job's either."""
    return span.slot == memory and span.wait in PAGE_JOB_WAITS and (span.index >= 0 or span.wait is Wait.QUEUED)


class _Told:
    """Says which job each span is of."""

    def __init__(self, memory: int, first: int) -> None:
        self._memory = memory
        self._first = first
        self._on_thread: dict[str, int] = {}
        self._ended: dict[int, int] = {}
        self._until: dict[int, int] = {}
        self.jobs = 0

    def sorted_out(self, spans: Iterable[Span]) -> list[Span]:
        """The spans of all jobs, each with its job's number; a wait for a channel has the index of its packet."""
        found: list[Span] = []
        waits: dict[str, Span] = {}
        for span in sorted(spans, key=lambda span: (span.end, -span.begin)):
            if span.wait is Wait.CHANNEL:
                waits[span.thread] = span
                continue
            job = self._new(span.thread) if span.wait is Wait.QUEUED else self._job_of(span)
            self._ends(job, span)
            found.append(replace(span, slot=job))
            wait = waits.pop(span.thread, None)
            if wait is not None and span.wait is Wait.SEND and wait.begin >= span.begin:
                found.append(replace(wait, slot=job, index=span.index))
        return found

    def _new(self, thread: str) -> int:
        job = self._first + self.jobs
        self.jobs += 1
        self._on_thread[thread] = job
        return job

    def _job_of(self, span: Span) -> int:
        mine = self._on_thread.get(span.thread)
        if mine is not None and self._until.get(mine) == span.begin:
            return mine
        elsewhere = self._ended.get(span.begin)
        if elsewhere is not None:
            return elsewhere  # it has moved to this thread
        return mine if mine is not None else self._new(span.thread)

    def _ends(self, job: int, span: Span) -> None:
        before = self._until.get(job)
        if before is not None and self._ended.get(before) == job:
            del self._ended[before]
        self._until[job] = span.end
        self._ended[span.end] = job
        self._on_thread[span.thread] = job
