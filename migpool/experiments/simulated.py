"""A variant in virtual time: the world that an experiment's file says, and what the simulator makes of it.

::

    [simulation]                      # what all variants have
    channels = 4
    channel_rate = "2GiB/s"           # of one thread into one channel
    link = {rate = "4GiB/s"}          # as a scenario has it; without it that of the experiment's scenario
    chunk = "1MiB"
    budget = "32MiB"

    [variants.simulated]              # what this one has besides, or instead
    savers = 4                        # workers; without them as many as there are jobs
    loaders = 4
    base = 0.002                      # seconds, as all times here
    step = 0.00005                    # what each wait costs besides in Python
    devices = [{count = 4, size = "16MiB", read = 0.04, write = 0.04, load_config = 0.001}]

The keys are the arguments of ``World`` and ``Profile`` in ``migpool/sim/world.py``, with a device's ``count`` besides.
Where SimPy is not installed nothing is simulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationError

from migpool.device import ConfigLock
from migpool.errors import ScenarioError, UsageError
from migpool.scenario.messages import explain
from migpool.scenario.schema import LinkTable, Rate, Size, Table
from migpool.sim.world import Profile, Shared, Way, World
from migpool.units import MIB

UNLIMITED = 1e15
"""Bytes a second of a link without a rate."""
MANY = 4096
"""Workers where nobody says how many: one a job."""

_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=MANY)]
_Bytes = Size | Literal[0]


class DeviceTable(Table):
    count: _Count = 1
    size: _Bytes = 0
    read: _Time = 0.0
    write: _Time = 0.0
    stop: _Time = 0.0
    load_config: _Time = 0.0
    load_growth: _Time = 0.0
    shared: Shared = "nothing"
    way: Way = "iterable"
    lanes: _Count = 1
    after: list[int] = Field(default=[])
    save_config: _Time = 0.0
    config_size: _Bytes = 0
    save_lock: ConfigLock = "big"
    load_lock: ConfigLock = "big"
    in_python: bool = False
    live: _Bytes = 0


class WorldTable(Table):
    devices: Annotated[list[DeviceTable], Field(min_length=1)]
    savers: _Count = MANY
    loaders: _Count = MANY
    channels: _Count = 4
    channel_rate: Rate
    link: LinkTable
    chunk: Size = MIB
    budget: Size = 32 * MIB
    base: _Time = 0.0
    step: _Time = 0.0
    slow_channel: Annotated[float, Field(ge=1)] = 1.0
    rounds: Annotated[int, Field(ge=0, le=1000)] = 0

    def world(self) -> World:
        """The same as the simulator takes it."""
        link = self.link
        fields = self.model_dump(exclude={"devices", "budget", "link"})
        fields |= {"link_rate": link.rate or UNLIMITED, "latency": link.delay, "jitter": link.jitter, "loss": link.loss}
        fields["mtu"] = link.mtu if link.imposed or link.delay else 0
        devices = [Profile(**one.model_dump(exclude={"count"})) for one in self.devices for _ in range(one.count)]
        return World(devices=tuple(devices), rooms=self.budget // self.chunk, **fields)


@dataclass(frozen=True, slots=True)
class InVirtualTime:
    """What was simulated of a variant.

    Arguments:
        downtime_ms: its downtime.
        held: the bytes of chunks that were at the destination at most, come and not loaded.
        early: of these, those that had come before an earlier one of the same device.
    """

    downtime_ms: float
    held: int
    early: int


def world_of(hosts: Mapping[str, JsonValue], own: Mapping[str, JsonValue], link: LinkTable, where: str) -> World:
    """The world of a variant.

    Arguments:
        hosts: the experiment's ``[simulation]``.
        own: the variant's ``simulated``.
        link: the scenario's.
        where: the file and the variant, for errors.

    Raises:
        ScenarioError: a key is wrong; a line each.
    """
    try:
        return WorldTable.model_validate({"link": link.model_dump(), **hosts, **own}).world()
    except ValidationError as error:
        raise ScenarioError("\n".join(explain(error.errors(), where, WorldTable))) from None


def in_virtual_time(world: World) -> InVirtualTime | None:
    """Simulate it; ``None`` without SimPy.

    Raises:
        MigpoolError: its jobs wait for each other.
    """
    try:
        from migpool.sim.simulate import simulate
    except UsageError:
        return None
    found = simulate(world)
    return InVirtualTime(found.downtime * 1e3, found.held * world.chunk, found.early * world.chunk)
