"""How well a simulation of QEMU's own threads predicts a real one's downtime.

Tiny q35 machines migrate with their tracepoints on, with each number of multifd channels in turn. From each run comes a
scenario (``migpool scenario from``), and of that what each number of channels would take. Compared are medians of what
was predicted from all runs with one number with the median of what was measured with another. Run as ``python -m
benchmarks.predicting``; needs QEMU.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median, quantiles

from migpool.lab.qemu.explain import explain
from migpool.lab.qemu.scenario import scenario_from
from migpool.scenario.messages import toml_table
from migpool.scenario.schema import parse_scenario
from migpool.sim.machines import predicted as simulated
from tests.qemu.qemu_guest import set_up
from tests.qemu.qemuprocess import QemuProcess, qemu_here

CHANNELS = (0, 2, 4, 8)
TRACEPOINTS = ("vmstate_downtime*", "qemu_loadvm*", "loadvm_*", "multifd_*", "migration_*", "source_return_path*")
CARDS = ("e1000e",) * 4 + ("virtio-net-pci",) * 2
SETTLED = 5.0
"""Seconds for the firmware to come to its end."""


def migrated(directory: Path, channels: int) -> tuple[Path, Path]:
    """Migrate once; the logs of both sides."""
    with (
        _machine(directory, "source") as source,
        _machine(directory, "destination", "-incoming", "defer") as destination,
    ):
        for qemu in (source, destination):
            for name in TRACEPOINTS:
                qemu.execute("trace-event-set-state", {"name": name, "enable": True, "ignore-unavailable": True})
            set_up(qemu, channels=channels, capabilities=["return-path"])
        time.sleep(SETTLED)
        address = f"unix:{directory}/migration"
        destination.execute("migrate-incoming", {"uri": address})
        source.execute("migrate", {"uri": address})
        for qemu in (source, destination):
            assert qemu.wait_for_status("completed", "failed") == "completed"
    return directory / "source.log", directory / "destination.log"


def _machine(directory: Path, side: str, *more: str) -> QemuProcess:
    found = qemu_here()
    assert found is not None
    arguments = ["-accel", "tcg", "-machine", "q35", "-m", "64", "-nodefaults", "-display", "none"]
    cards = [word for card in CARDS for word in ("-device", card)]
    log = ("-msg", "timestamp=on", "-D", str(directory / f"{side}.log"))
    return QemuProcess([*found.command, *arguments, *cards, *log, *more], directory / f"{side}.err")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predicting", description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=10, help="runs of each number of channels (default: 10)")
    rounds = parser.parse_args().rounds
    measured: defaultdict[int, list[float]] = defaultdict(list)
    predicted: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    for turn in range(rounds):
        for channels in random.sample(CHANNELS, len(CHANNELS)):
            with tempfile.TemporaryDirectory() as name:
                logs = migrated(Path(name), channels)
                took = explain(*logs).result.runs[0].downtime_ms
                scenario = parse_scenario(toml_table(scenario_from(logs), name), name)
            assert took is not None
            measured[channels].append(took)
            for other in CHANNELS:
                # A scenario has a channel at least; with one whose end costs nothing it is as with none.
                changed = scenario.channels.model_copy(update={"count": max(1, other)})
                changed_scenario = scenario.model_copy(update={"channels": changed})
                predicted[channels, other].append(simulated(changed_scenario, "qemu") * 1e3)
            print(f"{turn} {channels} channels: {took:.2f} ms", flush=True)  # noqa: T201
    for channels, times in measured.items():
        low, _, high = quantiles(times, n=4)
        print(f"measured {channels}: median {median(times):.2f} ms, middle half {low:.2f} to {high:.2f}")  # noqa: T201
    for (channels, other), times in sorted(predicted.items()):
        off = median(times) / median(measured[other]) - 1
        print(f"from {channels} for {other}: {median(times):.2f} ms, {off:+.1%}")  # noqa: T201


if __name__ == "__main__":
    main()
