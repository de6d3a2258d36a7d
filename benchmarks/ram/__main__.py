"""``python -m benchmarks.ram``: how fast guest memory moves, beside QEMU's own multifd."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.datapath.failure import BenchmarkFailure
from benchmarks.ram.idle import cool, warm
from benchmarks.ram.qemu import QemuPair, qemu
from migpool.transport.authority import new_authority
from migpool.units import MIB, format_rate

LIMIT = 120.0
TARGET, TARGET_TLS = 1.2, 1.0
MOST_EXTRA = 64 * MIB


@dataclass(frozen=True, slots=True)
class Moved:
    """One migration.

    Arguments:
        seconds: from the first page to the machine that runs at the destination.
        cpu: seconds of processor time of both ends together.
        extra: the larger of both ends' peaks of memory beside the guest's, in bytes.
    """

    seconds: float
    cpu: float
    extra: int


def migpool(
    size: int, channels: int, control: str, model: str, to: str, memory: str, tls: str, ready: Callable[[int], None]
) -> Moved:
    """Migrate once by migpool; ``ready`` is called with the size when only the migration is left to do."""
    common = [str(size), str(channels), control, model, to, memory, tls]
    sides = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ram.side", side, *common],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for side in ("destination", "source")
    ]
    destination, source = sides
    try:
        assert destination.stdout is not None
        assert source.stdout is not None
        address = destination.stdout.readline()
        source.stdout.readline()  # its memory is filled
        ready(size)
        sent = json.loads(source.communicate(address, LIMIT)[0])
        received = json.loads(destination.communicate(None, LIMIT)[0])
    finally:
        for side in sides:
            side.kill()
            side.wait()
    if sent["error"] or received["error"] or not received["whole"]:
        raise BenchmarkFailure(f"migpool: {sent['error'] or received['error'] or 'the memory is not what was sent'}")
    return Moved(sent["seconds"], sent["cpu"] + received["cpu"], max(sent["extra"], received["extra"]))


def spread(values: list[float]) -> str:
    """The median, the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ram", description=__doc__)
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the memory (default: 1024)")
    parser.add_argument("--channels", type=int, default=2, help="multifd channels (default: 2)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each, in turns (default: 7)")
    parser.add_argument("--unix", action="store_true", help="over UNIX sockets, where no congestion control takes part")
    parser.add_argument("--model", default="pool:2", help="the threading model (default: pool:2)")
    parser.add_argument(
        "--fresh", action="store_true", help="migpool's destination touches its memory first while it receives"
    )
    parser.add_argument(
        "--cold", action="store_true", help="first let the host take free memory back, as on a machine that was idle"
    )
    parser.add_argument("--prealloc", action="store_true", help="QEMU's destination has its memory before, too")
    parser.add_argument("--tls", action="store_true", help="both encrypt every connection, with the same certificates")
    chosen = parser.parse_args()
    if qemu() is None:
        raise BenchmarkFailure("there is no qemu-system-x86_64 to compare with: make qemu installs it")
    size = chosen.size * MIB
    # QEMU leaves the congestion control to the system, so migpool is told to do the same.
    control = "" if chosen.unix else Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text("ascii").strip()
    memory = "fresh" if chosen.fresh else "resident"
    ready = cool if chosen.cold else warm
    ours: list[Moved] = []
    theirs: list[tuple[float, float]] = []
    shared = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder,
        QemuPair(
            Path(folder),
            size,
            chosen.channels,
            Path(folder) / "qemu" if chosen.unix else None,
            prealloc=chosen.prealloc,
            ready=ready,
            tls=Path(folder) / "pki" if chosen.tls else None,
        ) as pair,
    ):
        tls = f"{folder}/pki" if chosen.tls else ""
        if tls:
            new_authority(Path(tls), [], 1)
        to = f"unix:{folder}/migpool" if chosen.unix else "tcp:127.0.0.1:0"
        for number in range(chosen.rounds):
            for which in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
                if which == "ours":
                    ours.append(migpool(size, chosen.channels, control, chosen.model, to, memory, tls, ready))
                else:
                    theirs.append(pair.run())
            seconds, cpu = theirs[-1]
            sys.stdout.write(
                f"round {number + 1}: migpool {format_rate(size / ours[-1].seconds)}, {ours[-1].cpu:.2f} s of CPU, "
                f"QEMU {format_rate(size / seconds)}, {cpu:.2f} s of CPU, ratio {seconds / ours[-1].seconds:.2f}, "
                f"load {os.getloadavg()[0]:.1f}\n"
            )
    ratios = [seconds / our.seconds for our, (seconds, _) in zip(ours, theirs, strict=True)]
    spent = [cpu / our.cpu for our, (_, cpu) in zip(ours, theirs, strict=True)]
    ratio, target = statistics.median(ratios), TARGET_TLS if chosen.tls else TARGET
    extra = max(our.extra for our in ours)
    sys.stdout.write(
        f"{chosen.size} MiB, {chosen.channels} channels, {control or 'UNIX sockets'}, {'TLS, ' * chosen.tls}"
        f"{chosen.model}, "
        f"memory {memory} at migpool's destination and {'resident' if chosen.prealloc else 'fresh'} at QEMU's, "
        f"free memory {'cold' if chosen.cold else 'warm'}: "
        f"median ratio {spread(ratios)}, target {target}: {'pass' if ratio >= target else 'below'}\n"
        f"QEMU's processor time over migpool's: {spread(spent)}\n"
        f"memory beside the guest's, at most: {extra / MIB:.1f} MiB, limit {MOST_EXTRA // MIB}: "
        f"{'pass' if extra <= MOST_EXTRA else 'above'}\n"
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkFailure as failure:
        sys.exit(f"benchmarks.ram: {failure}")
