"""Draws an explanation as one SVG file: bytes over time, a lane a channel, with the switchover marked.

The drawing is some rectangles, paths and texts, so it is written here: a plotting library would bring in a numeric one
and take longer to import than to draw. The colours follow the reader's light or dark theme by a media query. Every
text is escaped, and nothing is fetched from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from migpool.errors import MigpoolError
from migpool.streams.record.explanation import ChannelUse, Explanation
from migpool.units import format_moment, format_size

__all__ = ["picture"]

_LEFT: Final = 150
_RIGHT: Final = 130
_WIDTH: Final = 1000
_TOP: Final = 64
_LANE: Final = 56
_GAP: Final = 10
_PLOT: Final = _WIDTH - _LEFT - _RIGHT
_TICKS: Final = 5

_STYLE: Final = """
svg { background: #ffffff; font: 13px system-ui, sans-serif }
text { fill: #1f2328 } .quiet { fill: #59636e } .lane { fill: #f3f4f6 } .line { stroke: #8b949e; stroke-width: 1 }
.main { fill: #8250df } .multifd { fill: #0969da } .other { fill: #59636e }
.over { fill: #d1242f; fill-opacity: .13 } .mark { stroke: #d1242f; stroke-width: 1.5 } .marked { fill: #d1242f }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117 }
text { fill: #e6edf3 } .quiet { fill: #9198a1 } .lane { fill: #161b22 } .line { stroke: #656c76 }
.main { fill: #ab7df8 } .multifd { fill: #4493f8 } .other { fill: #9198a1 }
.over { fill: #f85149; fill-opacity: .2 } .mark { stroke: #f85149 } .marked { fill: #f85149 }
}
"""


def picture(explanation: Explanation, path: Path) -> None:
    """Write the picture.

    Arguments:
        path: the SVG file; replaced if it is there.

    Raises:
        MigpoolError: it cannot be written.
    """
    try:
        path.write_text("\n".join(_document(explanation)) + "\n", "utf-8")
    except OSError as error:
        raise MigpoolError(f"{path} cannot be written: {error.strerror or error}") from None


def _document(explanation: Explanation) -> Iterator[str]:
    lanes = len(explanation.channels)
    bottom = _TOP + lanes * (_LANE + _GAP)
    height = bottom + 44
    title = f"{explanation.machine or 'migration'}: bytes over time, {format_moment(explanation.duration)}"
    if not explanation.complete:
        title += " (not complete)"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">'
    )
    yield f"<style>{_STYLE}</style>"
    yield f'<text x="{_LEFT}" y="22" font-size="16" font-weight="600">{escape(title)}</text>'
    most = max((max(one.bytes_over_time, default=0) for one in explanation.channels), default=0)
    for number, one in enumerate(explanation.channels):
        yield from _lane(one, explanation, _TOP + number * (_LANE + _GAP), most)
    yield from _switchover(explanation, bottom)
    yield from _axis(explanation, bottom)
    yield "</svg>"


def _x(when: int, explanation: Explanation) -> float:
    whole = explanation.interval * max(1, _intervals(explanation))
    return round(_LEFT + _PLOT * min(1.0, max(0.0, when / whole)), 2)


def _intervals(explanation: Explanation) -> int:
    return max((len(one.bytes_over_time) for one in explanation.channels), default=1)


def _lane(one: ChannelUse, explanation: Explanation, top: int, most: int) -> Iterator[str]:
    kind = "multifd" if one.channel is not None else "main" if one.name == "main channel" else "other"
    yield f'<rect class="lane" x="{_LEFT}" y="{top}" width="{_PLOT}" height="{_LANE}"/>'
    yield f'<text x="{_LEFT - 10}" y="{top + _LANE / 2 + 5}" text-anchor="end">{escape(one.name)}</text>'
    yield f'<text x="{_WIDTH - _RIGHT + 10}" y="{top + _LANE / 2 - 3}">{format_size(one.bytes)}</text>'
    count = f"{one.packets} packets" if one.packets else ""
    yield f'<text class="quiet" x="{_WIDTH - _RIGHT + 10}" y="{top + _LANE / 2 + 14}">{count}</text>'
    steps = [f"M{_LEFT} {top + _LANE}"]
    for number, amount in enumerate(one.bytes_over_time):
        level = round(top + _LANE - (_LANE * amount / most if most else 0), 2)
        steps.append(f"V{level}H{_x((number + 1) * explanation.interval, explanation)}")
    yield f'<path class="{kind}" d="{"".join(steps)}V{top + _LANE}Z"><title>{escape(one.name)}</title></path>'


def _switchover(explanation: Explanation, bottom: int) -> Iterator[str]:
    times = explanation.switchover
    if times.begin is None:
        return
    begin = _x(times.begin, explanation)
    end = _x(times.end if times.end is not None else explanation.duration, explanation)
    yield (
        f'<rect class="over" x="{begin}" y="{_TOP - 6}" width="{max(1.0, round(end - begin, 2))}" '
        f'height="{bottom - _TOP + 2}"/>'
    )
    for x in (begin, end):
        yield f'<line class="mark" x1="{x}" y1="{_TOP - 6}" x2="{x}" y2="{bottom - 4}"/>'
    took = f", {format_moment(times.end - times.begin)}" if times.end is not None else ""
    # At the right edge the label would leave the picture.
    anchor = "end" if begin > _LEFT + _PLOT / 2 else "start"
    yield f'<text class="marked" x="{begin}" y="{_TOP - 12}" text-anchor="{anchor}">switchover{took}</text>'


def _axis(explanation: Explanation, bottom: int) -> Iterator[str]:
    yield f'<line class="line" x1="{_LEFT}" y1="{bottom}" x2="{_WIDTH - _RIGHT}" y2="{bottom}"/>'
    for tick in range(_TICKS + 1):
        when = explanation.duration * tick // _TICKS
        x = _x(when, explanation)
        yield f'<line class="line" x1="{x}" y1="{bottom}" x2="{x}" y2="{bottom + 5}"/>'
        yield f'<text class="quiet" x="{x}" y="{bottom + 20}" text-anchor="middle">{format_moment(when)}</text>'
    label = f"height: bytes in {format_moment(explanation.interval)}, the same scale in every lane"
    yield f'<text class="quiet" x="{_LEFT}" y="{bottom + 38}">{label}</text>'
