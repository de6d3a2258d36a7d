"""The time line of a switchover on a terminal: a lane for each device, a letter for each kind of work or wait.

Letters and marks say what the colours say, so that nothing is lost on paper, in a log or to an eye. Capital letters are
work, small letters and signs are waits. A column shows what took most of its time in the lane.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from migpool.lab.analysis.kinds import BY_NAME
from migpool.lab.report.page.contents import CRITICAL, Drawn, Lanes, lanes_of
from migpool.lab.run.result import LabResult, RunResult
from migpool.units import format_duration

MOST_LANES: Final = 16
LONGEST_LABEL: Final = 28


def switchover(result: LabResult, width: int) -> RenderableType | None:
    """The time line of the last run that was looked into; ``None`` if there is none."""
    run = next((run for run in reversed(result.runs) if run.analysis is not None and run.downtime_ms), None)
    if run is None:
        return None
    lanes = lanes_of(run, "device")
    label = min(LONGEST_LABEL, max(len(_label(name)) for name in lanes.names))
    columns = max(20, width - label - 2)
    whose = result.scenario if run.checkpoints else f"run {run.repeat}"  # a QEMU's logs are no run of ours
    return Group(*_lines(run, whose, lanes, label, columns))


def _lines(run: RunResult, whose: str, lanes: Lanes, label: int, columns: int) -> list[Text]:
    assert run.analysis is not None
    assert run.downtime_ms is not None
    each = run.downtime_ms / columns
    lines = [Text(), Text(f"Switchover   {whose}, a column is {format_duration(each / 1e3)}", style="bold")]
    path = [
        Drawn(0, link.kind, link.device, link.chunk, link.begin_ms, link.end_ms, link.thread)
        for link in run.analysis.path
    ]
    shown: set[str] = set()
    by_lane: defaultdict[int, list[Drawn]] = defaultdict(list, {0: path})
    for span in lanes.spans:
        by_lane[span.lane].append(span)
    touched = [0, *dict.fromkeys(sorted(lane for lane in lanes.path if lane))]
    wanted = sorted([*touched, *(lane for lane in range(len(lanes.names)) if lane not in touched)][:MOST_LANES])
    for lane in wanted:
        kinds = _columns(by_lane[lane], run.downtime_ms, columns)
        shown.update(kind for kind in kinds if kind)
        line = Text(f"{_short(_label(lanes.names[lane]), label):{label}}  ", no_wrap=True)
        for name in kinds:
            kind = BY_NAME.get(name)
            line.append(kind.mark if kind else " ", style=kind.style if kind else "")
        lines.append(line)
    axis = Text(" " * (label + 2) + _axis(run.downtime_ms, columns), style="dim", no_wrap=True)
    lines.append(axis)
    if len(wanted) < len(lanes.names):
        more = len(lanes.names) - len(wanted)
        lines.append(Text(f"{more} more {'lane is' if more == 1 else 'lanes are'} not shown"))
    words = [f"{kind.mark} {kind.name}" for kind in BY_NAME.values() if kind.name in shown and kind.mark.strip()]
    lines.append(Text("; ".join(words), style="dim"))
    return lines


def _columns(spans: Sequence[Drawn], end: float, columns: int) -> list[str]:
    """The kind that took most of each column's time; empty where nothing was."""
    each = end / columns
    spent: list[defaultdict[str, float]] = [defaultdict(float) for _ in range(columns)]
    for span in spans:
        first, last = int(span.begin / each), min(columns - 1, int(span.end / each))
        for column in range(first, last + 1):
            within = min(span.end, (column + 1) * each) - max(span.begin, column * each)
            if within > 0:
                spent[column][span.name] += within
    return [max(one, key=lambda kind: one[kind]) if one else "" for one in spent]


def _axis(end: float, columns: int) -> str:
    """0 at the left, the downtime at the right, the half between them."""
    half, whole = format_duration(end / 2e3), format_duration(end / 1e3)
    line = "0".ljust(columns // 2 - len(half) // 2) + half
    return line.ljust(columns - len(whole)) + whole


def _label(name: str) -> str:
    return name if name == CRITICAL else name.replace("source: ", "src ", 1).replace("destination: ", "dst ", 1)


def _short(label: str, most: int) -> str:
    return label if len(label) <= most else f"{label[: most // 2 - 1]}..{label[-(most - most // 2 - 1) :]}"
