"""A scenario in virtual time: under a threading model, or as QEMU's own threads would do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from migpool.scenario.model_syntax import parse_model
from migpool.scenario.schema import Scenario
from migpool.sim.qemu import qemu_downtime
from migpool.sim.scenarios import Host, world_of
from migpool.sim.simulate import downtime

BARE: Final = Host(channel_rate=5e9, link_rate=12.5e9, step=0.0, base=0.0, call=0.0, config=0.0)
"""Hosts that take no time of their own: what was measured has it in it already."""
QEMU: Final[Mapping[str, bool]] = {"qemu": False, "qemu:transfer": True}
"""QEMU's own ways, and whether its iterable devices go over the multifd channels."""
USUAL: Final = ("inline", "pool", "per-device")


def predicted(scenario: Scenario, model: str, where: str = "", processors: int = 0) -> float:
    """Simulate a switchover; returns its downtime in seconds.

    Arguments:
        model: a key of :data:`QEMU`, or the name of a threading model.
        where: the scenario's file, for errors.
        processors: of each host, were all that devices take processor time; 0: each thread has one for itself.

    Raises:
        UsageError: there is no such model, or it or a device cannot be simulated.
        MigpoolError: the jobs wait for each other.
    """
    where = where or scenario.name
    # QEMU has its own threads: the model of its world means nothing.
    threads = parse_model("inline" if model in QEMU else model)
    world = replace(world_of(scenario, threads, BARE, where), processors=processors)
    return qemu_downtime(world, transfer=QEMU[model]) if model in QEMU else downtime(world)


def simulated_models(names: Sequence[str], scenario: Scenario) -> list[str]:
    """The models to simulate: those that are named, else QEMU's ways and those of the scenario."""
    return list(names) or [*QEMU, *(scenario.compare.models or USUAL)]
