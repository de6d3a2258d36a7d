"""How true the simulator is: random small scenarios, simulated and run, interleaved.

``python -m benchmarks.simulated [--scenarios 40] [--repeats 5] [--seed 1] [--json FILE] [--runs FILE]``

Each scenario has its own devices (how many, how large, how fast, which lock they share), channels, chunks, budget and
threading model. Every round runs each scenario once, in an order of its own, so that whatever else the machine does
falls on all of them alike. What the simulator must know of the host and no scenario says
(:class:`~migpool.sim.scenarios.Host`), and was not measured by itself, is fitted to every second scenario; the error is
that of the others.

``--runs`` takes the runs from what ``--json`` wrote, for a simulator that has changed since.

A run's downtime is longer than its scenario's by what else the machine does: the errors are told of the median of the
runs, and of the shortest one, which other work has disturbed least. A run is made again while others, the host of a
virtual machine among them, take more than a tenth of the processors beside it; what they took is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from migpool.lab.result_of_sides import run_result
from migpool.lab.run.machine_facts import machine_facts
from migpool.lab.run.process_pair import ProcessPair
from migpool.scenario.model_syntax import parse_model
from migpool.scenario.schema import Scenario, parse_scenario
from migpool.sim.fit import fit
from migpool.sim.scenarios import Host, world_of
from migpool.sim.simulate import downtime
from migpool.units import MIB

MODELS = ("inline", "per-device", "pool", "pool:2", "elastic", "blocking-aware", "pool+receiver", "poll")

MEASURED = Host(channel_rate=2.5e9, copy_rate=2.5e9, wake=60e-6)
"""What was measured by itself, and is not fitted: one connection, a read of a MiB, two threads that wake each other."""
FIRST = {"step": 20e-6, "base": 1e-3, "call": 300e-6, "config": 600e-6}
"""Where the fit begins. It has these alone: were the others fitted, too, twenty noisy times would be met by errors that
make up for each other there and not elsewhere."""
QUIET = 0.1
"""How much of the processors others may take beside a run, for it not to be made again."""
TRIES = 3


@dataclass
class Case:
    """A scenario under a model, and what was found of it. Times are in milliseconds.

    Attributes:
        others: which share of the processors was taken beside each run.
    """

    name: str
    scenario: Scenario
    model: str
    real: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    simulated: float = 0.0

    def error(self, measured: float) -> float:
        """How far the simulation is off, as a share of what was measured."""
        return self.simulated / measured - 1


def case(number: int, seed: int) -> Case:
    """A random small scenario; the same for the same numbers."""
    chance = random.Random(f"{seed} {number}")
    count = chance.randint(1, 6)
    options = {
        "size": round(2 ** chance.uniform(0, 4) * MIB / 4096) * 4096,
        "read_rate": round(2 ** chance.uniform(6.5, 9.5) * MIB),
        "write_rate": round(2 ** chance.uniform(6.5, 9.5) * MIB),
        "read_latency": chance.choice((0.0, 1e-4, 1e-3)),
        "write_latency": chance.choice((0.0, 1e-4, 1e-3)),
        "stop_time": chance.choice((0.0, 2e-3, 10e-3)),
        "load_config_time": chance.choice((0.0, 5e-3, 30e-3)),
        "shared_lock": chance.choice(("", "", "read", "write", "both")),
    }
    chunk = chance.choice((256 << 10, 512 << 10, MIB))
    table: dict[str, Any] = {
        "name": f"case {number}",
        "devices": [{"plugin": "vfio", "count": count, "options": options}],
        "channels": {"count": chance.choice((1, 2, 4, 8))},
        "memory": {"chunk": chunk, "budget": chunk * chance.choice((count, 2 * count, 64))},
        "migration": {"config_load": chance.choice(("as-loaded", "as-loaded", "after-iterables"))},
    }
    return Case(f"case {number}", parse_scenario(table, f"case {number}"), chance.choice(MODELS))


def simulated(case: Case, host: Host) -> float:
    return downtime(world_of(case.scenario, parse_model(case.model), host, case.name)) * 1e3


def fitted(cases: Sequence[Case], processors: int) -> Host:
    """What of the host makes the simulated times the measured ones."""
    known = replace(MEASURED, copying=processors)

    def times(values: Mapping[str, Any]) -> list[float]:
        return [simulated(one, replace(known, **values)) for one in cases]

    found: dict[str, Any] = dict(fit(FIRST, times, [min(one.real) for one in cases]))
    return replace(known, **found)


def run(case: Case, seed: int) -> None:
    took = others = 0.0
    for _ in range(TRIES):
        before, began = _taken_by_others(), time.monotonic()
        pair = ProcessPair(case.scenario, case.model, seed, case.name).run(lambda _: None, lambda: False)
        others = (_taken_by_others() - before) / (time.monotonic() - began) / (os.cpu_count() or 1)
        found = run_result(case.model, 1, seed, pair)
        if not found.succeeded or found.downtime_ms is None:
            raise SystemExit(f"{case.name} under {case.model}: {found.error}")
        took = found.downtime_ms
        if others <= QUIET:
            break
    case.real.append(took)
    case.others.append(round(max(0.0, others), 3))


def _taken_by_others() -> float:
    """Seconds of processor time so far that neither this process had nor those that it has waited for."""
    _, user, nice, system, _, _, irq, softirq, steal, *_ = Path("/proc/stat").read_text("ascii").split(maxsplit=9)
    busy = sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def spread(errors: Sequence[float]) -> str:
    sizes = [abs(one) for one in errors]
    return f"median {100 * median(sizes):.1f} %, worst {100 * max(sizes):.1f} %"


def _run_all(cases: Sequence[Case], repeats: int) -> str:
    """Run each of them so often; returns what machine did it."""
    load = os.getloadavg()[0]
    for repeat in range(repeats):
        order = list(cases)
        random.Random(repeat).shuffle(order)
        for at, one in enumerate(order):
            run(one, repeat + 1)
            sys.stderr.write(f"round {repeat + 1}: {at + 1} of {len(order)}\r")
    return f"{machine_facts()}; load average {load:.1f} at the beginning, {os.getloadavg()[0]:.1f} at the end"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--processors", type=int, default=os.cpu_count(), help="of this host, where both ends run")
    parser.add_argument("--runs", type=Path, help="instead of running: what an earlier --json wrote, of the same seed")
    asked = parser.parse_args()
    cases = [case(number, asked.seed) for number in range(asked.scenarios)]
    if asked.runs is None:
        machine = _run_all(cases, asked.repeats)
    else:
        earlier = json.loads(asked.runs.read_text())
        machine = earlier["machine"]
        for one, ran in zip(cases, earlier["cases"], strict=True):
            one.real, one.others = ran["real"], ran.get("others", [])
    host = fitted(cases[::2], asked.processors)
    for one in cases:
        one.simulated = simulated(one, host)
    table = Table(
        "case", "model", "devices", "channels", "simulated", "shortest", "median", "error", "fitted", box=None
    )
    for at, one in enumerate(cases):
        table.add_row(
            *(one.name, one.model, str(one.scenario.devices[0].count), str(one.scenario.channels.count)),
            *(f"{one.simulated:.1f}", f"{min(one.real):.1f}", f"{median(one.real):.1f}"),
            *(f"{100 * one.error(min(one.real)):+.1f} %", "" if at % 2 else "yes"),
        )
    console = Console(width=110)
    console.print(table)
    others = cases[1::2]
    told = {
        "host": {key: float(f"{value:.4g}") for key, value in asdict(host).items()},
        "machine": machine,
        "of the shortest run": spread([one.error(min(one.real)) for one in others]),
        "of the median run": spread([one.error(median(one.real)) for one in others]),
        "of those that were fitted, shortest run": spread([one.error(min(one.real)) for one in cases[::2]]),
        "runs beside which others took too much": sum(share > QUIET for one in cases for share in one.others),
        "noise: median run over shortest": spread([median(one.real) / min(one.real) - 1 for one in cases]),
    }
    for key, value in told.items():
        console.print(f"{key}: {value}", highlight=False)
    if asked.json is not None:
        rows = [asdict(one) | {"scenario": one.scenario.model_dump(mode="json")} for one in cases]
        asked.json.write_text(json.dumps({**told, "cases": rows}, indent=1))


if __name__ == "__main__":
    main()
