"""Two commits, measured in turns: what became faster or slower, and a page of all such comparisons.

    python -m benchmarks.between BEFORE               the tree as it stands against a commit
    python -m benchmarks.between BEFORE NOW           two commits
    python -m benchmarks.between v0.2.0 --only pool   benchmarks with that in their name alone

Each round runs the benchmarks of both, every second one in the opposite order: each commit's own code and benchmarks,
with the packages that are installed here. A ratio is taken within a round; the interval is that of its median
(``median_interval``). Every comparison is kept in ``build/bench`` with the machine's facts; ``build/bench/index.html``
shows them all, the latest first. The exit code is 1 if something became slower.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Final

from migpool.experiments.verdict import Interval, median_interval
from migpool.lab.report.page.document import escape, table
from migpool.lab.run.machine_facts import machine_facts

ROOT: Final = Path(__file__).parent.parent
RESULTS: Final = ROOT / "build" / "bench"
NOISE: Final = 0.03
"""By how much a whole interval must be off 1 for a change to be one: less is the benchmarks' own."""
LIMIT: Final = 600.0
"""Seconds for one commit's benchmarks of one round."""

Row = dict[str, object]


@contextmanager
def tree(commit: str) -> Iterator[Path]:
    """A directory with the files of a commit, or the tree as it stands for none."""
    if not commit:
        yield ROOT
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        path = Path(directory) / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(path), commit)
        try:
            yield path
        finally:
            _git("worktree", "remove", "--force", str(path))


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def measured(path: Path, only: str) -> dict[str, float]:
    """Run a tree's benchmarks; the median seconds of each, by its name."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        result = Path(directory) / "result.json"
        words = ["--benchmark-only", "--benchmark-max-time=0.2", "--benchmark-min-rounds=5"]
        words += [f"--benchmark-json={result}", "--continue-on-collection-errors", "-k", only, "benchmarks"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
            cwd=path,
            env={**os.environ, "PYTHONPATH": str(path)},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        if not result.exists() or not result.stat().st_size:
            sys.exit(f"the benchmarks in {path} give no result:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        found = json.loads(result.read_text("utf-8"))["benchmarks"]
    return {one["fullname"].removeprefix("benchmarks/"): one["stats"]["median"] for one in found}


def told(interval: Interval) -> str:
    """Whether what was measured became slower or faster; ``not sure`` if the rounds do not say."""
    if interval.sure and interval.low > 1 + NOISE:
        return "slower"
    if interval.sure and interval.high < 1 - NOISE:
        return "faster"
    return "as before" if interval.sure and interval.low > 1 - NOISE and interval.high < 1 + NOISE else "not sure"


def rows_of(before: Sequence[Mapping[str, float]], now: Sequence[Mapping[str, float]]) -> list[Row]:
    """A row for each benchmark that both have, the one that became slowest first."""
    rows: list[Row] = []
    for name in before[0].keys() & now[0].keys():
        interval = median_interval([new[name] / old[name] for old, new in zip(before, now, strict=True)])
        was, is_now = (median(one[name] for one in side) for side in (before, now))
        row = {"name": name, "before": was, "now": is_now, "ratio": interval.median, "low": interval.low}
        rows.append({**row, "high": interval.high, "told": told(interval)})
    return sorted(rows, key=lambda row: -float(str(row["ratio"])))


def compare(before: str, now: str, only: str, rounds: int) -> dict[str, object]:
    """Make the rounds, and say what they gave, for the file."""
    sides: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    with tree(before) as old, tree(now) as new:
        for number in range(rounds):
            for at in (0, 1) if number % 2 == 0 else (1, 0):
                sides[at].append(measured((old, new)[at], only))
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)  # noqa: T201
    here = _git("describe", "--always", "--dirty")
    return {
        "before": _git("rev-parse", "--short", before),
        "now": _git("rev-parse", "--short", now) if now else here,
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "rounds": rounds,
        "load": round(os.getloadavg()[0], 1),
        "machine": str(machine_facts()),
        "rows": rows_of(*sides),
    }


def lines(found: Mapping[str, object]) -> Iterator[str]:
    """What is printed of a comparison."""
    rows = found["rows"]
    assert isinstance(rows, list)
    yield f"{found['before']} -> {found['now']}, {found['rounds']} rounds, {found['machine']}, load {found['load']}"
    yield f"{'us, median':60}{'before':>10}{'now':>10}{'ratio':>7}{'interval':>14}"
    for row in rows:
        span = f"{row['low']:.2f} to {row['high']:.2f}"
        times = f"{1e6 * row['before']:10.1f}{1e6 * row['now']:10.1f}"
        yield f"{row['name'][:59]:60}{times}{row['ratio']:7.2f}{span:>14}  {row['told']}"
    slower = [row["name"] for row in rows if row["told"] == "slower"]
    yield f"Slower: {', '.join(slower)}" if slower else "Nothing became slower, as far as these rounds tell."


def cells(found: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    """The rows of a comparison as the page has them."""
    rows = found["rows"]
    assert isinstance(rows, list)
    for row in rows:
        times = (f"{1e6 * row[side]:.1f} us" for side in ("before", "now"))
        yield (f"{row['ratio']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}", row["told"], *times, row["name"])


def page(all_found: Sequence[Mapping[str, object]]) -> str:
    """All comparisons that were kept, the latest first, as a page that needs no network."""
    style = files("migpool.lab.report.page").joinpath("page.css").read_text("utf-8")
    sections = []
    for found in all_found:
        head, _, *_, last = (escape(line) for line in lines(found))
        shown = "".join(table(("Ratio", "Interval", "", "Before", "Now", "What is measured"), list(cells(found))))
        sections.append(
            f'<section class="part"><p class="scenario">{escape(str(found["when"]))}: {head}</p>'
            f'<h2 class="headline">{last}</h2>{shown}</section>'
        )
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>migpool: benchmarks</title><style>{style}</style>"
    body = f"<header><h1>migpool: benchmarks</h1></header><main>{''.join(sections)}</main>"
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.between", description="Measure two commits in turns.")
    parser.add_argument("before", help="a commit")
    parser.add_argument("now", nargs="?", default="", help="a later one; without it, the tree as it stands")
    parser.add_argument("--only", default="cost", metavar="TEXT", help="benchmarks with this in their name (cost)")
    parser.add_argument("--rounds", type=int, default=7, help="how often both are run (7); six are needed to be sure")
    given = parser.parse_args(arguments)
    found = compare(given.before, given.now, given.only, given.rounds)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{time.time_ns()}.json").write_text(json.dumps(found, indent=1), "utf-8")
    kept = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"), reverse=True)]
    (RESULTS / "index.html").write_text(page(kept), "utf-8")
    print("\n".join(lines(found)))  # noqa: T201
    print(f"All comparisons: {RESULTS / 'index.html'}")  # noqa: T201
    rows = found["rows"]
    assert isinstance(rows, list)
    return int(any(row["told"] == "slower" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
