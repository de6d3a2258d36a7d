"""The result as a reader sees it: a table that fits into 80 columns, what it rests on, and the answer."""

from __future__ import annotations

import io
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TextIO, TypeAlias, cast

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from migpool.core.effects import Wait
from migpool.lab.analysis.kinds import WAITS
from migpool.lab.report.summary import ModelSummary, answer, foundations, some_of, summarize
from migpool.lab.run.result import AnalysisResult, LabResult, RunResult
from migpool.migration.report import DeviceReport
from migpool.units import format_duration, format_share, format_size
from migpool.untrusted.text import printable_lines

SHOWN_KINDS: Final = 3
LONGEST_NAME: Final = 12
ROOMY: Final = 90
"""Columns from which on the table's own stand further apart."""
PLAIN_WIDTH: Final = 100
"""Columns where there is no terminal to ask: wide enough that nothing is cut."""

_HEADINGS: Final = (
    ("Model", False, 0),
    ("Downtime\n(range)", True, 0),
    ("Eff.", True, 60),
    ("Total", True, 80),
    ("Threads\nsrc+dst", True, 60),
    ("Where the\ndowntime went", False, 48),
    ("Memory of\nbudget", True, 80),
    ("State\nverified", False, 0),
)
"""Of the table: the heading, whether it is a number, and how wide the console must be for it to be shown."""

_FONT_FACES = re.compile(r"@font-face\s*{[^}]*}")
_COLOURS = [(40, 44, 52), (200, 60, 60), (60, 150, 80), (180, 130, 30), (70, 110, 190), (140, 80, 170), (40, 140, 150)]
_THEME = TerminalTheme((252, 252, 250), (40, 44, 52), [*_COLOURS, (90, 96, 106)], [*_COLOURS, (40, 44, 52)])


def console_for(stream: TextIO) -> Console:
    """A console as wide as the terminal, or as ``COLUMNS`` says, or wide enough where neither is there."""
    if stream.isatty():
        return _Console(file=stream)
    file = cast("TextIO", _Unpadded(stream))
    return _Console(file=file, width=None if os.environ.get("COLUMNS", "").isdecimal() else PLAIN_WIDTH)


class _Console(Console):
    """A console on which text does nothing but stand there: names and reasons come from peers and files too."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control or text.isprintable() else Segment(printable_lines(text), style)


class _Unpadded:
    """A stream in which no line ends in blanks: a table fills its last column with them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(_PADDING.sub("", text))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


_PADDING: Final = re.compile(r"[ \t]+$", re.MULTILINE)


