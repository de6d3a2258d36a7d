"""What ``migpool observe`` costs: the downtime of a tiny q35 machine with it and without, in turns.

One source migrates to one fresh destination after the other, and runs on after each: so both of a pair are of the same
QEMU. The downtime is from the source's STOP to the destination's RESUME, whose times QEMU tells without any
tracepoint. A ratio is taken within a pair, every second one in the opposite order: load from outside falls on both.
Processor time is that of both QEMUs from before the migration to after it: on a busy host it says what a downtime
does not.
Run as ``python -m benchmarks.observing [PAIRS] [--all]``; needs QEMU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles
from typing import Final

from migpool.experiments.verdict import median_interval
from tests.qemu.qemu_guest import set_up
from tests.qemu.qemuprocess import QemuProcess, qemu_here

MACHINE: Final = (
    *("-accel", "tcg", "-machine", "q35", "-m", "64", "-nodefaults", "-display", "none"),
    *(("-device", "e1000e,romfile=") * 4),
)
BOOTED: Final = 5.0
"""Seconds until the firmware has come to its end."""
SETTLED: Final = 2.5
"""Seconds from a destination's start to the migration, observed or not."""
LIMIT: Final = 60.0


class Observing:
    """The source, and how often it has migrated.

    Arguments:
        options: of ``observe``.
    """

    def __init__(self, directory: Path, options: list[str]) -> None:
        self._directory, self._options, self._number = directory, options, 0
        self.source = _machine(directory, "source")

    def migrate(self, *, observed: bool) -> tuple[float, float]:
        """Milliseconds of one migration: its downtime, and the processor time of both QEMUs."""
        began = time.monotonic()
        self._number += 1
        side = f"destination{self._number}"
        with ExitStack() as stack:
            destination = stack.enter_context(_machine(self._directory, side, "-incoming", "defer"))
            set_up(destination, channels=0, capabilities=["return-path"])
            uri = f"unix:{self._directory}/{side}.migration"
            destination.execute("migrate-incoming", {"uri": uri})
            observing = stack.enter_context(self._observe(side)) if observed else None
            if observing is not None:
                stack.callback(observing.kill)  # whatever fails, nothing is waited for
            time.sleep(max(0.0, began + SETTLED - time.monotonic()))
            before = self.source.cpu_time + destination.cpu_time
            self.source.execute("migrate", {"uri": uri})
            for qemu in (self.source, destination):
                assert qemu.wait_for_status("completed", "failed", limit=LIMIT) == "completed"
            spent = self.source.cpu_time + destination.cpu_time - before
            if observing is not None:
                _, said = observing.communicate(timeout=LIMIT)
                assert observing.returncode == 0, said
            found = (destination.time_of("RESUME") - self.source.time_of("STOP")) / 1e3
        self.source.execute("cont")
        return found, spent * 1e3

    def _observe(self, side: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "migpool", "observe", *self._options]
        for option, monitor in (("--source", "source"), ("--destination", side)):
            command += [option, f"{self._directory}/{monitor}.qmp"]
        observing = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert observing.stderr is not None
        assert "waiting for the migration" in observing.stderr.readline()
        return observing


def _machine(directory: Path, name: str, *more: str) -> QemuProcess:
    found = qemu_here()
    assert found is not None
    monitor = ("-msg", "timestamp=on", "-qmp", f"unix:{directory}/{name}.qmp,server=on,wait=off")
    return QemuProcess([*found.command, *MACHINE, *monitor, *more], directory / f"{name}.err")


def main() -> None:
    words = sys.argv[1:]
    options = [word for word in words if word.startswith("-")]
    pairs = next((int(word) for word in words if word.isdecimal()), 30)
    alone: list[tuple[float, float]] = []
    watched: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        observing = Observing(Path(name), options)
        with observing.source as source:
            set_up(source, channels=0, capabilities=["return-path"])
            time.sleep(BOOTED)
            for observed in (False, True):  # what a first time costs
                observing.migrate(observed=observed)
            for pair in range(pairs):
                for observed in (False, True) if pair % 2 else (True, False):
                    (watched if observed else alone).append(observing.migrate(observed=observed))
                print(f"{pair}: alone {alone[-1][0]:.2f} ms, observed {watched[-1][0]:.2f} ms", flush=True)  # noqa: T201
    for at, what in enumerate(("downtime", "processor time of both QEMUs")):
        print(f"{what}: {_compared([one[at] for one in alone], [one[at] for one in watched])}")  # noqa: T201
    print(f"{' '.join(['observe', *options])}: {os.cpu_count()} processors, load {os.getloadavg()[1]:.1f}")  # noqa: T201


def _compared(alone: list[float], watched: list[float]) -> str:
    """Both medians, and where that of the ratios within the pairs lies."""
    ratios = median_interval([ours / own for own, ours in zip(alone, watched, strict=True)])
    low, middle, high = (f"{100 * (one - 1):+.1f}" for one in (ratios.low, ratios.median, ratios.high))
    quarters = [quantiles(times, n=4) for times in (alone, watched)]
    said = (f"{half:.2f} ms (middle half {first:.2f} to {last:.2f})" for first, half, last in quarters)
    return f"{' alone, '.join(said)} observed; within a pair {middle} % ({low} to {high})"


if __name__ == "__main__":
    main()
