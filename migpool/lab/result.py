"""The result of runs, and its form in the file that ``--json`` writes.

The file holds one object::

    schema            1; a later form that a reader of this one would misunderstand has another number
    scenario          the scenario's name
    settings          the whole scenario as it was understood, sizes in bytes and times in seconds
    machine           where it ran: system, cpus, python, migpool (the versions)
    lower_bound       what no threading model can undercut: milliseconds, limited_by, parts; null if it is not known
    runs              an object for each run, in the order in which they were made:
      model           the threading model's name, as on the command line
      repeat          which repetition, from 1
      seed            what the made-up state was made from
      outcome         "completed", "failed", "cancelled", or "unconfirmed" (it runs at the destination, but that side
                      could not confirm what it has)
      verified        whether every device's state at the destination is proven to be the one sent, as far as the device
                      can tell
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
      clock           how the end of the downtime was had: "monotonic", or "return-path" between hosts
      attribution     milliseconds of the downtime by kind of wait along the critical path; they add up to downtime_ms
      memory          budget_bytes, high_water_bytes: of the destination's chunks; peak_rss_bytes: of its process
      devices         name, note, iterable, bytes, bytes_before_stop, bytes_after_stop, verified (null where the device
                      has no fingerprint), remark (what the device at the destination says afterwards; may be empty), in
                      order
      remarks         what a reader should know of how the threading model went to work, a sentence each
      rounds          of pre-copy: number, bytes, seconds, dirtied (bytes to be sent anew after it), left (bytes),
                      expected_ms (the downtime that was expected then, null if it was not known)
      error           why it failed, in one line; empty if it did not
      analysis        why the downtime is what it is, with the run's trace (``analysisform.py``): of each model the run
                      with the median downtime has one, the others null

Where only one side's report is there (``migpool send``), what the other one knows is null or empty.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from migpool.lab.analysisform import AnalysisResult
from migpool.lab.jsontext import json_text

__all__ = [
    "BoundResult",
    "DeviceResult",
    "LabResult",
    "MachineFacts",
    "MemoryResult",
    "RoundResult",
    "RunResult",
    "ThreadCounts",
]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class DeviceResult(_Form):
    """One device of one run."""

    name: str
    note: str
    iterable: bool
    bytes: int
    bytes_before_stop: int = 0
    bytes_after_stop: int = 0
    verified: bool | None
    remark: str = ""


class RoundResult(_Form):
    """One round of pre-copy."""

    number: int
    bytes: int
    sent: int | None = None
    seconds: float
    dirtied: int
    left: int
    expected_ms: float | None


class MemoryResult(_Form):
    """The destination's memory; ``None`` where its report is missing."""

    budget_bytes: int | None
    high_water_bytes: int | None
    peak_rss_bytes: int | None


class ThreadCounts(_Form):
    """Each side's threads; ``None`` where its report is missing."""

    source: int | None
    destination: int | None


class RunResult(_Form):
    """One run."""

    model: str
    repeat: int = Field(ge=1)
    seed: int
    outcome: Literal["completed", "failed", "cancelled", "unconfirmed"]
    verified: bool
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
    attribution: dict[str, float] = {}
    memory: MemoryResult = MemoryResult(budget_bytes=None, high_water_bytes=None, peak_rss_bytes=None)
    devices: list[DeviceResult] = []
    remarks: list[str] = []
    rounds: list[RoundResult] = []
    error: str = ""
    analysis: AnalysisResult | None = None


class BoundResult(_Form):
    """The lower bound of the downtime, over all runs."""

    milliseconds: float
    limited_by: str
    parts: dict[str, float]


class MachineFacts(_Form):
    """Where it ran."""

    system: str
    cpus: int
    python: str
    migpool: str


class LabResult(_Form):
    """The whole file; see the top of this one."""

    schema_number: Literal[1] = Field(alias="schema")
    scenario: str
    settings: dict[str, JsonValue]
    machine: MachineFacts
    lower_bound: BoundResult | None = None
    runs: list[RunResult]

    def to_json(self) -> str:
        """The file's text."""
        return json_text(self.model_dump(mode="json", by_alias=True))
