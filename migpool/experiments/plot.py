"""Draws what an experiment found as one SVG file: a lane for each ratio, for each variant's downtimes, for each count.

The drawing is some rectangles, circles, lines and texts, so it is written here: a plotting library would bring in a
numeric one and take longer to import than to draw. The colours follow the reader's light or dark theme by a media
query. Every text is escaped, and nothing is fetched from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final
from xml.sax.saxutils import escape

from migpool.experiments.finding import ComparisonFinding, CountFinding, Finding, VariantFinding
from migpool.experiments.verdict import expected
from migpool.units import format_duration

__all__ = ["plot"]

_WIDTH: Final = 1000
_LEFT: Final = 330
_RIGHT: Final = 190
_PLOT: Final = _WIDTH - _LEFT - _RIGHT
_TOP: Final = 62
_LANE: Final = 34
_GAP: Final = 8
_HEAD: Final = 30
_AXIS: Final = 30

_STYLE: Final = """
svg { background: #ffffff; font: 13px system-ui, sans-serif }
text { fill: #1f2328 } .quiet { fill: #59636e } .lane { fill: #f3f4f6 } .line { stroke: #8b949e; stroke-width: 1 }
.dot { fill: #0969da; fill-opacity: .45 } .bar { stroke: #0969da; stroke-width: 3 } .middle { fill: #0969da }
.right { fill: #1a7f37; fill-opacity: .16 } .good { fill: #1a7f37 } .wrong { fill: #d1242f }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117 }
text { fill: #e6edf3 } .quiet { fill: #9198a1 } .lane { fill: #161b22 } .line { stroke: #656c76 }
.dot { fill: #4493f8 } .bar { stroke: #4493f8 } .middle { fill: #4493f8 }
.right { fill: #3fb950; fill-opacity: .2 } .good { fill: #3fb950 } .wrong { fill: #f85149 }
}
"""


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to places on the page."""

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
    parts: list[str] = []
    y = _TOP
    if finding.comparisons:
        y = _panel(parts, y, "ratios: a dot a round, the median and its interval; green: where the claim expects them")
        y = _ratios(parts, finding.comparisons, y)
    if finding.counts:
        y = _panel(parts, y, "counts: green were right, red were wrong")
        for one in finding.counts:
            parts += _count(one, y)
            y += _LANE + _GAP
    if finding.variants:
        y = _panel(parts, y, "downtime: a dot a run, and the median")
        y = _downtimes(parts, finding.variants, y)
    title = f"{finding.id}: {finding.title}: {finding.verdict}{' (preliminary)' if finding.preliminary else ''}"
    label = escape(title, {'"': "&quot;"})
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 10}" width="{_WIDTH}" height="{y + 10}" '
        f'role="img" aria-label="{label}">'
    )
    text = f'<text x="16" y="28" font-size="17" font-weight="600">{escape(title)}</text>'
    return "\n".join([head, f"<style>{_STYLE}</style>", text, *parts, "</svg>"]) + "\n"


def _panel(parts: list[str], y: int, title: str) -> int:
    parts.append(f'<text class="quiet" x="16" y="{y + 12}">{escape(title)}</text>')
    return y + _HEAD


def _ratios(parts: list[str], comparisons: Sequence[ComparisonFinding], y: int) -> int:
    values = [1.0]
    for one in comparisons:
        values += [*one.ratios, *(bound for bound in (one.least, one.most) if bound is not None)]
    scale = _around(values)
    for one in comparisons:
        parts += _lane(y, one.name)
        begin = scale.least if one.least is None else one.least
        end = scale.most if one.most is None else one.most
        left, right = scale.x(begin), scale.x(end)
        parts.append(f'<rect class="right" x="{left}" y="{y}" width="{round(right - left, 2)}" height="{_LANE}"/>')
        parts += _dots(one.ratios, scale, y)
        if one.median is not None and one.low is not None and one.high is not None:
            parts.append(_across(scale.x(one.low), scale.x(one.high), y))
            parts.append(_middle(scale.x(one.median), y))
            parts += _beside(f"{one.median:.3f}: {one.outcome}", expected(one.least, one.most), y)
        y += _LANE + _GAP
    parts.append(_upright(scale.x(1.0), y - len(comparisons) * (_LANE + _GAP), y - _GAP))
    return _axis(parts, scale, y, [f"{value:.2f}" for value in _ticks(scale)])


def _downtimes(parts: list[str], variants: Sequence[VariantFinding], y: int) -> int:
    times = [[time for time in one.downtime_ms if time is not None] for one in variants]
    scale = _Scale(0.0, max((time for of_one in times for time in of_one), default=1.0) * 1.02)
    for one, of_one in zip(variants, times, strict=True):
        parts += _lane(y, one.name)
        parts += _dots(of_one, scale, y)
        if of_one:
            middle = median(of_one)
            parts.append(_middle(scale.x(middle), y))
            parts += _beside(format_duration(middle / 1e3), one.model, y)
        y += _LANE + _GAP
    return _axis(parts, scale, y, [format_duration(value / 1e3) for value in _ticks(scale)])


def _count(one: CountFinding, y: int) -> list[str]:
    share = one.wrong / one.total if one.total else 0.0
    bad = round(_PLOT * share, 2) if not one.wrong else max(2.0, round(_PLOT * share, 2))
    good = round(_PLOT - bad, 2) if one.total else 0
    return [
        *_lane(y, one.model or one.what),
        f'<rect class="good" x="{_LEFT}" y="{y + 8}" width="{good}" height="{_LANE - 16}"/>',
        f'<rect class="wrong" x="{_LEFT + good}" y="{y + 8}" width="{bad}" height="{_LANE - 16}"/>',
        *_beside(f"{one.wrong} of {one.total}", one.what if one.model else "", y),
    ]


def _around(values: Sequence[float]) -> _Scale:
    least, most = min(values), max(values)
    room = max(0.05, (most - least) * 0.08)
    return _Scale(max(0.0, least - room), most + room)


def _ticks(scale: _Scale) -> list[float]:
    return [scale.least + (scale.most - scale.least) * step / 5 for step in range(6)]


def _lane(y: int, name: str) -> Iterator[str]:
    yield f'<rect class="lane" x="{_LEFT}" y="{y}" width="{_PLOT}" height="{_LANE}"/>'
    yield f'<text x="{_LEFT - 10}" y="{y + _LANE / 2 + 5}" text-anchor="end">{escape(_short(name, 46))}</text>'


def _dots(values: Sequence[float], scale: _Scale, y: int) -> Iterator[str]:
    for number, value in enumerate(values):
        # Spread over the lane's height, so that equal values can be told apart.
        height = y + 7 + (number * 7) % (_LANE - 13)
        yield f'<circle class="dot" cx="{scale.x(value)}" cy="{height}" r="3"/>'


def _across(left: float, right: float, y: int) -> str:
    middle = y + _LANE / 2
    return f'<line class="bar" x1="{left}" y1="{middle}" x2="{right}" y2="{middle}"/>'


def _middle(x: float, y: int) -> str:
    return f'<rect class="middle" x="{round(x - 2, 2)}" y="{y + 4}" width="4" height="{_LANE - 8}"/>'


def _upright(x: float, top: int, bottom: int) -> str:
    return f'<line class="line" x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke-dasharray="3 3"/>'


def _beside(first: str, second: str, y: int) -> Iterator[str]:
    x = _WIDTH - _RIGHT + 10
    yield f'<text x="{x}" y="{y + 14}">{escape(_short(first, 26))}</text>'
    yield f'<text class="quiet" x="{x}" y="{y + 29}" font-size="11">{escape(_short(second, 34))}</text>'


def _axis(parts: list[str], scale: _Scale, y: int, labels: Sequence[str]) -> int:
    for value, label in zip(_ticks(scale), labels, strict=True):
        parts.append(f'<text class="quiet" x="{scale.x(value)}" y="{y + 10}" text-anchor="middle">{label}</text>')
    return y + _AXIS


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
