"""Everything that an experiment found, and its form as JSON.

One object an experiment::

    schema            1; a later form that a reader of this one would misunderstand has another number
    id, title, claim, by, method
                      as in the experiment's file
    verdict           "supported", "refuted" or "depends"
    reason            why, with the numbers
    preliminary       whether an interval covers less than 95 %: too few rounds for a last word
    quick             whether it was a quick look
    ended             why no further round was made: "narrow", "time", "cancelled", "failures", "counted" or
                      "simulated" (nothing was to be run)
    precision         the half width of an interval, as a share of its ratio, that was wanted
    rounds, seconds   how many rounds there were, and how long they took
    machine           where it ran: system, cpus, python, migpool (the versions)
    load              the load average of the last minute when it began: near 0 on a quiet machine
    note              what its maker says of the machine (--note); may be empty
    variants          name, model, set (the scenario's keys that were different), downtime_ms and total_ms of each round
                      (null where a run failed), threads at the source and the destination, memory_share (the most of
                      the budget that a run had in use), where (milliseconds of the downtime by kind, mean); run and
                      simulated as in the file, simulated_ms, and simulated_held and simulated_early: bytes at the
                      destination, at most, and those of them that came before an earlier chunk; null if not simulated;
                      of a real QEMU's: qemu (as in the file), loads_ms (of each device of its kind, in the order of
                      loading, the median of the rounds), remarks (of the last run)
    comparisons       name, of, to, measure, least, most, decides, ratios of each round, median, low, high, coverage
                      (of the interval), outcome ("holds", "fails" or "open"), simulated (the ratio in virtual time,
                      or null)
    counts            model (empty: of all runs), what, total, wrong, outcome, examples (of what was wrong, a few)
    growing           where variants differ in their models alone, a fixed pool and one that grows among them: best (a
                      variant), model, set, worse (the fixed pools that are, as comparisons with the best), grown
                      (model; ratio, a comparison with the best; reason, why its median is more than 3 % above)
    failures          the runs that failed, a line each; empty as a rule
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from pydantic import Field, JsonValue

from migpool.experiments.form import Comparison, Variant
from migpool.experiments.verdict import Outcome, Word, counted
from migpool.lab.run.form import Form
from migpool.lab.run.result import MachineFacts, ThreadCounts

EXAMPLES: Final = 3
"""Of what was wrong, how many are told."""

Ended: TypeAlias = Literal["narrow", "time", "cancelled", "failures", "counted", "simulated"]


class VariantFinding(Variant):
    downtime_ms: list[float | None]
    total_ms: list[float | None]
    threads: ThreadCounts
    memory_share: float | None
    where: dict[str, float]
    simulated_ms: float | None = None
    simulated_held: int | None = None
    simulated_early: int | None = None
    loads_ms: list[float] = Field(default=[])
    remarks: list[str] = Field(default=[])


class ComparisonFinding(Comparison):
    """One ratio; the interval is ``None`` if no round has both of its variants."""

    ratios: list[float]
    median: float | None = None
    low: float | None = None
    high: float | None = None
    coverage: float | None = None
    outcome: Outcome
    simulated: float | None = None

    @property
    def interval(self) -> str:
        """The median and its interval, in a few words."""
        return ", ".join(self.cells("")[:2]) if self.median is not None else "no round came to its end"

    def cells(self, percent: str) -> tuple[str, str, str]:
        """The median, its interval and what that covers, for a table. ``percent``: the format of the last."""
        if self.median is None or self.low is None or self.high is None or self.coverage is None:
            return ("-", "-", "-")
        return f"{self.median:.3f}", f"{self.low:.3f} to {self.high:.3f}", percent.format(self.coverage)


class CountFinding(Form):
    """Something that must never happen, and how often it did."""

    model: str
    what: str
    total: int
    wrong: int
    outcome: Outcome
    examples: list[str] = Field(default=[])

    @classmethod
    def of(cls, model: str, what: str, seen: Sequence[str]) -> CountFinding:
        """The count of some things, of each of which ``seen`` says what was wrong; empty for one that was right."""
        wrong = [one for one in seen if one]
        return cls(
            model=model,
            what=what,
            total=len(seen),
            wrong=len(wrong),
            outcome=counted(len(seen), len(wrong)),
            examples=wrong[:EXAMPLES],
        )


class GrownFinding(Form):
    """A pool that grows, against the best of its field."""

    model: str
    ratio: ComparisonFinding
    reason: str


class FieldFinding(Form):
    """Variants of one machine that differ in their models; see ``growing_pools.py``."""

    best: str
    model: str
    set: dict[str, JsonValue]
    worse: list[ComparisonFinding]
    grown: list[GrownFinding]


class Finding(Form):
    """The whole; see the top of this file."""

    schema_number: Literal[1] = Field(1, alias="schema")
    id: str
    title: str
    claim: str
    by: str
    method: str
    verdict: Word
    reason: str
    preliminary: bool
    quick: bool
    ended: Ended
    precision: float
    rounds: int
    seconds: float
    machine: MachineFacts
    load: float
    note: str = ""
    variants: list[VariantFinding] = Field(default=[])
    comparisons: list[ComparisonFinding] = Field(default=[])
    counts: list[CountFinding] = Field(default=[])
    growing: list[FieldFinding] = Field(default=[])
    failures: list[str] = Field(default=[])
