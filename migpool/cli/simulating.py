"""What ``migpool lab run published`` does: fits the simulator to the published downtimes, and shows what that takes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from migpool.cli.experimenting import prepare
from migpool.cli.files import write
from migpool.lab.table import console_for
from migpool.sim import published
from migpool.sim.published import CHANNELS, PUBLISHED, Explanation
from migpool.units import format_rate

__all__ = ["run_published"]


def run_published(results: Path | None) -> None:
    """Fit every hypothesis, print them side by side, and write them.

    Arguments:
        results: the directory to write ``published.md`` and ``published.json`` to.

    Raises:
        UsageError: the directory cannot be used.
    """
    if results is not None:
        prepare(results)
    console, screen = console_for(sys.stdout), console_for(sys.stderr)
    found = []
    for hypothesis in published.hypotheses():
        screen.print(f"published: fitting: {hypothesis.name}", markup=False, highlight=False)
        found.append(published.explain(hypothesis))
    heading, rows = _rows(found)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(heading):
        table.add_column(name, justify="right" if number else "left", no_wrap=bool(number))
    for row in rows:
        table.add_row(*map(Text, row))
    console.print("Downtime in ms of 1, 2 and 4 devices, over the main channel and over multifd", highlight=False)
    console.print(table)
    for one in found:
        console.print(f"{one.hypothesis.name}: {_values(one)}", markup=False, highlight=False)
    said = published.conclusion(found)
    console.print(f"\n{said}", markup=False, highlight=False)
    if results is not None:
        write(results / "published.json", _json(found, said))
        write(results / "published.md", _page(found, heading, rows, said))


def _rows(found: Sequence[Explanation]) -> tuple[list[str], list[list[str]]]:
    keys = sorted(PUBLISHED)
    heading = [
        "what devices share",
        *(f"{'main' if way == 'main channel' else way} {count}" for way, count in keys),
        "off",
    ]
    rows = [["(published)", *(_ms(PUBLISHED[key]) for key in keys), ""]]
    rows += [[one.hypothesis.name, *(_ms(one.downtimes[key]) for key in keys), f"{one.worst:.0%}"] for one in found]
    return heading, rows


def _values(one: Explanation) -> str:
    times = ", ".join(
        f"{name} {_ms(one.values[name])} ms" for name in ("read", "write", "stop", "base") if name in one.values
    )
    return f"{times}, main channel {format_rate(one.values['main_rate'])}"


def _json(found: Sequence[Explanation], said: str) -> str:
    """``{"schema": 1, "conclusion", "hypotheses": [{"name", "worst", "values", "downtimes": [{"way", "devices", "ms",
    "published_ms"}], "channels": {"6": ms ...}}]}``."""
    form = {
        "schema": 1,
        "conclusion": said,
        "hypotheses": [
            {
                "name": one.hypothesis.name,
                "worst": one.worst,
                "values": dict(one.values),
                "downtimes": [
                    {"way": way, "devices": count, "ms": time * 1e3, "published_ms": PUBLISHED[way, count] * 1e3}
                    for (way, count), time in one.downtimes.items()
                ],
                "channels": {str(count): time * 1e3 for count, time in one.channels.items()},
            }
            for one in found
        ],
    }
    return json.dumps(form, indent=2) + "\n"


def _page(found: Sequence[Explanation], heading: Sequence[str], rows: Sequence[Sequence[str]], said: str) -> str:
    lines = ["# The published downtimes, simulated", "", f"{said}", ""]
    lines += [f"| {' | '.join(heading)} |", f"|{'---|' * len(heading)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", "Downtime in ms of 1, 2 and 4 devices; the last column is the largest deviation.", ""]
    lines += [" ".join((published.__doc__ or "").split()), ""]
    lines += [f"* {one.hypothesis.name}: {_values(one)}" for one in found]
    lines += ["", "Four devices by number of channels, not fitted:", ""]
    lines.append(f"* published: {_channels(CHANNELS)}")
    lines += [f"* {one.hypothesis.name}: {_channels(one.channels)}" for one in found]
    return "\n".join(lines) + "\n"


def _channels(times: Mapping[int, float]) -> str:
    return ", ".join(f"{count}: {_ms(time)} ms" for count, time in times.items())


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f}"
