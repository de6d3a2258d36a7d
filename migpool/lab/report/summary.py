"""What many runs say together: one summary a model, and the answer in a sentence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from migpool.lab.run.result import RunResult
from migpool.units import format_duration


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """All runs of one model. Medians, least and most are over the completed runs; ``None`` if there is none.

    Attributes:
        verified: how many of them completed with every state verified.
        downtime: median in milliseconds.
        efficiency: the lower bound divided by the median downtime.
        total: median of the total time in milliseconds.
        threads: the most threads at once, at the source and at the destination.
        kinds: where the downtime went, mean milliseconds a kind, largest first.
        budget: the destination's memory budget in bytes.
        high_water: the most of it that any run used.
        rss: the destination process's largest resident size in any run.
    """

    model: str
    runs: int
    verified: int
    downtime: float | None
    least: float
    most: float
    efficiency: float | None
    total: float | None
    threads: tuple[int, int]
    kinds: tuple[tuple[str, float], ...]
    budget: int
    high_water: int
    rss: int


def summarize(runs: Sequence[RunResult]) -> list[ModelSummary]:
    """One summary for each model, the fastest first, those that never completed last."""
    by_model: dict[str, list[RunResult]] = defaultdict(list)
    for run in runs:
        by_model[run.model].append(run)
    summaries = [_summary(model, of_it) for model, of_it in by_model.items()]
    return sorted(summaries, key=lambda one: (one.downtime is None, one.downtime or 0.0))


def _summary(model: str, runs: Sequence[RunResult]) -> ModelSummary:
    done = [run for run in runs if run.outcome == "completed"]
    downtimes = [run.downtime_ms for run in done if run.downtime_ms is not None]
    efficiencies = [run.efficiency for run in done if run.efficiency is not None]
    totals = [run.total_ms for run in done if run.total_ms is not None]
    kinds: dict[str, list[float]] = defaultdict(list)
    for run in done:
        for kind, milliseconds in run.attribution.items():
            kinds[kind].append(milliseconds)
    means = [(kind, sum(parts) / len(done)) for kind, parts in kinds.items()]
    return ModelSummary(
        model=model,
        runs=len(runs),
        verified=sum(run.verified for run in runs),
        downtime=median(downtimes) if downtimes else None,
        least=min(downtimes, default=0.0),
        most=max(downtimes, default=0.0),
        efficiency=median(efficiencies) if efficiencies else None,
        total=median(totals) if totals else None,
        threads=(
            max((run.threads.source or 0 for run in runs), default=0),
            max((run.threads.destination or 0 for run in runs), default=0),
        ),
        kinds=tuple(sorted(means, key=lambda pair: -pair[1])),
        budget=max((run.memory.budget_bytes or 0 for run in runs), default=0),
        high_water=max((run.memory.high_water_bytes or 0 for run in runs), default=0),
        rss=max((run.memory.peak_rss_bytes or 0 for run in runs), default=0),
    )


def answer(summaries: Sequence[ModelSummary]) -> str:
    """Which model is the fastest, and by how much; only as far as the spread of the runs allows to say it.

    Two models count as level if the ranges of their downtimes overlap. Empty if no run completed.
    """
    done = [one for one in summaries if one.downtime is not None]
    if not done:
        return ""
    first, *others = done
    if not others:
        return f"{first.model}: {_ms(first)} downtime{_spread(first)}."
    level = [one for one in others if one.least <= first.most]
    apart = [one for one in others if one.least > first.most]
    if level:
        names = _listed([one.model for one in (first, *level)])
        said = f"Level within the spread of the runs: {names} ({_ms(first)} to {_ms(level[-1])})"
    else:
        said = f"{first.model} has the shortest downtime: {_ms(first)}"
        said += f", {_less(first, apart[0])} than {apart[0].model} ({_ms(apart[0])})"
        apart = apart[1:]
    if apart:
        said += f"; {'each at least' if level else 'and'} {_less(level[-1] if level else first, apart[-1])}"
        said += f" than {apart[-1].model} ({_ms(apart[-1])}), the slowest"
    runs = min(one.runs for one in done)
    if runs == 1:
        return f"{said}. One run of each: the spread is not known, use --repeats."
    return f"{said}. Medians of {runs} runs each."


def _less(fast: ModelSummary, slow: ModelSummary) -> str:
    assert fast.downtime is not None
    assert slow.downtime is not None
    return f"{100 * (1 - fast.downtime / slow.downtime):.0f} % shorter"


def _ms(one: ModelSummary) -> str:
    return format_duration((one.downtime or 0.0) / 1e3)


def _spread(one: ModelSummary) -> str:
    least, most = format_duration(one.least / 1e3), format_duration(one.most / 1e3)
    return f" ({least} to {most} in {one.runs} runs)" if one.runs > 1 else ""


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
