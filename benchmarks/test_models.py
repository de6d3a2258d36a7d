"""Threading models against the number of devices and of workers, where the devices take no time themselves.

One migration in this process over UNIX sockets, each device with one chunk that nobody fills and nobody takes: what is
left is the model, the jobs and the wire. The ratio is the downtime under a model to that without any thread of its own
(``inline``) in the same round. ``pytest benchmarks/test_models.py -s`` prints a table.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.datapath.devices import FromNothing, ToNothing
from migpool.conformance.pairing import migrate, settings_with
from migpool.core.machine import Machine
from migpool.scenario.model_names import parse_model

ROUNDS = 5
CHUNK = 1 << 16
DEVICES = (1, 8, 64, 512)
MODELS = ("per-device", "pool:1", "pool:4", "pool:16", "elastic", "blocking-aware", "pool:4+receiver")


def downtime(model: str, devices: int) -> float:
    """One migration's downtime in seconds; it must complete."""
    source = Machine("bench", [FromNothing(number, CHUNK) for number in range(devices)])
    destination = Machine("bench", [ToNothing(number, CHUNK) for number in range(devices)])
    migrated = migrate(source, destination, parse_model(model), settings_with(CHUNK, max(64, devices * 2), channels=4))
    assert migrated.completed, migrated.error
    return (migrated.source.running - migrated.source.stopped) * 1e-9


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    heading = (
        f"{'downtime in ms, medians; ratio to inline':44}{'inline':>10}{'model':>10}{'ratio':>8}{'least':>8}{'most':>8}"
    )
    lines = [heading]
    yield lines
    print("\n" + "\n".join(lines))  # noqa: T201


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("model", MODELS)
def test_ratio(model: str, devices: int, table: list[str]) -> None:
    times = []
    for number in range(ROUNDS):
        order = ("inline", model) if number % 2 else (model, "inline")
        found = {name: downtime(name, devices) for name in order}
        times.append((found["inline"], found[model]))
    ratios = sorted(own / none for none, own in times)
    none, own = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    middle = statistics.median(ratios)
    name = f"{model}, {devices} devices"
    table.append(f"{name:44}{none:10.2f}{own:10.2f}{middle:8.2f}{ratios[0]:8.2f}{ratios[-1]:8.2f}")
    assert len(ratios) == ROUNDS


@pytest.mark.benchmark(min_rounds=3, max_time=0.3)
@pytest.mark.parametrize("model", ["inline", "per-device", "pool:4"])
def test_cost_of_64_devices(benchmark: BenchmarkFixture, model: str) -> None:
    """A whole migration, for ``--benchmark-compare`` between commits; its downtime is extra information."""
    times: list[float] = []
    benchmark(lambda: times.append(downtime(model, 64)))
    benchmark.extra_info["downtime_ms"] = statistics.median(times) * 1e3
