"""``python -m benchmarks.interpreters NAME=PYTHON ...``: the data path and the pool by several interpreters, in turns.

Each PYTHON has migpool and its tests' packages installed. Every round runs ``benchmarks.datapath --quick`` and then
``benchmarks/test_workerpool.py`` with one interpreter after the other, so that all see the same machine. Printed are
the medians over the rounds, a row each; the pool is compared with the same interpreter's ``ThreadPoolExecutor``.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

POOL_ROW: Final = re.compile(r"^([a-z_]+-\S+) +[\d.]+ +([\d.]+) +([\d.]+) ", re.MULTILINE)
"""A row of the pool's table: its name, our microseconds a task, and the standard pool's in units of ours."""


def figures(python: str) -> Iterator[tuple[str, float]]:
    """The rows of one run of each benchmark: what it is, and its median."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        datapath = [python, "-m", "benchmarks.datapath", "--quick", "--json", str(path)]
        subprocess.run(datapath, stdout=subprocess.DEVNULL, check=False)  # it fails where a row misses its target
        for row in json.loads(path.read_text("utf-8"))["rows"]:
            yield row["name"], row["median"]
    pool = [python, "-m", "pytest", "-q", "-s", "-k", "test_ratio", "benchmarks/test_workerpool.py"]
    for name, ours, ratio in POOL_ROW.findall(subprocess.run(pool, capture_output=True, text=True, check=False).stdout):
        yield f"pool, {name}, µs a task", float(ours)
        yield f"pool, {name}, ThreadPoolExecutor's over ours", float(ratio)


def main() -> None:
    """Measure, and print the table as it stands in the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interpreters", nargs="+", metavar="NAME=PYTHON")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    interpreters = dict(each.split("=", 1) for each in options.interpreters)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(options.rounds):
        for name, python in interpreters.items():
            sys.stderr.write(f"round {number + 1}: {name}\n")
            for row, median in figures(python):
                found[row][name].append(median)
    sys.stdout.write(f"| row | {' | '.join(interpreters)} |\n|---|{'---|' * len(interpreters)}\n")
    for row, by in found.items():
        cells = (f"{statistics.median(by[name]):.3g}" if by[name] else "" for name in interpreters)
        sys.stdout.write(f"| {row} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
