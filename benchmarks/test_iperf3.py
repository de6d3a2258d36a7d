"""The data path's socket leg against iperf3, which moves bytes that nobody made and nobody reads.

Not a program that does the same: iperf3 orders nothing, and reads into one buffer. It is what an administrator measures
a link with, so it says what share of a link's figure device state can be expected to reach. The comparison with a C
program that does the same is ``python -m benchmarks.datapath``.
"""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import subprocess

import pytest

from benchmarks.datapath.runs import run_python
from benchmarks.datapath.task import MIB, Task

ROUNDS = 3
LIMIT = 30.0
TASK = Task(reading="none", writing="none", devices=4, size=128 * MIB, channels=2)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def iperf3_rate() -> float:
    """Bytes a second over two streams on loopback, for a second."""
    port = str(free_port())
    server = ["iperf3", "--server", "--one-off", "--bind", "127.0.0.1", "--port", port, "--forceflush"]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as listening:
        try:
            assert listening.stdout is not None
            while "listening" not in (line := listening.stdout.readline()):
                assert line, "the iperf3 server ended before it listened"
            client = ["iperf3", "--client", "127.0.0.1", "--port", port, "--parallel", "2", "--time", "1", "--json"]
            made = subprocess.run(
                [*client, "--congestion", "cubic"], capture_output=True, text=True, timeout=LIMIT, check=True
            )
        finally:
            listening.kill()
    return float(json.loads(made.stdout)["end"]["sum_received"]["bits_per_second"]) / 8


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed: apt-get install iperf3")
def test_the_socket_leg_against_iperf3() -> None:
    rounds = [(run_python(TASK, None).rate, iperf3_rate()) for _ in range(ROUNDS)]
    ratios = sorted(ours / theirs for ours, theirs in rounds)
    ours, theirs = (statistics.median(rates) / (1 << 30) for rates in zip(*rounds, strict=True))
    print(  # noqa: T201
        f"\nGiB/s over 2 streams: iperf3 {theirs:.2f}, socket leg {ours:.2f}, "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    assert ratios[0] > 0
