"""A variant in which a host empties: several machines leave it, some of them at once.

::

    [[variants]]
    name = "a pool for all"
    model = "pool:auto+pool:4"
    rack = {machines = 4, at_once = 4, threads = 4}

Its downtime is the median of the machines', its total from the first one's begin until the last one has left. Models
that share a host's threads, such as ``pool:auto``, have ``threads`` together; others have what their names say, each.
Where the variant is simulated too, its machines have ``memory`` that crosses the link first, and may leave several
``hosts``.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Annotated

from pydantic import Field

from migpool.errors import UsageError
from migpool.experiments.simulated import InVirtualTime
from migpool.lab.result_of_sides import run_result
from migpool.lab.run.result import RunResult, ThreadCounts
from migpool.lab.run.together import Leaving, leave
from migpool.scenario.model_syntax import parse_model
from migpool.scenario.schema import Scenario, Size, Table
from migpool.sim.world import World

_Count = Annotated[int, Field(ge=1, le=1000)]


class RackTable(Table):
    """How many leave, and what they share."""

    machines: _Count
    at_once: _Count
    threads: _Count
    hosts: Annotated[int, Field(ge=1, le=8)] = 1
    memory: Size | None = None

    def migrate(
        self, scenario: Scenario, model: str, repeat: int, where: str, stop: Callable[[], bool]
    ) -> RunResult | None:
        """Have all of them leave; ``None`` if that was cancelled. The arguments are those of a single migration."""
        seed = scenario.seed + repeat * self.machines
        pairs = leave(scenario, model, seed, where, Leaving(self.machines, self.at_once, self.threads), stop)
        if any(pair.cancelled for pair in pairs):
            return None
        runs = [run_result(model, repeat, seed + number, pair) for number, pair in enumerate(pairs)]
        wrong = next((run for run in runs if not run.succeeded), None)
        both = [pair.both for pair in pairs if pair.both is not None]
        if wrong is not None or len(both) < len(pairs):
            return wrong or runs[0]
        sources = [source.report for source, _ in both]
        took = max(one.ended for one in sources) - min(one.began for one in sources)
        return runs[0].model_copy(
            update={
                "downtime_ms": median(run.downtime_ms or 0.0 for run in runs),
                "total_ms": took / 1e6,
                "threads_peak": sum(run.threads_peak for run in runs),
                "threads": ThreadCounts(
                    source=sum(run.threads.source or 0 for run in runs),
                    destination=sum(run.threads.destination or 0 for run in runs),
                ),
                "attribution": {},
            }
        )

    def in_virtual_time(self, world: World, model: str) -> InVirtualTime | None:
        """The same, simulated: the median downtime; ``None`` without SimPy."""
        try:
            from migpool.sim.rack import Rack, empty
        except UsageError:
            return None
        source = parse_model(model).part("source")
        shared = "auto" in source.make().chosen
        threads = self.threads if shared else self.at_once * (source.workers or self.threads)
        rack = Rack(
            world,
            machines=self.machines,
            at_once=self.at_once,
            threads=threads,
            shared=shared,
            rooms=world.rooms * self.at_once,
            hosts=self.hosts,
            memory=self.memory or 0,
        )
        return InVirtualTime(empty(rack).typical * 1e3, 0, 0)
