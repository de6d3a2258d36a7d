"""``python -m benchmarks.guest``: the downtime that the guest saw beside the reported one, with either dirty log, and
what each log costs.

Every round migrates the scenario ``guest`` once with each threading model and log, in processes of their own, so that
load from outside falls on all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from pathlib import Path

from benchmarks.datapath.failure import BenchmarkFailure
from benchmarks.guest.logs import LOGS, compare_large, compare_logs

LIMIT = 120.0
TARGET = 5.0
"""Milliseconds between the guest's word and ours, in the median."""
_OPTIONS = 'pattern = "random"'
_SEEN = re.compile(r"stood still for ([0-9.]+) ms by its own clock")


@dataclass(frozen=True, slots=True)
class Stop:
    """One migration's downtime in milliseconds.

    Arguments:
        reported: by migpool.
        seen: by each vCPU.
    """

    reported: float
    seen: tuple[float, ...]

    @property
    def apart(self) -> float:
        """What the vCPU that is furthest off saw beyond what was reported; negative for less."""
        return max((seen - self.reported for seen in self.seen), key=abs)


def migrate(scenario: Path, model: str, result: Path) -> Stop:
    """Migrate once."""
    ended = subprocess.run(
        [sys.executable, "-m", "migpool", "run", str(scenario), "--model", model, "--json", str(result)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if ended.returncode:
        raise BenchmarkFailure(f"{model}: {ended.stderr.strip().splitlines()[-1]}")
    (run,) = json.loads(result.read_text("utf-8"))["runs"]
    found = [_SEEN.fullmatch(device["remark"]) for device in run["devices"] if device["name"].startswith("vcpu")]
    seen = tuple(float(match[1]) for match in found if match)
    if not seen:
        raise BenchmarkFailure("no vCPU says how long it stood still")
    return Stop(run["downtime_ms"], seen)


def shown(values: Sequence[float]) -> str:
    """The median, and the least and the most."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def downtimes(models: Sequence[str], rounds: int) -> None:
    """Migrate in turns, and say what came of it."""
    text = (resources.files("migpool") / "scenarios" / "guest.toml").read_text("utf-8")
    stops: dict[tuple[str, str], list[Stop]] = {each: [] for each in product(models, LOGS)}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for log in LOGS:
            (place / f"{log}.toml").write_text(text.replace(_OPTIONS, f'{_OPTIONS}, dirty_log = "{log}"'), "utf-8")
        for number in range(rounds):
            for model, log in list(stops) if number % 2 else reversed(list(stops)):
                stop = migrate(place / f"{log}.toml", model, place / "result.json")
                stops[model, log].append(stop)
                sys.stdout.write(
                    f"round {number + 1}: {model}, {log}: {stop.reported:.1f} ms reported, "
                    f"{', '.join(f'{seen:.1f}' for seen in stop.seen)} seen, load {os.getloadavg()[0]:.1f}\n"
                )
                sys.stdout.flush()
    for (model, log), found in stops.items():
        sys.stdout.write(
            f"{model}, {log}, {rounds} runs: {shown([stop.reported for stop in found])} ms reported; the guest saw "
            f"{shown([stop.apart for stop in found])} ms more\n"
        )
    everything = [abs(stop.apart) for found in stops.values() for stop in found]
    apart = statistics.median(everything)
    sys.stdout.write(
        f"all {len(everything)}: apart by {shown(everything)} ms, target {TARGET:g}: "
        f"{'pass' if apart <= TARGET else 'above'}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guest", description=__doc__)
    parser.add_argument("--models", default="pool,per-device", help="threading models (default: pool,per-device)")
    parser.add_argument("--rounds", type=int, default=15, help="migrations with each model and log (default: 15)")
    parser.add_argument("--only", choices=("downtime", "logs"), help="one of the two parts")
    chosen = parser.parse_args()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise BenchmarkFailure("there is no /dev/kvm to run a guest on")
    if chosen.only != "logs":
        downtimes(chosen.models.split(","), chosen.rounds)
    if chosen.only != "downtime":
        compare_logs(chosen.rounds)
        compare_large(chosen.rounds)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkFailure as failure:
        sys.exit(f"benchmarks.guest: {failure}")
