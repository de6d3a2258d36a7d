"""Threading models against the number of devices and of workers, where the devices take no time themselves.

One migration in this process over UNIX sockets, each device with one chunk that nobody fills and nobody takes: what is
left is the model, the jobs and the wire. The ratio is the downtime under a model to that without a thread of its own
(``inline``) in the same round. Threads are the most of both ends together, memory is how much the process grew at
most. ``pytest benchmarks/test_models.py -s`` prints a table.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.datapath.devices import FromNothing, ToNothing
from migpool.conformance.pairing import migrate, settings_with
from migpool.core.machine import Machine
from migpool.migration.report import peak_rss
from migpool.scenario.model_syntax import parse_model
from migpool.units import MIB

ROUNDS = 7
CHUNK = 1 << 16
DEVICES = (1, 10, 100, 512, 1000)
MODELS = ("per-device", "pool", "pool:16", "elastic", "blocking-aware", "poll", "pool+receiver")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one migration took: seconds of downtime, threads, and bytes by which the process grew at the most."""

    downtime: float
    threads: int
    grown: int


def cost(model: str, devices: int) -> Cost:
    """One migration; it must complete."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak is counted from here
    before = peak_rss()
    source = Machine("bench", [FromNothing(number, CHUNK) for number in range(devices)])
    destination = Machine("bench", [ToNothing(number, CHUNK) for number in range(devices)])
    migrated = migrate(source, destination, parse_model(model), settings_with(CHUNK, max(64, devices * 2), channels=4))
    assert migrated.completed, migrated.error
    took = (migrated.source.running - migrated.source.stopped) * 1e-9
    threads = migrated.source.threads_peak + migrated.destination.threads_peak
    return Cost(took, threads, peak_rss() - before)


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    heading = (
        f"{'downtime in ms, medians; ratio to inline':44}{'inline':>10}{'model':>10}{'ratio':>8}{'least':>8}{'most':>8}"
        f"{'threads':>9}{'MiB':>7}"
    )
    lines = [heading]
    yield lines
    print("\n" + "\n".join(lines))  # noqa: T201


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("model", MODELS)
def test_ratio(model: str, devices: int, table: list[str]) -> None:
    times, costs = [], []
    for number in range(ROUNDS):
        order = ("inline", model) if number % 2 else (model, "inline")
        found = {name: cost(name, devices) for name in order}
        times.append((found["inline"].downtime, found[model].downtime))
        costs.append(found[model])
    ratios = sorted(own / none for none, own in times)
    none, own = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    middle = statistics.median(ratios)
    name = f"{model}, {devices} devices"
    threads = max(one.threads for one in costs)
    grown = statistics.median(one.grown for one in costs) / MIB
    line = f"{name:44}{none:10.2f}{own:10.2f}{middle:8.2f}{ratios[0]:8.2f}{ratios[-1]:8.2f}{threads:9}{grown:7.1f}"
    table.append(line)
    assert len(ratios) == ROUNDS


@pytest.mark.benchmark(min_rounds=3, max_time=0.3)
@pytest.mark.parametrize("model", ["inline", "per-device", "pool:4"])
def test_cost_of_64_devices(benchmark: BenchmarkFixture, model: str) -> None:
    """A whole migration, for ``--benchmark-compare`` between commits; its downtime is extra information."""
    times: list[float] = []
    benchmark(lambda: times.append(cost(model, 64).downtime))
    benchmark.extra_info["downtime_ms"] = statistics.median(times) * 1e3
