"""A comparison and the rounds that were made: its ratios, their interval, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from migpool.experiments.finding import ComparisonFinding
from migpool.experiments.form import Comparison
from migpool.experiments.interval import median_interval
from migpool.experiments.rounds import Round, ratios
from migpool.experiments.verdict import compared

__all__ = ["found_of", "interval_told"]


def found_of(comparison: Comparison, rounds: Sequence[Round]) -> ComparisonFinding:
    """What some rounds say of a comparison."""
    found = ratios(comparison, rounds)
    interval = median_interval(found) if found else None
    return ComparisonFinding(
        name=comparison.name,
        of=comparison.of,
        to=comparison.to,
        measure=comparison.measure,
        least=comparison.least,
        most=comparison.most,
        decides=comparison.decides,
        ratios=found,
        median=None if interval is None else interval.middle,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        coverage=None if interval is None else interval.coverage,
        outcome=compared(comparison, interval),
    )


def interval_told(one: ComparisonFinding) -> str:
    """The median and its interval, in a few words."""
    if one.median is None or one.low is None or one.high is None:
        return "no round came to its end"
    return f"{one.median:.3f}, {one.low:.3f} to {one.high:.3f}"
