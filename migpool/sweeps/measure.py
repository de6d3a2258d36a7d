"""What is done at some points of a sweep, in whatever process that is: they are simulated, or run."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from migpool.errors import MigpoolError, UsageError
from migpool.lab.result_of_sides import run_result
from migpool.lab.run.process_pair import ProcessPair
from migpool.scenario.model_syntax import Model, parse_model
from migpool.scenario.schema import Scenario
from migpool.sim.scenarios import Host, world_of
from migpool.sim.world import World
from migpool.sweeps.form import Value, scenario_at
from migpool.sweeps.points import Point

Row: TypeAlias = dict[str, Value | None]
"""A point with what came of it, by column: see :data:`~migpool.sweeps.form.OWN`."""


@dataclass(frozen=True, slots=True)
class Task:
    """Some points for one process to do, one after the other.

    Arguments:
        table: the scenario's keys, as everywhere in the sweep.
        where: the sweep's file, for errors.
        keys: of the axes.
    """

    mode: Literal["simulated", "real"]
    table: dict[str, Any]
    where: str
    keys: tuple[str, ...]
    host: Host
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task.

    Arguments:
        seconds: how long it took.
    """

    rows: Sequence[Row]
    seconds: float


def measure(task: Task) -> Done:
    """Do a task's points. What is wrong with one stands in its row, and keeps nobody from the others.

    Raises:
        UsageError: nothing can be simulated here.
    """
    began = time.monotonic()
    make = _simulated if task.mode == "simulated" else _run
    rows = []
    for point in task.points:
        row: Row = {"point": point.number, **dict(zip(task.keys, point.values, strict=True)), "model": point.model}
        row |= {"repeat": point.repeat, "seed": point.seed, "host": socket.gethostname()}
        try:
            scenario = scenario_at(task.table, dict(zip(task.keys, point.values, strict=True)), task.where)
            row |= make(task, scenario, point)
        except MigpoolError as error:
            row |= {"outcome": "refused" if isinstance(error, UsageError) else "failed", "error": str(error)}
        rows.append(row)
    return Done(rows, time.monotonic() - began)


def _simulated(task: Task, scenario: Scenario, point: Point) -> Row:
    world = world_of(scenario, _model(point.model), task.host, task.where)
    downtime, held = _in_virtual_time(world)
    return {"outcome": "simulated", "downtime_ms": downtime * 1e3, "memory_bytes": held * world.chunk}


@lru_cache(256)
def _in_virtual_time(world: World) -> tuple[float, int]:
    """Downtime and chunks held. Models that go to work alike on a machine are one world."""
    from migpool.sim.simulate import simulate

    found = simulate(world)
    return found.downtime, found.held


@lru_cache(256)
def _model(name: str) -> Model:
    return parse_model(name)


def _run(task: Task, scenario: Scenario, point: Point) -> Row:
    pair = ProcessPair(scenario, point.model, point.seed, task.where).run(lambda _: None, lambda: False)
    found = run_result(point.model, point.repeat, point.seed, pair)
    return {
        "outcome": found.outcome if found.succeeded or found.outcome != "completed" else "failed",
        "error": found.error or None,
        "downtime_ms": found.downtime_ms if found.succeeded else None,
        "total_ms": found.total_ms if found.succeeded else None,
        "memory_bytes": found.memory.high_water_bytes,
        "threads": found.threads_peak,
    }
