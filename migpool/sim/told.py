"""What it takes to explain the published downtimes, as a table, a page and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from migpool.sim import published
from migpool.sim.published import CHANNELS, PUBLISHED, Fit
from migpool.units import format_rate


def rows(found: Sequence[Fit]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for what was published and for each hypothesis."""
    keys = sorted(PUBLISHED)
    heading = [
        "what devices share",
        *(f"{'main' if way == 'main channel' else way} {count}" for way, count in keys),
        "off",
    ]
    told = [["(published)", *(_ms(PUBLISHED[key]) for key in keys), ""]]
    told += [[one.hypothesis.name, *(_ms(one.downtimes[key]) for key in keys), f"{one.worst:.0%}"] for one in found]
    return heading, told


def values(one: Fit) -> str:
    """What was fitted."""
    times = ", ".join(
        f"{name} {_ms(one.values[name])} ms" for name in ("read", "write", "stop", "base") if name in one.values
    )
    return f"{times}, main channel {format_rate(one.values['main_rate'])}"


def json_of(found: Sequence[Fit], said: str) -> str:
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


def page(found: Sequence[Fit], said: str) -> str:
    """All of it as a page of Markdown; ``said`` is the conclusion."""
    heading, table = rows(found)
    lines = ["# The published downtimes, simulated", "", f"{said}", ""]
    lines += [f"| {' | '.join(heading)} |", f"|{'---|' * len(heading)}"]
    lines += [f"| {' | '.join(row)} |" for row in table]
    lines += ["", "Downtime in ms of 1, 2 and 4 devices; the last column is the largest deviation.", ""]
    lines += [" ".join((published.__doc__ or "").split()), ""]
    lines += [f"* {one.hypothesis.name}: {values(one)}" for one in found]
    lines += ["", "Four devices by number of channels, not fitted:", ""]
    lines.append(f"* published: {_channels(CHANNELS)}")
    lines += [f"* {one.hypothesis.name}: {_channels(one.channels)}" for one in found]
    return "\n".join(lines) + "\n"


def _channels(times: Mapping[int, float]) -> str:
    return ", ".join(f"{count}: {_ms(time)} ms" for count, time in times.items())


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f}"
