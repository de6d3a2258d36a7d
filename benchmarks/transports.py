"""What vfio-user costs against a data descriptor: ``python -m benchmarks.transports``.

One emulated device a side is saved and loaded on this thread, in turns over both transports, so that whatever else the
machine does falls on both. Shown are the runs' median, their quartiles and the least, for a chunk and for the stop.
"""

from __future__ import annotations

import argparse
import mmap
import statistics
import sys
import time
from collections.abc import Callable

from migpool.device import Device, DeviceContext, Side
from migpool_plugins.vfio import devices

TRANSPORTS = ("descriptor", "vfio-user")
MEASURES = ("read of a chunk", "write of a chunk", "stop")


def measure(transport: str, profile: str, buffer: memoryview) -> tuple[float, ...]:
    """Save and load one device; returns the seconds of each of ``MEASURES``."""

    def opened(side: Side) -> Device:
        (device,) = devices(DeviceContext(side, {"profile": profile, "transport": transport}))
        return device

    source, destination = opened("source"), opened("destination")
    try:
        destination.load_setup(source.save_setup())
        source.quiesce()
        stop, _ = timed(source.stop)
        read = write = 0.0
        chunks = 0
        while True:
            took, count = timed(lambda: source.save_state(buffer))
            if not count:
                break
            read += took
            part = buffer[:count]
            write += timed(lambda part=part: destination.load_state(part))[0]  # type: ignore[misc]
            chunks += 1
        return read / chunks, write / chunks, stop
    finally:
        source.close()
        destination.close()


def timed(call: Callable[[], int | None]) -> tuple[float, int]:
    """Make a call; returns the seconds it took, and what it returned."""
    began = time.monotonic()
    result = call()
    return time.monotonic() - began, result or 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transports", description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=11, help="of each, in turns (default: 11)")
    parser.add_argument("profile", nargs="?", default="instant", help="of the device (default: instant)")
    chosen = parser.parse_args()
    runs, profile = chosen.runs, chosen.profile
    buffer = memoryview(mmap.mmap(-1, 1 << 20))
    found: dict[str, list[tuple[float, ...]]] = {transport: [] for transport in TRANSPORTS}
    for _ in range(runs):
        for transport, results in found.items():
            results.append(measure(transport, profile, buffer))
    for number, name in enumerate(MEASURES):
        for transport, results in found.items():
            times = [result[number] * 1e6 for result in results]
            first, _, third = statistics.quantiles(times, n=4)
            middle = statistics.median(times)
            sys.stdout.write(
                f"{name:17} {transport:11} {middle:7.0f} us ({first:.0f} to {third:.0f}), least {min(times):.0f}\n"
            )


if __name__ == "__main__":
    main()
