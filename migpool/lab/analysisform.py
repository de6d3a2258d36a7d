"""Why a downtime is what it is, as it stands in the result: the form of a run's ``analysis``.

::

    why           the reason in a clause: the resource that the replay finds best to have out of the way
    replayed_ms   the downtime as the replay has it with everything as it was: near downtime_ms, or do not trust it
    resources     an object for each resource, the one that shortens the downtime most first:
      resource      "big lock", "shared by reads", "shared by writes", "slow device", "workers", "receiving threads",
                    "channels", "link", "memory budget", "CPU"
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

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

__all__ = ["AnalysisResult", "LinkResult", "ResourceResult", "SideTrace", "SpanRow", "TraceResult"]

SpanRow: TypeAlias = tuple[str, int, int, int, int, int]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ResourceResult(_Form):
    """One resource out of the way."""

    resource: str
    side: Literal["source", "destination", ""]
    devices: list[str]
    shorter_ms: float
    says: str


class LinkResult(_Form):
    """One stretch of the critical path."""

    begin_ms: float
    end_ms: float
    kind: str
    side: Literal["source", "destination"]
    device: str
    thread: str
    chunk: int
    behind: str


class SideTrace(_Form):
    """One side's spans."""

    threads: list[str]
    spans: list[SpanRow]


class TraceResult(_Form):
    """Both sides' spans."""

    source: SideTrace
    destination: SideTrace


class AnalysisResult(_Form):
    """See the top of this file."""

    why: str
    replayed_ms: float | None
    resources: list[ResourceResult]
    path: list[LinkResult]
    trace: TraceResult
    memory: list[tuple[int, int]]
