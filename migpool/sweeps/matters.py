"""What a sweep's points show: which model wins where, by how much, and which axes matter.

Models are compared where everything else is alike: at a place, by how much longer the downtime is than under the best
model there. Over several places the median of that is taken. What lies within :data:`TIE` of the best has not lost.

How much an axis matters is the share of the variance of the logarithm of the best downtime that goes with its values
(eta squared): of factors, not of differences, since downtimes span magnitudes. The shares of axes that depend on each
other need not add up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean, median, pvariance
from typing import Any, Final

from migpool.sweeps.form import Axis, Unit, Value
from migpool.sweeps.points import Plan
from migpool.units import count_of, format_duration, format_size, written_size

TIE: Final = 0.01
"""By how much of the best downtime a longer one must be longer to be worse."""
MOST_VALUES: Final = 12
"""Values of an axis that are told one by one; of more, ranges are."""
RANGES: Final = 8


@dataclass(frozen=True, slots=True)
class Stretch:
    """A value of an axis, or a range of values.

    Arguments:
        last: the greatest value in it.
    """

    label: str
    last: Value


@dataclass(frozen=True, slots=True)
class Cell:
    """Some places together.

    Arguments:
        places: how many.
        best: the models that win or tie, the best first.
        ahead: how much longer the downtime of the next one is, as a share; ``None`` if none is worse.
        slower: of each model how much longer its downtime is than the best, as a share.
        downtime: of each model, the median, in milliseconds.
    """

    places: int
    best: Sequence[str]
    ahead: float | None
    slower: Mapping[str, float]
    downtime: Mapping[str, float]

    @property
    def told(self) -> str:
        """Who wins, and by how much."""
        if self.ahead is None:
            return "all alike" if len(self.best) > 1 else self.best[0]
        return f"{' = '.join(self.best)} by {100 * self.ahead:.0f} %"


@dataclass(frozen=True, slots=True)
class AxisFinding:
    """What one axis does.

    Arguments:
        share: of the variance; see the top of this file.
        factor: the longest median downtime of the best model along it, over the shortest.
        cells: what wins in each stretch; a stretch without a place is left out.
    """

    key: str
    unit: Unit
    stretches: Sequence[Stretch]
    share: float
    factor: float
    cells: Mapping[int, Cell]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a sweep shows.

    Arguments:
        all: of all places together; ``None`` if no point has a downtime.
        wins: at how many places each model wins or ties.
        maps: by two axes' places, and each one's stretch, what wins there.
        failed: points without a downtime.
        first_error: why the first of them has none.
        told: the answer, in lines.
    """

    points: int
    models: Sequence[str]
    axes: Sequence[AxisFinding]
    all: Cell | None
    wins: Mapping[str, int]
    maps: Mapping[tuple[int, int], Mapping[tuple[int, int], Cell]]
    failed: int
    first_error: str
    told: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Place:
    """One place: in which stretch of each axis it lies, and each model's median downtime."""

    stretches: tuple[int, ...]
    downtimes: Mapping[str, float]

    @property
    def best(self) -> float:
        return min(self.downtimes.values())


def findings(plan: Plan, columns: Mapping[str, Sequence[Any]]) -> Findings:
    """What the points show.

    Arguments:
        columns: of the results, by name.
    """
    axes = plan.sweep.file.axes
    downtimes = columns["downtime_ms"]
    stretches = [_stretches(axis, columns[axis.key]) for axis in axes]
    places = _places(plan, columns, [_placed(*both) for both in zip(axes, stretches, strict=True)])
    models = plan.sweep.models
    found = [_axis(at, axis, stretches[at], places, models) for at, axis in enumerate(axes)]
    maps = {
        (x, y): _cells(places, models, lambda place, x=x, y=y: (place.stretches[x], place.stretches[y]))
        for x in range(len(axes))
        for y in range(x + 1, len(axes))
    }
    whole = _cell(places, models) if places else None
    wins = Counter(model for place in places for model in _cell([place], models).best)
    failed = [number for number, downtime in enumerate(downtimes) if downtime is None]
    first = "" if not failed else str(columns["error"][failed[0]] or columns["outcome"][failed[0]])
    told = list(_told(plan, places, whole, wins, found))
    return Findings(len(downtimes), models, found, whole, wins, maps, len(failed), first, told)


