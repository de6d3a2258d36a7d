"""From the trace logs of one way to migrate devices, what the other way takes: a simulation beside QEMU's own run.

VFIO devices migrate in the main channel (``x-migration-multifd-transfer=off``) and over the multifd channels (``on``).
From the logs of each run comes a scenario, and of that what either way would take. With ``--rounds=N`` this is a
measurement: the last lines printed say how far the median of what was predicted is from the median of what QEMU took.
Without it, it sees to it that a run is simulated as it went.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

import pytest

from migpool.lab.qemu.explain import explain
from migpool.lab.qemu.scenario import scenario_from
from migpool.scenario.messages import toml_table
from migpool.scenario.schema import parse_scenario
from tests.nested.attached import Ends, Way, arrived, attached, ends, migrate, ready, states_of
from tests.qemu.traced_pair import TRACED

pytestmark = pytest.mark.timeout(2000)
DEVICES = 2
WAYS = {False: "off", True: "on"}
AS_IT_WENT = 0.5
"""How far a simulation of a run as it went may be off: a log leaves out what the host does meanwhile."""


def traced(devices: Ends, way: Way, folder: Path) -> tuple[Path, Path]:
    """Migrate once; the logs of both sides."""
    folder.mkdir()
    address = f"unix:{folder}/d"
    logs = folder / "source.log", folder / "destination.log"
    options = [("-msg", "timestamp=on", "-D", str(log)) for log in logs]
    with (
        attached(devices.here, folder / "source.err", way, *options[0]) as source,
        attached(devices.there, folder / "destination.err", way, *options[1], incoming="defer") as destination,
    ):
        for qemu in (source, destination):
            for name in TRACED:
                qemu.execute("trace-event-set-state", {"name": name, "enable": True, "ignore-unavailable": True})
        ready(destination, address, way)
        migrate(source, address, way)
        arrived(destination)
    return logs


def test_one_way_is_predicted_from_the_other(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    simulated = pytest.importorskip("migpool.sim.machines").predicted
    rounds = request.config.getoption("--rounds", default=0) or 1
    order = random.Random(1)
    took: defaultdict[str, list[float]] = defaultdict(list)
    predicted: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds):
        for transfer in order.sample(list(WAYS), len(WAYS)):
            way = replace(Way(channels=4, devices=DEVICES), transfer=transfer)
            with ends(DEVICES) as devices:
                states = states_of(devices.here)
                logs = traced(devices, way, tmp_path / f"{number}-{WAYS[transfer]}")
                assert states_of(devices.there) == states
            downtime = explain(*logs).result.runs[0].downtime_ms
            assert downtime is not None
            scenario = parse_scenario(toml_table(scenario_from(logs), "the scenario"), "the scenario")
            says = {
                other: simulated(scenario, "qemu:transfer" if over else "qemu") * 1e3 for over, other in WAYS.items()
            }
            assert says[WAYS[transfer]] == pytest.approx(downtime, rel=AS_IT_WENT)
            took[WAYS[transfer]].append(downtime)
            for other, milliseconds in says.items():
                predicted[WAYS[transfer], other].append(milliseconds)
            with capsys.disabled():
                said = {"round": number, "transfer": WAYS[transfer], "took": downtime, "predicted": says}
                sys.stdout.write(f"\npredicted: {json.dumps(said)}\n")
    with capsys.disabled():
        for (ours, other), times in sorted(predicted.items()):
            sys.stdout.write(f"predicted: {summary(ours, other, times, took[other])}\n")


def summary(ours: str, other: str, predicted: list[float], took: list[float]) -> str:
    """A way as predicted from another beside what QEMU took, in medians and the middle half."""
    cells = []
    for times in (predicted, took):
        low, _, high = quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
        cells.append(f"{median(times):.1f} ms ({low:.1f} to {high:.1f})")
    off = median(predicted) / median(took) - 1
    return f"from {ours} for {other}: {cells[0]}; QEMU took {cells[1]}, {len(took)} runs: {off:+.1%}"
