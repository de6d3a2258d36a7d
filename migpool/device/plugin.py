"""What an entry point of a plug-in is given, and what it must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from migpool.device.device import ConfigChannel, ConfigLock, Device
from migpool.device.figures import StateCosts

Side: TypeAlias = Literal["source", "destination"]
OptionValue: TypeAlias = "str | int | float | bool | Sequence[OptionValue] | Mapping[str, OptionValue]"


@dataclass(frozen=True, slots=True)
class DeviceContext:
    """What a plug-in is told when its devices are made.

    Arguments:
        side: which end of the migration this process is.
        options: the ``options`` table of the device's entry in the scenario, as written there.
        count: how many devices of this kind the scenario asks for (its ``count`` key, 1 without it).
        seed: a number that is the same at both ends and may differ between migrations; for made-up state.
    """

    side: Side
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    count: int = 1
    seed: int = 0


DevicePlugin: TypeAlias = Callable[[DeviceContext], Sequence[Device]]
"""What an entry point in ``migpool.devices`` must be."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What a device would be and take, told by its plug-in without making it: what the simulator rests on.

    A plug-in whose devices can be simulated has a function ``outlines`` beside its own, in the same module, which takes
    the same context and returns one for each device, in order.

    Arguments:
        costs: how long its work takes; ``read`` and ``write`` are of all its state by one caller.
        size: bytes of its state; 0 for a device that is not iterable.
        chunk: the most bytes that one read of its state returns; 0: as many as are asked for.
        config_size: bytes of its config.
        engines: how many parts with tags it takes and gives at once; 0 for a device whose state is chunks in order.
        config_lock: what its configs need.
        config_channel: where the config of a device that is not iterable crosses; ``None`` where the scenario says.
        read_slack: for a device that reads ahead by one chunk: how late a reader may come for a chunk without delaying
            the one after, in seconds. ``None``: it begins a read when it is asked.
        start: how long it takes to wake and to start, in seconds.
        channel: what its save takes besides for each multifd channel, in seconds.
        memory: whether it stands for what is left of the guest's memory after the stop.
    """

    costs: StateCosts
    size: int = 0
    chunk: int = 0
    config_size: int = 0
    engines: int = 0
    config_lock: ConfigLock = "big"
    config_channel: ConfigChannel | None = None
    read_slack: float | None = None
    start: float = 0.0
    channel: float = 0.0
    memory: bool = False
