"""Whether ``migpool observe`` lengthens the downtime: that of a machine with it and without, in turns.

One source migrates to one fresh destination after the other, and runs on after each: so both of a pair are of the same
QEMU. The machine has sixteen network cards, so that 3 % of its downtime is more than the noise. The downtime is from
the source's STOP to the destination's RESUME, whose times QEMU tells without any tracepoint. A ratio is taken within a
pair, every second one in the opposite order: load from outside falls on both. What observes is a thread of this
process, which waits like that of the command and needs no start of its own.

It ends when the interval of the median ratio is all below 3 % more, or all above it, which is looked at four times only
(after 32, 64, 128, 256 pairs): who looks after each pair finds what he wants. It ends after eleven minutes in any case.
Processor time is that of both QEMUs from before the migration to after it: on a busy host it says what a downtime does
not.

Run as ``python -m benchmarks.observing [--all] [--accel tcg] [--cards N] [--pairs N]``: QEMU 10, and a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Final

from migpool.experiments.verdict import median_interval
from migpool.lab.qemu.observe import Observation, observe
from migpool.lab.qemu.tracing import ALL, LIGHT
from tests.qemu.qemu_guest import set_up
from tests.qemu.qemuprocess import QemuProcess, qemu_here

MACHINE: Final = ("-machine", "q35", "-m", "64", "-nodefaults", "-display", "none")
CARDS: Final = 16
BOOTED: Final = 5.0
"""Seconds until the firmware has come to its end."""
SETTLED: Final = 0.5
"""Seconds for which both QEMUs stand ready before the migration, observed or not."""
LIMIT: Final = 60.0
MOST: Final = 0.03
"""By how much the downtime may be longer."""
LOOKS: Final = (32, 64, 128, 256)
SECONDS: Final = 660.0


class Observing:
    """The source, and how often it has migrated."""

    def __init__(self, directory: Path, cards: int, accel: str, tracepoints: Sequence[str]) -> None:
        self._directory, self._cards, self._accel, self._tracepoints = directory, cards, accel, tracepoints
        self._number = 0
        self.source = self._machine("source")

    def migrate(self, *, observed: bool) -> tuple[float, float]:
        """Milliseconds of one migration: its downtime, and the processor time of both QEMUs."""
        self._number += 1
        side = f"destination{self._number}"
        with ExitStack() as stack:
            destination = stack.enter_context(self._machine(side, "-incoming", "defer"))
            set_up(destination, channels=0, capabilities=["return-path"])
            uri = f"unix:{self._directory}/{side}.migration"
            destination.execute("migrate-incoming", {"uri": uri})
            if observed:
                stack.enter_context(self._observed(side))
            time.sleep(SETTLED)
            before = self.source.cpu_time + destination.cpu_time
            self.source.execute("migrate", {"uri": uri})
            for qemu in (self.source, destination):
                assert qemu.wait_for_status("completed", "failed", limit=LIMIT) == "completed"
            spent = self.source.cpu_time + destination.cpu_time - before
            found = (destination.time_of("RESUME") - self.source.time_of("STOP")) / 1e3
        self.source.execute("cont")
        return found, spent * 1e3

    @contextmanager
    def _observed(self, side: str) -> Iterator[None]:
        """Observe both meanwhile, to the end of the migration."""
        (logs := self._directory / f"{side}.logs").mkdir()
        ready, ended, errors = threading.Event(), threading.Event(), list[Exception]()
        monitors = {"source": f"{self._directory}/source.qmp", "destination": f"{self._directory}/{side}.qmp"}

        def run() -> None:
            wanted = Observation(
                {"source": monitors["source"], "destination": monitors["destination"]},
                logs,
                tracepoints=self._tracepoints,
                limit=LIMIT,
                told=lambda _: ready.set(),
            )
            try:
                assert asyncio.run(observe(wanted)).result.runs[0].downtime_ms
            except Exception as error:  # noqa: BLE001 -- it is raised where it is waited for
                errors.append(error)
            finally:
                ready.set()
                ended.set()

        threading.Thread(target=run, daemon=True).start()
        try:
            assert ready.wait(LIMIT), "observe does not begin"
            yield
            assert ended.wait(2 * LIMIT), "observe does not end"
        finally:
            shutil.rmtree(logs, ignore_errors=True)
        if errors:
            raise errors[0]

    def _machine(self, name: str, *more: str) -> QemuProcess:
        found = qemu_here()
        assert found is not None, "no QEMU 10 here"
        cards = ("-device", "e1000e,romfile=") * self._cards
        monitor = ("-msg", "timestamp=on", "-qmp", f"unix:{self._directory}/{name}.qmp,server=on,wait=off")
        machine = ("-accel", self._accel, *MACHINE, *cards)
        return QemuProcess([*found.command, *machine, *monitor, *more], self._directory / f"{name}.err")


def main() -> None:
    parser = argparse.ArgumentParser(description="What migpool observe costs.")
    parser.add_argument("--all", action="store_true", help="the tracepoints of observe --all")
    parser.add_argument("--cards", type=int, default=CARDS, help="network cards of the machine")
    # What TCG translates takes processors from what is measured, and more in one migration than in another.
    parser.add_argument(
        "--accel", default="kvm" if os.access("/dev/kvm", os.W_OK) else "tcg", help="QEMU's accelerator"
    )
    parser.add_argument("--pairs", type=int, default=0, help="so many pairs, whatever they say")
    wanted = parser.parse_args()
    alone: list[tuple[float, float]] = []
    watched: list[tuple[float, float]] = []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        observing = Observing(Path(name), wanted.cards, wanted.accel, ALL if wanted.all else LIGHT)
        with observing.source as source:
            set_up(source, channels=0, capabilities=["return-path"])
            time.sleep(BOOTED)
            for observed in (False, True):  # what a first time costs
                observing.migrate(observed=observed)
            while not _enough(alone, watched, wanted.pairs, time.monotonic() - begun):
                for observed in (False, True) if len(alone) % 2 else (True, False):
                    (watched if observed else alone).append(observing.migrate(observed=observed))
                _say(f"{len(alone)}: alone {alone[-1][0]:.2f} ms, observed {watched[-1][0]:.2f} ms")
    for at, what in enumerate(("downtime", "processor time of both QEMUs")):
        _say(f"{what}: {_compared([one[at] for one in alone], [one[at] for one in watched])}")
    _say(
        f"observe{' --all' * wanted.all}, {wanted.accel}, {wanted.cards} cards, {len(alone)} pairs "
        f"in {time.monotonic() - begun:.0f} s, {os.cpu_count()} processors, load {os.getloadavg()[1]:.1f}"
    )
    _say(f"less than {MOST:.0%} longer: {_verdict(alone, watched)}")


def _enough(alone: list[tuple[float, float]], watched: list[tuple[float, float]], pairs: int, spent: float) -> bool:
    count = len(alone)
    if pairs:
        return count >= pairs
    return spent > SECONDS or count >= LOOKS[-1] or (count in LOOKS and _verdict(alone, watched) != "not decided")


def _verdict(alone: list[tuple[float, float]], watched: list[tuple[float, float]]) -> str:
    ratios = median_interval([ours[0] / own[0] for own, ours in zip(alone, watched, strict=True)])
    return "yes" if ratios.high < 1 + MOST else "no" if ratios.low > 1 + MOST else "not decided"


def _compared(alone: list[float], watched: list[float]) -> str:
    """Both medians, and where that of the ratios within the pairs lies."""
    ratios = median_interval([ours / own for own, ours in zip(alone, watched, strict=True)])
    low, middle, high = (f"{100 * (one - 1):+.1f}" for one in (ratios.low, ratios.median, ratios.high))
    quarters = [quantiles(times, n=4) if len(times) > 1 else times * 3 for times in (alone, watched)]
    said = (f"{half:.2f} ms (middle half {first:.2f} to {last:.2f})" for first, half, last in quarters)
    return (
        f"{' alone, '.join(said)} observed; within a pair {middle} % ({low} to {high}, which has the median in "
        f"{ratios.coverage:.1%} of all cases)"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
