"""What strangers at the port cost: ``python -m benchmarks.strangers``.

Migrations of the scenario ``small`` over TCP on loopback, in batches, in turns with and without strangers that come
before, between and during them, so many a second (``tests/support/flood.py`` says what they do). A ratio is that of the
median downtimes of two neighbouring batches. The strangers run on this machine, too, and take their processor time from
both ends.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.support.flood import RATE, Migrations, migrate

BATCH = 20
TARGET = 1.2
MODEL = "pool"


def main() -> int:
    """Measure and print; fails if the downtime is longer than it may be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strangers", description=__doc__)
    parser.add_argument("migrations", type=int, nargs="?", default=200, help="with and without them (default: 200)")
    parser.add_argument("rate", type=int, nargs="?", default=RATE, help=f"strangers a second (default: {RATE})")
    chosen = parser.parse_args()
    count, rate = chosen.migrations, chosen.rate
    found: dict[int, list[Migrations]] = {0: [], rate: []}
    seconds = dict.fromkeys(found, 0.0)
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(-(-count // BATCH)):
            for each in sorted(found, reverse=bool(number % 2)):
                begun = time.monotonic()
                found[each].append(migrate(BATCH, MODEL, Path(scratch), rate=each))
                seconds[each] += time.monotonic() - begun
    medians = {each: [statistics.median(batch.downtimes) for batch in batches] for each, batches in found.items()}
    ratios = sorted(flooded / quiet for flooded, quiet in zip(medians[rate], medians[0], strict=True))
    for each, batches in found.items():
        every = sorted(one for batch in batches for one in batch.downtimes)
        sys.stdout.write(
            f"{each:4} strangers a second, {sum(batch.connected for batch in batches)} in {seconds[each]:.0f} s: "
            f"{len(every)} migrations, all complete; downtime {statistics.median(every):.1f} ms "
            f"({every[0]:.1f} to {every[-1]:.1f})\n"
        )
    ratio = statistics.median(ratios)
    sys.stdout.write(
        f"with them over without: {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f} of {len(ratios)} pairs of batches), "
        f"target at most {TARGET}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n"
    )
    return int(ratio > TARGET)


if __name__ == "__main__":
    sys.exit(main())
