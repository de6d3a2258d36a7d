"""What ``migpool observe`` costs: the downtime of two tiny q35 machines with it and without, in turn.

The downtime is from the source's STOP to the destination's RESUME, whose times QEMU tells without any tracepoint.
Run as ``python -m benchmarks.observing [PAIRS]``; needs QEMU.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

from tests.qemu.qemuprocess import QemuProcess, qemu_here

CARDS = 4
SETTLED = 5.0
"""Seconds from the start of both machines to their migration, in every run: the firmware has come to its end."""
LIMIT = 60.0
MODES: dict[str, tuple[str, ...] | None] = {"alone": None, "observed": (), "observed, --all": ("--all",)}


def downtime(options: tuple[str, ...] | None) -> float:
    """Milliseconds of one migration; ``None`` leaves it unobserved."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with _machine(directory, "source") as source, _machine(directory, "destination") as destination:
            began = time.monotonic()
            for qemu in (source, destination):
                qemu.execute(
                    "migrate-set-capabilities",
                    {"capabilities": [{"capability": one, "state": True} for one in ("events", "return-path")]},
                )
            uri = f"unix:{directory}/migration"
            destination.execute("migrate-incoming", {"uri": uri})
            command = [sys.executable, "-m", "migpool", "observe"]
            for side in ("source", "destination"):
                command += [f"--{side}", f"{directory}/{side}.qmp"]
            with ExitStack() as stack:
                if options is not None:
                    command += options
                    observing = stack.enter_context(
                        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                    )
                    assert observing.stderr is not None
                    assert "waiting for the migration" in observing.stderr.readline()
                time.sleep(max(0.0, began + SETTLED - time.monotonic()))
                source.execute("migrate", {"uri": uri})
                for qemu in (source, destination):
                    assert qemu.wait_for_status("completed", "failed") == "completed"
                if options is not None:
                    assert observing.wait(LIMIT) == 0
            return (destination.time_of("RESUME") - source.time_of("STOP")) / 1e3


def _machine(directory: Path, side: str) -> QemuProcess:
    found = qemu_here()
    assert found is not None
    machine = [
        "-accel",
        "tcg",
        "-machine",
        "q35",
        "-m",
        "64",
        "-nodefaults",
        "-display",
        "none",
        "-msg",
        "timestamp=on",
    ]
    cards = ["-device", "e1000e"] * CARDS
    monitor = ["-msg", "timestamp=on", "-qmp", f"unix:{directory}/{side}.qmp,server=on,wait=off"]
    incoming = ["-incoming", "defer"] if side == "destination" else []
    return QemuProcess([*found.command, *machine, *cards, *monitor, *incoming], directory / f"{side}.err")


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    found: dict[str, list[float]] = {mode: [] for mode in MODES}
    for turn in range(pairs):
        modes = list(MODES.items())
        for mode, options in modes if turn % 2 else reversed(modes):  # what comes first must not be the same always
            found[mode].append(downtime(options))
            print(f"{turn} {mode}: {found[mode][-1]:.2f} ms", flush=True)  # noqa: T201
    for mode, times in found.items():
        low, _, high = quantiles(times, n=4)
        print(f"{mode}: median {median(times):.2f} ms, middle half {low:.2f} to {high:.2f}, n={pairs}")  # noqa: T201


if __name__ == "__main__":
    main()
