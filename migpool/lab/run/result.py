"""The result of runs, and its form in the file that ``--json`` writes.

The file holds one object::

    schema            1; a later form that a reader of this one would misunderstand has another number
    scenario          the scenario's name
    settings          the whole scenario as it was understood, sizes in bytes and times in seconds
    machine           where it ran: system, cpus, python, migpool (the versions); null where that is not known
    lower_bound       what no threading model can undercut: milliseconds, limited_by, parts; null if it is not known
    runs              an object for each run, in the order in which they were made:
      model           the threading model's name, as on the command line
      repeat          which repetition, from 1
      seed            what the made-up state was made from
      outcome         "completed", "failed", "cancelled", or "unconfirmed" (it runs at the destination, but that side
                      could not confirm what it has)
      verified        whether the fingerprints of both ends say that every device's state at the destination is the one
                      sent; null if the run completed and not every state was compared (a device has no fingerprint)
      downtime_ms     from the stop at the source until the machine runs at the destination; null if it did not come
                      to that
      total_ms        from the begin at the source until everything is over there
      bytes           state and config that were sent, without headers
      bytes_before_stop, bytes_after_stop
                      how many of them while the machine still ran, and how many after it had stopped
      precopy_saved_ms
                      about how much longer the downtime would have been without pre-copy; null if nothing was
                      pre-copied, or there is nothing to measure it by
      lower_bound_ms  the lower bound of all runs of this file, here again
      efficiency      lower_bound_ms / downtime_ms
      threads_peak    the most threads that worked for the migration at once, both sides' peaks added
      threads         source, destination: each side's peak
      threads_before  source, destination: how many of them were there before the switchover began
      clock           how the end of the downtime was had: "monotonic"; between hosts "exchanges", if messages there and
                      back relate their clocks, or "return-path"
      clocks          with "exchanges": how the clocks stand to each other, and how far that can be off; else empty
      attribution     milliseconds of the downtime by kind of wait along the critical path; they add up to downtime_ms
      memory          budget_bytes, high_water_bytes: of the destination's chunks; peak_rss_bytes: of its process
      devices         in order, what the sides report of each, with bytes_after_stop besides: its fields are those of
                      ``migpool.migration.report.DeviceReport``, which says what they are
      remarks         what a reader should know of how the threading model went to work, a sentence each
      warnings        what Python or a library warned of in the processes of the run, each with its side; once each
      rounds          of pre-copy: number, from 1; bytes of pages and state that were settled in it; sent, how many of
                      them crossed (a page of zeros does not); seconds; dirtied, bytes that had to be sent anew after
                      it; left, bytes that were left after it, what can be saved only after the stop among them;
                      expected_ms, how long that would have taken, null if it was not known
      checkpoints     of a downtime that was explained by QEMU's logs: each checkpoint of QEMU's, in milliseconds from
                      the begin of the downtime; else empty
      connections     how the source used each of its TCP connections (``migpool.transport.tcp_use.TcpUse``): name
                      ("main", or the channel's number), congestion, bytes, bytes_again, packets_again, rtt_ms,
                      least_rtt_ms, window, busy_ms, peer_full_ms, own_full_ms; empty of UNIX sockets
      link            the link that was made for it, and its use (``migpool.lab.run.link.use.LinkUse``), or null
      error           why it failed, in one line; empty if it did not
      analysis        why the downtime is what it is, with the run's trace, see below: of each model the run with the
                      median downtime has one, the others null

Where only one side's report is there (``migpool send``), what the other one knows is null or empty. An analysis::

    why           what limits the downtime: the resource that the replay finds best to have out of the way, and what the
                  downtime would be then
    replayed_ms   the downtime as the replay has it with everything as it was: near downtime_ms, or do not trust it
    resources     an object for each resource, the one that shortens the downtime most first:
      resource      "big lock", "shared by reads", "shared by writes", "slow device", "workers", "receiving threads",
                    "channels", "link", "memory budget", "CPU", "processors", "pre-copied", "sections"; of QEMU's logs
                    those that ``migpool/lab/qemu/whatif.py`` names
      side          "source", "destination", or empty
      devices       those that share it, or the slow one
      shorter_ms    how much shorter the downtime would be with it out of the way
      says          the same as a clause
    path          the critical path, link by link from the stop to the running machine:
      begin_ms, end_ms, kind, side, device, thread, chunk, behind
    trace         the spans of both sides within the run, on one clock; see below
    memory        [time, bytes] whenever the destination's use of its budget changed

A trace has ``threads`` and ``spans`` for ``source`` and ``destination``. A span is a row: kind of wait (the names of
``migpool.core.effects.Wait``, lower case), device (place in the run's ``devices``, -1 for none), chunk (-1 for none),
begin, end, thread (place in ``threads``). Times are nanoseconds from the moment at which the source began to stop the
machine; what was before is negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal, TypeAlias

from pydantic import Field, JsonValue, field_serializer, field_validator

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.device import Side
from migpool.lab.run.form import Form
from migpool.lab.run.link.use import LinkUse
from migpool.migration.report import DeviceReport
from migpool.precopy.rounds import Round
from migpool.transport.tcp_use import TcpUse
from migpool.units import count_of, format_rate, format_size

PAGE = 4096


class RoundResult(Form):
    """A round of pre-copy."""

    number: int
    bytes: int
    sent: int | None = None
    seconds: float
    dirtied: int
    left: int
    expected_ms: float | None

    @classmethod
    def of(cls, done: Round) -> RoundResult:
        left, expected = done.after.left, done.after.expected_downtime
        return cls(
            **{name: getattr(done, name) for name in ("number", "bytes", "sent", "seconds", "dirtied")},
            left=left.precopy + left.stopcopy,
            expected_ms=None if expected is None else expected * 1e3,
        )


def round_line(told: RoundResult) -> str:
    """The round in words."""
    seconds = told.seconds or 1e-9
    expected = "" if told.expected_ms is None else f", {told.expected_ms:.0f} ms of downtime expected"
    return (
        f"round {told.number}: {count_of(told.bytes // PAGE, 'page')}, {format_rate((told.sent or 0) / seconds)} sent, "
        f"written {format_rate(told.dirtied / seconds)}, {format_size(told.left)} left{expected}"
    )


_REST = "bytes_after_stop"
"""The key of a device's row that follows from two others."""

