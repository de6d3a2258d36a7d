"""Hosts that empty: machines leave them over one link, some at once, with bounds on a host's threads and memory.

Each machine sends its memory while it runs, then switches over: its devices' jobs run as in a migration by itself, but
share the link, and a host's threads, with the others. A host's threads are one pool of all its migrations, or divided
among them beforehand.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

import simpy

from migpool.errors import MigpoolError, UsageError
from migpool.sim.simulate import Common, Migration
from migpool.sim.tcp import goodput
from migpool.sim.world import World
from migpool.units import MIB

PIECE: Final = 4 * MIB
"""What of its memory a machine sends before another one has its turn at the link."""


@dataclass(frozen=True, slots=True)
class Rack:
    """What empties.

    Arguments:
        machine: one of the machines, its devices and its destination; ``link_rate`` is the link's, which all share.
        machines: how many there are on all hosts together.
        at_once: how many of them a host migrates at once.
        threads: what a host may have that save device state, over all its migrations.
        shared: whether these are one pool, or an equal part of them each migration's own.
        rooms: chunks that all machines of a host may have at their destinations at once.
        hosts: how many empty at the same time.
        memory: bytes of each machine's memory that cross while it runs.
    """

    machine: World
    machines: int
    at_once: int
    threads: int
    shared: bool
    rooms: int
    hosts: int = 1
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Emptied:
    """How it went. ``total``: until the last machine has left; ``downtimes``: of each, as they left. Seconds."""

    total: float
    downtimes: tuple[float, ...]

    @property
    def typical(self) -> float:
        """The median downtime."""
        return median(self.downtimes)

    @property
    def worst(self) -> float:
        """The longest one."""
        return max(self.downtimes)


def empty(rack: Rack) -> Emptied:
    """Simulate it.

    Raises:
        UsageError: a bound is not even one for each of the migrations at once.
        MigpoolError: the jobs wait for each other.
    """
    if min(rack.machines, rack.at_once, rack.hosts) < 1:
        raise UsageError("a rack has one host and one machine at least, and migrates one at once at least")
    if rack.threads < (1 if rack.shared else rack.at_once) or rack.rooms < rack.at_once:
        raise UsageError(
            f"{rack.at_once} migrations at once need as many rooms, and as many threads unless they share them: "
            "migrate fewer at once, or allow more"
        )
    env = simpy.Environment()
    link = simpy.Resource(env)
    downtimes: list[float] = []
    for host in range(rack.hosts):
        crew = simpy.Resource(env, rack.threads) if rack.shared else None
        share = len(range(host, rack.machines, rack.hosts))
        waiting = iter(range(share))
        for place in range(min(rack.at_once, share)):
            env.process(_leaving(rack, Common(env, link, crew), place, waiting, downtimes))
    env.run()
    if len(downtimes) < rack.machines:
        raise MigpoolError(f"{rack.machines - len(downtimes)} of the simulated machines wait for each other")
    return Emptied(float(env.now), tuple(downtimes))


def _leaving(
    rack: Rack, common: Common, place: int, waiting: Iterator[int], downtimes: list[float]
) -> Generator[simpy.Event, Any, None]:
    """One of the migrations that a host has at once: machine after machine. ``place``: which of them."""
    own = rack.threads // rack.at_once + (place < rack.threads % rack.at_once)
    world = replace(rack.machine, savers=own or 1, rooms=max(1, rack.rooms // rack.at_once))
    rate = goodput(world)
    for _ in waiting:
        left = rack.memory
        while left > 0:
            piece = min(PIECE, left)
            with common.link.request() as held:
                yield held
                yield common.env.timeout(piece / rate)
            left -= piece
        downtimes.append((yield from Migration(world, common).within()))
