"""How pools that grow do where a pool of a fixed size is worse.

``elastic`` and ``blocking-aware`` are to need no number of workers from anybody. So wherever the choice of that number
matters they should be as good as the best choice. This looks for it in every experiment:

* a *field* is the variants that set the same keys of the scenario: they differ in their models alone. It counts if a
  fixed pool is in it and a pool that grows;
* the *best* is the one with the shortest median downtime, whatever its model is;
* a fixed pool *is worse* if the whole interval of its ratio to the best, taken within rounds as all ratios, is above
  1.03;
* a pool that grows is *within* if its whole interval is at most 1.03, and *over* if all of it is above; else these
  rounds do not decide it.

The model with the shortest of several medians has also been lucky, so ratios to it tend to be too high.

A model whose median is above 1.03 is told with the reason: by which kinds of wait its critical path is longer than the
best one's. The kinds of a run add up to its downtime, so their differences, means over the rounds, add up to what it is
slower by.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, median
from typing import Final

from migpool.experiments.finding import ComparisonFinding, FieldFinding, GrownFinding
from migpool.experiments.form import Comparison, Variant
from migpool.experiments.repetitions import Round, found_of
from migpool.lab.analysis.kinds import KINDS
from migpool.lab.run.result import RunResult

CLOSE: Final = 1.03
"""A ratio to the best up to which a model is as good."""

FIXED: Final = "pool"
GROWN: Final = ("blocking-aware", "elastic")

MOST: Final = 0.9
NAMED: Final = 3
"""Kinds of wait are named until they make up this share of what is longer, and no more than so many."""


def fields(variants: Sequence[Variant], rounds: Sequence[Round]) -> list[FieldFinding]:
    """What the rounds of an experiment say of the pools that grow in it; empty if no field counts."""
    found = []
    by_machine: defaultdict[str, list[Variant]] = defaultdict(list)
    for one in variants:
        by_machine[json.dumps(one.set, sort_keys=True)].append(one)
    for field in by_machine.values():
        if not any(FIXED in _models(one) for one in field) or not any(_grown(one) for one in field):
            continue
        timed = [
            (median(times), one)
            for one in field
            if (times := [run.downtime_ms for run in _succeeded(one.name, rounds) if run.downtime_ms is not None])
        ]
        if timed:
            _, best = min(timed, key=lambda pair: pair[0])
            found.append(_field(field, best, rounds))
    return found


def told(field: FieldFinding) -> str:
    """A field in a few sentences."""
    worse = [f"{one.of} ({one.interval})" for one in field.worse]
    if not worse:
        return f"Fixed pools: none is shown by these rounds to take over 3 % longer than the best of all, {field.best}."
    parts = [f"Best is {field.best}; fixed pools that take over 3 % longer: {', '.join(worse)}."]
    for one in field.grown:
        name = f"{one.model} is the best" if one.ratio.of == field.best else f"{one.model}: {one.ratio.interval}"
        word = {"holds": "within 3 %", "fails": "over 3 %", "open": "not decided by these rounds"}[one.ratio.outcome]
        parts.append(f"{name}, {word}{f'; {one.reason}' if one.reason else ''}.")
    return " ".join(parts)


def _models(variant: Variant) -> list[str]:
    """Which models it has at either end, without their numbers and words."""
    return [side.partition(":")[0] for side in variant.model.split("+")]


def _grown(variant: Variant) -> str:
    """Which pool that grows it has; empty if none."""
    return next((name for name in _models(variant) if name in GROWN), "")


def _succeeded(name: str, rounds: Sequence[Round]) -> list[RunResult]:
    return [run for runs in rounds if (run := runs.get(name)) is not None and run.succeeded]


def _field(field: Sequence[Variant], best: Variant, rounds: Sequence[Round]) -> FieldFinding:
    def ratio(of: Variant) -> ComparisonFinding:
        name = f"{of.name} against the best"
        return found_of(Comparison(name=name, of=of.name, to=best.name, most=CLOSE, decides=False), rounds)

    fixed = [ratio(one) for one in field if FIXED in _models(one) and not _grown(one)]
    grown = []
    for one in field:
        if _grown(one):
            found = ratio(one)
            over = found.median is not None and found.median > CLOSE
            reason = _reason(one.name, best.name, rounds) if over else ""
            grown.append(GrownFinding(model=one.model, ratio=found, reason=reason))
    worse = [one for one in fixed if one.outcome == "fails"]
    return FieldFinding(best=best.name, model=best.model, set=best.set, worse=worse, grown=grown)


def _reason(of: str, to: str, rounds: Sequence[Round]) -> str:
    both = [runs for runs in rounds if all((run := runs.get(name)) is not None and run.succeeded for name in (of, to))]
    ours, theirs = (_succeeded(name, both) for name in (of, to))
    more = {
        kind: fmean(run.attribution.get(kind, 0.0) for run in ours)
        - fmean(run.attribution.get(kind, 0.0) for run in theirs)
        for kind in KINDS
    }
    longer = sorted((kind for kind in KINDS if more[kind] > 0), key=lambda kind: -more[kind])[:NAMED]
    wanted = MOST * sum(time for time in more.values() if time > 0)
    named: list[str] = []
    rest = sum(more.values())
    for kind in longer:
        if wanted <= 0:
            break
        wanted -= more[kind]
        rest -= more[kind]
        named.append(f"{more[kind]:.1f} ms more of {kind!r}")
    if not named:
        return "why, its critical path does not show"
    what = f"{abs(rest):.1f} ms {'more' if rest > 0 else 'less'} of all else"
    return f"its critical path is {sum(more.values()):.1f} ms longer: {', '.join(named)}, {what}"