SpanRow: TypeAlias = tuple[str, int, int, int, int, int]


class ResourceResult(Form):
    resource: str
    side: Side | Literal[""]
    devices: list[str]
    shorter_ms: float
    says: str

    @property
    def shorter(self) -> float:
        """Milliseconds."""
        return self.shorter_ms


class LinkResult(Form):
    """One stretch of the critical path."""

    begin_ms: float
    end_ms: float
    kind: str
    side: Side
    device: str
    thread: str
    chunk: int
    behind: str


class SideTrace(Form):
    """One side's spans, with each thread's name once."""

    threads: list[str]
    spans: list[SpanRow]

    @classmethod
    def of(cls, spans: Sequence[Span], zero: int = 0) -> SideTrace:
        """The form of some spans; ``zero`` is the time to count from, in nanoseconds."""
        threads = list(dict.fromkeys(span.thread for span in spans))
        number = {name: at for at, name in enumerate(threads)}
        rows = [
            (span.wait.name.lower(), span.slot, span.index, span.begin - zero, span.end - zero, number[span.thread])
            for span in spans
        ]
        return cls(threads=threads, spans=rows)

    def read(self) -> tuple[Span, ...]:
        """The spans again, with the times as they stand here."""
        return tuple(
            Span(Wait[wait.upper()], slot, index, begin, end, self.threads[thread])
            for wait, slot, index, begin, end, thread in self.spans
        )


class TraceResult(Form):
    source: SideTrace
    destination: SideTrace


class AnalysisResult(Form):
    """Why a downtime is what it is; see the top of this file."""

    why: str
    replayed_ms: float | None
    resources: list[ResourceResult]
    path: list[LinkResult]
    trace: TraceResult
    memory: list[tuple[int, int]]


class MemoryResult(Form):
    budget_bytes: int | None
    high_water_bytes: int | None
    peak_rss_bytes: int | None


class ThreadCounts(Form):
    """Each side's threads; ``None`` where its report is missing."""

    source: int | None
    destination: int | None


class RunResult(Form):
    model: str
    repeat: int = Field(ge=1)
    seed: int
    outcome: Literal["completed", "failed", "cancelled", "unconfirmed"]
    verified: bool | None
    downtime_ms: float | None = None
    total_ms: float | None = None
    bytes: int = 0
    bytes_before_stop: int = 0
    bytes_after_stop: int = 0
    precopy_saved_ms: float | None = None
    lower_bound_ms: float | None = None
    efficiency: float | None = None
    threads_peak: int = 0
    threads: ThreadCounts = ThreadCounts(source=None, destination=None)
    threads_before: ThreadCounts = ThreadCounts(source=None, destination=None)
    clock: str = ""
    clocks: str = ""
    attribution: dict[str, float] = Field(default={})
    memory: MemoryResult = MemoryResult(budget_bytes=None, high_water_bytes=None, peak_rss_bytes=None)
    devices: list[DeviceReport] = Field(default=[])
    remarks: list[str] = Field(default=[])
    warnings: list[str] = Field(default=[])
    rounds: list[RoundResult] = Field(default=[])
    checkpoints: dict[str, float] = Field(default={})
    connections: list[TcpUse] = Field(default=[])
    link: LinkUse | None = None
    error: str = ""
    analysis: AnalysisResult | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it completed, and no device's state is known to be another one than was sent."""
        return self.outcome == "completed" and self.verified is not False

    @property
    def uncompared(self) -> list[str]:
        """The devices with state that was not compared."""
        return [device.name for device in self.devices if device.bytes and device.verified is None]

    @field_serializer("devices")
    def _with_the_rest(self, devices: list[DeviceReport]) -> list[dict[str, JsonValue]]:
        return [{**asdict(one), _REST: one.bytes_after_stop} for one in devices]

    @field_validator("devices", mode="before")
    @classmethod
    def _without_the_rest(cls, devices: list[object]) -> list[object]:
        return [{key: one[key] for key in one if key != _REST} if isinstance(one, dict) else one for one in devices]


class LowerBound(Form):
    """A downtime that no threading model can go below.

    Attributes:
        limited_by: what it comes from, in one line.
        parts: each bound that was considered, in ms, largest first.
    """

    milliseconds: float
    limited_by: str
    parts: dict[str, float]

    def efficiency(self, downtime_ms: float) -> float:
        """The switchover efficiency: the bound divided by a measured downtime in ms; 0 without one."""
        return self.milliseconds / downtime_ms if downtime_ms > 0 else 0.0


class MachineFacts(Form):
    system: str
    cpus: int
    python: str
    migpool: str

    def __str__(self) -> str:
        return f"{count_of(self.cpus, 'CPU')}, {self.python}, {self.system}, migpool {self.migpool}"


class LabResult(Form):
    """The whole file; see the top of this one."""

    schema_number: Literal[1] = Field(alias="schema")
    scenario: str
    settings: dict[str, JsonValue]
    machine: MachineFacts | None
    lower_bound: LowerBound | None = None
    runs: list[RunResult]
