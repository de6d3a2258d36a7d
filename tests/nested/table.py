"""``python -m tests.nested.table LOG``: what ``make nested NESTED="--rounds=7 --state=..."`` has printed, as a table.

Each figure is the median over the rounds, and behind it the least and the most.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Final

MEASURED: Final = "measured: "
COLUMNS: Final = {
    "written": "state written, ms",
    "busy": "in the driver, ms",
    "together": "writes at once",
    "threads": "threads that wrote",
    "running": "devices run, ms",
}


def rows(text: str) -> dict[tuple[int, str], list[dict[str, float]]]:
    """The measurements by devices and contender, in the order of their medians."""
    found: defaultdict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    for line in text.splitlines():
        if line.startswith(MEASURED):
            one = json.loads(line.removeprefix(MEASURED))
            found[one["devices"], one["contender"]].append(one)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], median(one["written"] for one in item[1]))))


def table(text: str) -> list[str]:
    """The table's lines."""
    lines = [f"| devices | contender | rounds | {' | '.join(COLUMNS.values())} |", "|---" * (3 + len(COLUMNS)) + "|"]
    for (devices, contender), measured in rows(text).items():
        cells = [_cell([one[column] for one in measured]) for column in COLUMNS]
        lines.append(f"| {devices} | {contender} | {len(measured)} | {' | '.join(cells)} |")
    return lines


def _cell(values: list[float]) -> str:
    least, most = min(values), max(values)
    return f"{median(values):g}" if least == most else f"{median(values):.4g} ({least:.4g} to {most:.4g})"


if __name__ == "__main__":
    sys.stdout.write("\n".join(table(Path(sys.argv[1]).read_text("utf-8"))) + "\n")
