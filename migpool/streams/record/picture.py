"""Draws an explanation as one SVG file: bytes over time, a lane a channel, with the switchover marked."""

from __future__ import annotations

from typing import Final

from migpool.streams.record.explanation import ChannelUse, Explanation
from migpool.svg import Drawing
from migpool.units import count_of, format_moment, format_size

_LEFT: Final = 150
_RIGHT: Final = 130
_WIDTH: Final = 1000
_TOP: Final = 64
_LANE: Final = 56
_GAP: Final = 10
_PLOT: Final = _WIDTH - _LEFT - _RIGHT
_TICKS: Final = 5

_LIGHT: Final = """.main { fill: #8250df } .multifd { fill: #0969da } .other { fill: #59636e }
.over { fill: #d1242f; fill-opacity: .13 } .mark { stroke: #d1242f; stroke-width: 1.5 } .marked { fill: #d1242f }"""
_DARK: Final = """.main { fill: #ab7df8 } .multifd { fill: #4493f8 } .other { fill: #9198a1 }
.over { fill: #f85149; fill-opacity: .2 } .mark { stroke: #f85149 } .marked { fill: #f85149 }"""


def picture(explanation: Explanation) -> str:
    """The picture, as SVG."""
    drawing = Drawing(_WIDTH, _LIGHT, _DARK)
    bottom = _TOP + len(explanation.channels) * (_LANE + _GAP)
    most = max((max(one.bytes_over_time, default=0) for one in explanation.channels), default=0)
    for number, one in enumerate(explanation.channels):
        _lane(drawing, one, explanation, _TOP + number * (_LANE + _GAP), most)
    _switchover(drawing, explanation, bottom)
    _axis(drawing, explanation, bottom)
    title = f"{explanation.machine or 'migration'}: bytes over time, {format_moment(explanation.duration)}"
    return drawing.document(title + ("" if explanation.complete else " (not complete)"), bottom + 44, (_LEFT, 22))


def _x(when: int, explanation: Explanation) -> float:
    whole = explanation.interval * max((1, *(len(one.bytes_over_time) for one in explanation.channels)))
    return round(_LEFT + _PLOT * min(1.0, max(0.0, when / whole)), 2)


def _lane(drawing: Drawing, one: ChannelUse, explanation: Explanation, top: int, most: int) -> None:
    kind = "multifd" if one.channel is not None else "main" if one.name == "main channel" else "other"
    drawing.rect("lane", _LEFT, top, _PLOT, _LANE)
    drawing.text(_LEFT - 10, top + _LANE / 2 + 5, one.name, anchor="end")
    drawing.text(_WIDTH - _RIGHT + 10, top + _LANE / 2 - 3, format_size(one.bytes))
    count = count_of(one.packets, "packet") if one.packets else ""
    drawing.text(_WIDTH - _RIGHT + 10, top + _LANE / 2 + 14, count, "quiet")
    steps = [f"M{_LEFT} {top + _LANE}"]
    for number, amount in enumerate(one.bytes_over_time):
        level = round(top + _LANE - (_LANE * amount / most if most else 0), 2)
        steps.append(f"V{level}H{_x((number + 1) * explanation.interval, explanation)}")
    drawing.path(kind, f"{''.join(steps)}V{top + _LANE}Z", one.name)


def _switchover(drawing: Drawing, explanation: Explanation, bottom: int) -> None:
    times = explanation.switchover
    if times.begin is None:
        return
    begin = _x(times.begin, explanation)
    end = _x(times.end if times.end is not None else explanation.duration, explanation)
    drawing.rect("over", begin, _TOP - 6, max(1.0, end - begin), bottom - _TOP + 2)
    for x in (begin, end):
        drawing.line("mark", (x, _TOP - 6), (x, bottom - 4))
    took = f", {format_moment(times.end - times.begin)}" if times.end is not None else ""
    # At the right edge the label would leave the picture.
    anchor = "end" if begin > _LEFT + _PLOT / 2 else "start"
    drawing.text(begin, _TOP - 12, f"switchover{took}", "marked", anchor=anchor)


def _axis(drawing: Drawing, explanation: Explanation, bottom: int) -> None:
    drawing.line("line", (_LEFT, bottom), (_WIDTH - _RIGHT, bottom))
    for tick in range(_TICKS + 1):
        when = explanation.duration * tick // _TICKS
        x = _x(when, explanation)
        drawing.line("line", (x, bottom), (x, bottom + 5))
        drawing.text(x, bottom + 20, format_moment(when), "quiet", anchor="middle")
    label = f"height: bytes in {format_moment(explanation.interval)}, the same scale in every lane"
    drawing.text(_LEFT, bottom + 38, label, "quiet")
