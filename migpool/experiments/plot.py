"""Draws what an experiment found as one SVG file: a lane for each ratio, each variant's downtimes, each count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from migpool.experiments.finding import ComparisonFinding, CountFinding, Finding, VariantFinding
from migpool.experiments.verdict import expected
from migpool.svg import Drawing
from migpool.units import format_duration

_WIDTH: Final = 1000
_LEFT: Final = 330
_RIGHT: Final = 190
_PLOT: Final = _WIDTH - _LEFT - _RIGHT
_TOP: Final = 62
_LANE: Final = 34
_GAP: Final = 8
_HEAD: Final = 30
_AXIS: Final = 30

_LIGHT: Final = """.dot { fill: #0969da; fill-opacity: .45 } .bar { stroke: #0969da; stroke-width: 3 }
.middle { fill: #0969da } .good { fill: #1a7f37 } .wrong { fill: #d1242f }
.right { fill: #1a7f37; fill-opacity: .16 }"""
_DARK: Final = """.dot { fill: #4493f8 } .bar { stroke: #4493f8 } .middle { fill: #4493f8 }
.right { fill: #3fb950; fill-opacity: .2 } .good { fill: #3fb950 } .wrong { fill: #f85149 }"""


@dataclass(frozen=True, slots=True)
class _Scale:
    least: float
    most: float

    def x(self, value: float) -> float:
        inside = min(self.most, max(self.least, value))
        return round(_LEFT + _PLOT * (inside - self.least) / (self.most - self.least), 2)


def plot(finding: Finding) -> str:
    """Draw a finding.

    Returns:
        The text of an SVG file.
    """
    drawing = Drawing(_WIDTH, _LIGHT, _DARK)
    y = _TOP
    if finding.comparisons:
        drawing.text(
            16,
            y + 12,
            "ratios: a dot a round, the median and its interval; green: where the claim expects them",
            "quiet",
        )
        y = _ratios(drawing, finding.comparisons, y + _HEAD)
    if finding.counts:
        drawing.text(16, y + 12, "counts: green were right, red were wrong", "quiet")
        y += _HEAD
        for one in finding.counts:
            _count(drawing, one, y)
            y += _LANE + _GAP
    if finding.variants:
        drawing.text(16, y + 12, "downtime: a dot a run, and the median", "quiet")
        y = _downtimes(drawing, finding.variants, y + _HEAD)
    title = f"{finding.id}: {finding.title}: {finding.verdict}{' (preliminary)' if finding.preliminary else ''}"
    return drawing.document(title, y + 10, (16, 28))


def _ratios(drawing: Drawing, comparisons: Sequence[ComparisonFinding], y: int) -> int:
    values = [1.0]
    for one in comparisons:
        values += [*one.ratios, *(bound for bound in (one.least, one.most) if bound is not None)]
    room = max(0.05, (max(values) - min(values)) * 0.08)
    scale, top = _Scale(max(0.0, min(values) - room), max(values) + room), y
    for one in comparisons:
        _lane(drawing, y, one.name)
        left = scale.x(scale.least if one.least is None else one.least)
        right = scale.x(scale.most if one.most is None else one.most)
        drawing.rect("right", left, y, right - left, _LANE)
        _dots(drawing, one.ratios, scale, y)
        if one.median is not None and one.low is not None and one.high is not None:
            middle = y + _LANE / 2
            drawing.line("bar", (scale.x(one.low), middle), (scale.x(one.high), middle))
            _middle(drawing, scale.x(one.median), y)
            _beside(drawing, f"{one.median:.3f}: {one.outcome}", expected(one.least, one.most), y)
        y += _LANE + _GAP
    drawing.line("line", (scale.x(1.0), top), (scale.x(1.0), y - _GAP), dashed=True)
    return _axis(drawing, scale, y, "{:.2f}".format)


def _downtimes(drawing: Drawing, variants: Sequence[VariantFinding], y: int) -> int:
    times = [[time for time in one.downtime_ms if time is not None] for one in variants]
    scale = _Scale(0.0, max((time for of_one in times for time in of_one), default=1.0) * 1.02)
    for one, of_one in zip(variants, times, strict=True):
        _lane(drawing, y, one.name)
        _dots(drawing, of_one, scale, y)
        if of_one:
            _middle(drawing, scale.x(median(of_one)), y)
            _beside(drawing, _time(median(of_one)), one.model, y)
        y += _LANE + _GAP
    return _axis(drawing, scale, y, _time)


def _count(drawing: Drawing, one: CountFinding, y: int) -> None:
    share = one.wrong / one.total if one.total else 0.0
    bad = max(2.0 if one.wrong else 0.0, _PLOT * share)
    good = round(_PLOT - bad, 2) if one.total else 0
    _lane(drawing, y, one.model or one.what)
    drawing.rect("good", _LEFT, y + 8, good, _LANE - 16)
    drawing.rect("wrong", _LEFT + good, y + 8, bad, _LANE - 16)
    _beside(drawing, f"{one.wrong} of {one.total}", one.what if one.model else "", y)


def _lane(drawing: Drawing, y: int, name: str) -> None:
    drawing.rect("lane", _LEFT, y, _PLOT, _LANE)
    drawing.text(_LEFT - 10, y + _LANE / 2 + 5, _short(name, 46), anchor="end")


def _dots(drawing: Drawing, values: Sequence[float], scale: _Scale, y: int) -> None:
    for number, value in enumerate(values):
        # Spread over the lane's height, so that equal values can be told apart.
        drawing.circle("dot", scale.x(value), y + 7 + (number * 7) % (_LANE - 13), 3)


def _middle(drawing: Drawing, x: float, y: int) -> None:
    drawing.rect("middle", round(x - 2, 2), y + 4, 4, _LANE - 8)


def _beside(drawing: Drawing, first: str, second: str, y: int) -> None:
    drawing.text(_WIDTH - _RIGHT + 10, y + 14, _short(first, 26))
    drawing.text(_WIDTH - _RIGHT + 10, y + 29, _short(second, 34), "quiet", size=11)


def _axis(drawing: Drawing, scale: _Scale, y: int, label: Callable[[float], str]) -> int:
    for step in range(6):
        value = scale.least + (scale.most - scale.least) * step / 5
        drawing.text(scale.x(value), y + 10, label(value), "quiet", anchor="middle")
    return y + _AXIS


def _time(milliseconds: float) -> str:
    return format_duration(milliseconds / 1e3)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