def _stretches(axis: Axis, values: Sequence[Value]) -> list[Stretch]:
    seen = list(dict.fromkeys(values))
    if axis.values is None or axis.numeric:
        seen.sort(key=float)
    if len(seen) <= MOST_VALUES or not axis.numeric:
        return [Stretch(written(value, axis.unit), value) for value in seen]
    cuts = [seen[len(seen) * part // RANGES : len(seen) * (part + 1) // RANGES] for part in range(RANGES)]
    return [Stretch(f"{_about(cut[0], axis.unit)} to {_about(cut[-1], axis.unit)}", cut[-1]) for cut in cuts]


def written(value: Value, unit: Unit) -> str:
    """A value as a scenario would have it."""
    if unit == "bytes":
        return written_size(int(value))
    if unit == "seconds":
        return format_duration(float(value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _about(value: Value, unit: Unit) -> str:
    return format_size(float(value)) if unit == "bytes" else written(value, unit)


def _placed(axis: Axis, stretches: Sequence[Stretch]) -> dict[Value, int] | Sequence[Value]:
    lasts = [one.last for one in stretches]
    return lasts if axis.numeric and len(stretches) == RANGES else {last: at for at, last in enumerate(lasts)}


def _places(
    plan: Plan, columns: Mapping[str, Sequence[Any]], placed: Sequence[dict[Value, int] | Sequence[Value]]
) -> list[_Place]:
    """The places at which every model has a downtime: elsewhere they cannot be compared."""
    per_place = len(plan.sweep.models) * plan.repeats
    seen: defaultdict[int, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    row_of: dict[int, int] = {}
    for row, (number, model, downtime) in enumerate(
        zip(columns["point"], columns["model"], columns["downtime_ms"], strict=True)
    ):
        row_of[number // per_place] = row
        if downtime:
            seen[number // per_place][model].append(downtime)
    found = []
    for place, by_model in seen.items():
        if len(by_model) == len(plan.sweep.models):
            row = row_of[place]
            where = tuple(_at(columns[key][row], by) for key, by in zip(plan.keys, placed, strict=True))
            found.append(_Place(where, {model: median(times) for model, times in by_model.items()}))
    return found


def _at(value: Value, placed: dict[Value, int] | Sequence[Value]) -> int:
    if isinstance(placed, dict):
        return placed[value]
    return next(at for at, last in enumerate(placed) if value <= last)  # type: ignore[operator]


def _cell(places: Sequence[_Place], models: Sequence[str]) -> Cell:
    bests = [place.best for place in places]
    slower = {
        model: median(place.downtimes[model] / best - 1 for place, best in zip(places, bests, strict=True))
        for model in models
    }
    ranked = sorted(models, key=lambda model: slower[model])
    least = slower[ranked[0]]
    best = [model for model in ranked if slower[model] - least <= TIE]
    rest = ranked[len(best) :]
    ahead = (1 + slower[rest[0]]) / (1 + least) - 1 if rest else None
    downtime = {model: median(place.downtimes[model] for place in places) for model in models}
    return Cell(len(places), best, ahead, slower, downtime)


def _cells(places: Iterable[_Place], models: Sequence[str], key: Any) -> dict[Any, Cell]:
    grouped = defaultdict(list)
    for place in places:
        grouped[key(place)].append(place)
    return {where: _cell(some, models) for where, some in sorted(grouped.items())}


def _axis(
    at: int, axis: Axis, stretches: Sequence[Stretch], places: Sequence[_Place], models: Sequence[str]
) -> AxisFinding:
    groups = defaultdict(list)
    for place in places:
        groups[place.stretches[at]].append(place.best)
    logs = [log(place.best) for place in places]
    whole = pvariance(logs) if logs else 0.0
    means = [(len(some), fmean(map(log, some))) for some in groups.values()]
    middle = fmean(logs) if logs else 0.0
    between = sum(count * (mean - middle) ** 2 for count, mean in means) / max(1, len(places))
    medians = [median(some) for some in groups.values()]
    return AxisFinding(
        key=axis.key,
        unit=axis.unit,
        stretches=stretches,
        share=between / whole if whole > 1e-12 else 0.0,
        factor=max(medians) / min(medians) if medians else 1.0,
        cells=_cells(places, models, lambda place: place.stretches[at]),
    )


def _told(
    plan: Plan, places: Sequence[_Place], whole: Cell | None, wins: Mapping[str, int], axes: Sequence[AxisFinding]
) -> Iterable[str]:
    if whole is None:
        yield "No place has a downtime under every model: there is nothing to compare."
        return
    if len(plan.sweep.models) > 1:
        most = sorted(wins.items(), key=lambda one: -one[1])
        told = ", ".join(f"{model} {100 * count / len(places):.0f} %" for model, count in most)
        yield f"Best, or within {TIE:.0%} of it, at {count_of(len(places), 'place')}: {told}."
        worth = median(max(place.downtimes.values()) / place.best for place in places)
        yield f"The worst model takes {worth:.2f} times as long as the best, in the median of the places."
    for one in sorted(axes, key=lambda axis: -axis.share):
        where = "; ".join(f"{one.stretches[at].label}: {cell.told}" for at, cell in one.cells.items())
        yield (
            f"{one.key}: {100 * one.share:.0f} % of the downtime's variance, a factor of {one.factor:.2f}."
            + (f" {where}." if len(plan.sweep.models) > 1 else "")
        )
