"""What is simulated: the devices, and what they share. Times in seconds, sizes in bytes, rates in bytes a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Shared: TypeAlias = Literal["nothing", "reads", "writes", "reads and writes"]
"""For which calls the devices of one host hold one lock, besides the big lock for configs."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One device.

    Arguments:
        read: how long all of its state takes to be read, in chunks of equal cost.
        write: how long all of it takes to be written.
        stop: from running to stopped; devices stop one after the other.
        load_config: of its config, under the destination's big lock.
        shared: what devices of one host do one at a time.
    """

    size: int
    read: float
    write: float
    stop: float
    load_config: float
    shared: Shared = "nothing"


@dataclass(frozen=True, slots=True)
class World:
    """A machine of equal devices, and two hosts.

    Arguments:
        savers: workers at the source, which take up jobs in the devices' order.
        loaders: workers at the destination.
        channel_rate: how fast one thread can put state into one channel.
        link_rate: of all channels together.
        chunk: what one read returns.
        rooms: the destination's budget in chunks, at least one a device.
        base: what the downtime has besides devices: memory, vCPUs, everything else.
    """

    profile: Profile
    devices: int
    savers: int
    loaders: int
    channels: int
    channel_rate: float
    link_rate: float
    chunk: int
    rooms: int
    base: float = 0.0