def plain_table(*headings: str) -> Table:
    """A table without a frame."""
    return Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def markdown_table(heading: str, rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table of Markdown. ``heading``: its first line, as it is written."""
    lines = (" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in rows)
    return [heading, "|---" * (heading.count("|") - 1) + "|", *(f"| {line} |" for line in lines)]


def render(result: LabResult, width: int) -> RenderableType:
    """The table, what it rests on, and the answer. ``width``: how many columns there are; from 80 on nothing is cut."""
    summaries = summarize(result.runs)
    parts: list[RenderableType] = [_table(summaries, width), Text()]
    parts += [
        Text(f"{term:<12} {text}", style="yellow" if term == "Warning" else "") for term, text in foundations(result)
    ]
    parts += [Text(f"{'Failed':<12} {line}", style="red") for line in _failures(result.runs)]
    if said := answer(summaries):
        parts += [Text(), Text(said, style="bold")]
    return Group(*parts)


def _failures(runs: Iterable[RunResult]) -> Iterator[str]:
    """A line for each error, however many runs had it."""
    alike: dict[str, list[RunResult]] = {}
    for run in runs:
        if run.error:
            alike.setdefault(run.error, []).append(run)
    for first, *more in alike.values():
        yield run_line(first) + (f" ({len(more)} more alike)" if more else "")


def run_line(run: RunResult, *, reason: bool = True) -> str:
    """One run in a line. ``reason``: whether to say why it failed, if it did."""
    if run.outcome != "completed" or run.downtime_ms is None:
        return f"{run.model}, run {run.repeat}: {run.outcome}{f': {run.error}' if run.error and reason else ''}"
    begin = f"{run.model}, run {run.repeat}: completed"
    downtime = f"downtime {format_duration(run.downtime_ms / 1e3)}"
    if run.verified is None:
        return f"{begin}, not compared, {downtime} (no fingerprint: {some_of(run.uncompared)})"
    return f"{begin}, {downtime}, {'state verified' if run.verified else 'state NOT verified'}"


def _table(summaries: Sequence[ModelSummary], width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1 if width >= ROOMY else 0, 0, 0), pad_edge=False, show_edge=False)
    shown = [at for at, (_, _, least) in enumerate(_HEADINGS) if width >= least]
    for at in shown:
        heading, is_number, _ = _HEADINGS[at]
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    for number, one in enumerate(summaries):
        cells = _cells(one)
        table.add_row(*(cells[at] for at in shown), end_section=number + 1 < len(summaries))
    return table


def _cells(one: ModelSummary) -> tuple[RenderableType, ...]:
    downtime = "none" if one.downtime is None else format_duration(one.downtime / 1e3)
    spread = f"{_bare(one.least)}-{_bare(one.most)}" if one.downtime is not None and one.runs > 1 else ""
    whole = sum(part for _, part in one.kinds)
    kinds = [f"{kind} {100 * part / whole:.0f}%" for kind, part in one.kinds[:SHOWN_KINDS] if whole]
    memory = format_share(one.high_water, one.budget) if one.budget else ""
    rss = f"RSS {format_size(one.rss)}" if one.rss else ""
    good, said, style = one.verified == one.runs, "NO", "bold red"
    if good:
        said, style = "yes", "green"
    elif one.verified + one.uncompared == one.runs:
        said, style = "not\ncompared", "yellow"
    verified = Text(f"{one.verified}/{one.runs} {said}", style=style)
    return (
        Text(_folded(one.model), style="bold"),
        "\n".join(filter(None, (downtime, spread))),
        "" if one.efficiency is None else f"{100 * one.efficiency:.0f}%",
        "" if one.total is None else f"{one.total / 1e3:.2f} s",
        f"{sum(one.threads)}\n{one.threads[0]}+{one.threads[1]}",
        "\n".join(kinds),
        "\n".join(filter(None, (memory, rss))),
        verified,
    )


def _folded(model: str) -> str:
    """A model's name, in lines that leave room for the rest of the table."""
    lines = model.replace("+", "\n+").split("\n")
    return "\n".join(line.replace("-", "-\n") if len(line) > LONGEST_NAME else line for line in lines)


def _bare(value: float) -> str:
    return format_duration(value / 1e3).removesuffix(" ms")


def picture(result: LabResult, title: str) -> str:
    """Draw the result's table.

    Returns:
        An SVG document that fetches nothing: the reader's own monospaced font is used.
    """
    console = Console(record=True, width=PLAIN_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(render(result, PLAIN_WIDTH))
    drawn = console.export_svg(title=title, theme=_THEME)
    return _FONT_FACES.sub("", drawn).replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")


Cell: TypeAlias = tuple[str, Literal["", "number", "bad"]]
"""What a cell says, and how it looks."""

LEAST = 0.05
"""Milliseconds on the critical path from which on a device that is not iterable has a row."""


MOST_WAITERS: Final = 2
"""How many devices are named that waited for another's lock."""


@dataclass(slots=True)
class DeviceTimes:
    """What a device took in a run, in milliseconds.

    Attributes:
        path: on the critical path; what another device waited there for a lock that this one held is this one's.
        saved: at the source, in reads and in saving its config.
        loaded: at the destination, in writes and in loading its config.
        held: how much of ``path`` which device waited for.
    """

    path: float = 0.0
    saved: float = 0.0
    loaded: float = 0.0
    held: dict[str, float] = field(default_factory=dict)


def _time(milliseconds: float) -> Cell:
    return (format_duration(milliseconds / 1e3) if milliseconds else ""), "number"


def _held(_: DeviceReport, times: DeviceTimes) -> Cell:
    """Who waited for its lock."""
    waiters = sorted(times.held, key=lambda name: -times.held[name])
    said = [f"{name} {format_duration(times.held[name] / 1e3)}" for name in waiters[:MOST_WAITERS]]
    more = len(waiters) - len(said)
    return ", ".join([*said, *([f"{more} more"] if more else [])]), ""


def _verified(told: DeviceReport, times: DeviceTimes) -> Cell:
    del times
    if told.verified is None:
        return "not compared", ""
    return ("yes", "") if told.verified else ("NO", "bad")


COLUMNS: Mapping[str, Callable[[DeviceReport, DeviceTimes], Cell]] = {
    "Device": lambda told, _: (told.name, ""),
    "What it is": lambda told, _: (told.note or ("iterable" if told.iterable else ""), ""),
    "State sent": lambda told, _: (format_size(told.bytes), "number"),
    "Saved in": lambda _, times: _time(times.saved),
    "Loaded in": lambda _, times: _time(times.loaded),
    "On the critical path": lambda _, times: (format_duration(times.path / 1e3), "number"),
    "Waited for its lock": _held,
    "Verified": _verified,
}
"""By heading, what a cell says of what the sides reported of a device, and of its times."""

_NOTHING: Final = ("", "not compared", "0 B")


def device_rows(run: RunResult) -> tuple[list[str], list[list[Cell]]]:
    """The headings under which there is something to say of this run, and the rows.

    Each device that is worth one has a row, those longest on the critical path first; all others have one together.

    Arguments:
        run: one with an ``analysis``.
    """
    assert run.analysis is not None
    times = device_times(run.analysis, run.devices)
    shown = [one for one in run.devices if one.iterable or times[one.name].path >= LEAST or one.verified is False]
    shown.sort(key=lambda one: -times[one.name].path)
    every = [[cell(one, times[one.name]) for cell in COLUMNS.values()] for one in shown]
    said = [at for at in range(len(COLUMNS)) if not at or any(row[at][0] not in _NOTHING for row in every)]
    rows = [[row[at] for at in said] for row in every]
    if len(shown) < len(run.devices):
        rest = f"and {len(run.devices) - len(shown)} more"
        rows.append([(text, "") for text in (rest, *[""] * (len(said) - 1))])
    return [list(COLUMNS)[at] for at in said], rows


def device_times(analysis: AnalysisResult, devices: Sequence[DeviceReport]) -> defaultdict[str, DeviceTimes]:
    """What each device took, by name, as far as it was within the downtime."""
    times: defaultdict[str, DeviceTimes] = defaultdict(DeviceTimes)
    for link in analysis.path:
        spent = link.end_ms - link.begin_ms
        held = link.kind == LOCK and link.behind
        times[link.behind if held else link.device].path += spent
        if held:
            waited = times[link.behind].held
            waited[link.device] = waited.get(link.device, 0.0) + spent
    for wait, slot, _, begin, end, _ in analysis.trace.source.spans:
        if wait in _SAVES and 0 <= slot < len(devices):
            times[devices[slot].name].saved += max(0, end - max(0, begin)) / 1e6
    for wait, slot, _, begin, end, _ in analysis.trace.destination.spans:
        if wait in _LOADS and 0 <= slot < len(devices):
            times[devices[slot].name].loaded += max(0, end - max(0, begin)) / 1e6
    return times


LOCK: Final = WAITS[Wait.LOCK].name
_SAVES: Final = frozenset(wait.name.lower() for wait in (Wait.READ, Wait.SCAN, Wait.SAVE_CONFIG))
_LOADS: Final = frozenset(wait.name.lower() for wait in (Wait.WRITE, Wait.PRECOPIED, Wait.LOAD_CONFIG))


def device_table(run: RunResult, width: int) -> Table:
    """A row a device. Names differ at their ends, so none is cut, but goes on in the next line.

    Arguments:
        width: how many columns there are; from 80 on no other word is broken.
    """
    table = plain_table()
    if width < ROOMY:
        table.padding = (0, 1, 0, 0)
    head, rows = device_rows(run)
    for at, heading in enumerate(head):
        number = any(row[at][1] == "number" for row in rows)
        words = [word for text in (heading, *(row[at][0] for row in rows)) for word in text.split()]
        longest = min(8, max(map(len, words), default=0)) if at and width >= 80 else 0
        table.add_column(heading, justify="right" if number else "left", overflow="fold", min_width=longest)
    for row in rows:
        table.add_row(*(Text(text, style="bold red" if kind == "bad" else "") for text, kind in row))
    return table
