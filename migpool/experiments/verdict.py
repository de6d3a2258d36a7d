"""From samples and counts to a verdict.

A comparison *holds* if its whole interval lies where the claim expects the ratio, *fails* if all of it lies elsewhere,
and is *open* if it is on both sides of a threshold, or if there is but one round, which has no interval: then these
runs do not decide it, and no verdict says they do. A verdict on intervals that do not reach 95 % is called preliminary
wherever it is shown. A count holds if there was something to count and nothing was wrong.

The claim is

* **supported** if everything that decides holds,
* **refuted** if everything that decides fails, or a single count does: what must never happen has happened,
* else it **depends**: on what is said, beside which comparisons hold, which fail, and which are open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Final, Literal, TypeAlias

from migpool.experiments.form import Comparison

Outcome: TypeAlias = Literal["holds", "fails", "open"]
Word: TypeAlias = Literal["supported", "refuted", "depends"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing that a verdict is made of.

    Arguments:
        told: the numbers, in a few words.
        never: whether it is about what must never happen.
    """

    name: str
    outcome: Outcome
    told: str
    never: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be thought of a claim. ``reason``: why, in one or two sentences with the numbers."""

    word: Word
    reason: str


def compared(comparison: Comparison, interval: Interval | None) -> Outcome:
    """What came of a comparison; ``None`` stands for no round that has both of its variants."""
    if interval is None or not interval.coverage:
        return "open"
    least = 0.0 if comparison.least is None else comparison.least
    most = float("inf") if comparison.most is None else comparison.most
    if least <= interval.low and interval.high <= most:
        return "holds"
    if interval.high < least or interval.low > most:
        return "fails"
    return "open"


def counted(total: int, wrong: int) -> Outcome:
    if wrong:
        return "fails"
    return "holds" if total else "open"


def expected(least: float | None, most: float | None) -> str:
    """Where a ratio should lie, in words; at least one of the two is a number."""
    if least is None:
        return f"at most {most:g}"
    return f"at least {least:g}" if most is None else f"{least:g} to {most:g}"


def verdict_of(pieces: Sequence[Piece], depends: str = "") -> Verdict:
    """The verdict.

    Arguments:
        pieces: all that decide, at least one.
        depends: what the claim depends on if they disagree, as the experiment's author sees it.
    """
    holds, fails, unsure = ([one for one in pieces if one.outcome == wanted] for wanted in ("holds", "fails", "open"))
    broken = [one for one in fails if one.never]
    if broken:
        return Verdict("refuted", f"what must never happen has happened: {_listed(broken)}.")
    if not fails and not unsure:
        return Verdict("supported", f"everything is as the claim says: {_listed(holds)}.")
    if not holds and not unsure:
        return Verdict("refuted", f"nothing is as the claim says: {_listed(fails)}.")
    parts = []
    if holds and fails:
        parts.append(f"On {depends or 'the circumstances'}.")
    if holds:
        parts.append(f"It holds: {_listed(holds)}.")
    if fails:
        parts.append(f"It does not: {_listed(fails)}.")
    if unsure:
        parts.append(f"These runs do not decide: {_listed(unsure)}; more rounds or a quieter machine would.")
    return Verdict("depends", " ".join(parts))


def _listed(pieces: Sequence[Piece]) -> str:
    return "; ".join(f"{one.name} ({one.told})" for one in pieces)


WANTED: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a median lies. ``coverage``: the probability that the interval has the true median in it, 0 to 1."""

    median: float
    low: float
    high: float
    coverage: float

    @property
    def sure(self) -> bool:
        """Whether it reaches 95 %."""
        return self.coverage >= WANTED

    @property
    def spread(self) -> float:
        """Half of its width, as a share of the median."""
        return (self.high - self.low) / 2 / abs(self.median) if self.median else 0.0


def median_interval(samples: Sequence[float]) -> Interval:
    """The interval of the median of some samples, by order statistics.

    Times on a computer are skewed and have outliers, so neither a mean nor a normal distribution says much of them. The
    median of n independent samples lies between the k-th smallest and the k-th largest of them with a probability that
    depends on nothing but n and k: each sample is below it with probability one half, so how many are is binomial. The
    interval here is the narrowest of these that reaches 95 %. Nothing is resampled, hence the same samples always give
    the same interval, and few samples give no false certainty: below six none reaches 95 %, and the interval says what
    it does reach (five: 93.8 %, three: 75 %).

    Arguments:
        samples: one or more, independent of each other.

    Raises:
        ValueError: there is none.
    """
    ordered = sorted(samples)
    count = len(ordered)
    rank = 1
    while 2 * (rank + 1) <= count and _coverage(count, rank + 1) >= WANTED:
        rank += 1
    return Interval(median(ordered), ordered[rank - 1], ordered[-rank], _coverage(count, rank))


def _coverage(count: int, rank: int) -> float:
    """How likely the median of ``count`` samples lies between the ``rank``-th smallest and the ``rank``-th largest."""
    outside: int = 2 * sum(comb(count, below) for below in range(rank))
    return max(0.0, 1.0 - outside / float(1 << count))
