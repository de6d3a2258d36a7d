"""What is simulated: devices, two hosts, and what lies between them.

Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Literal, TypeAlias

from migpool.core.machine import Machine
from migpool.device import ConfigLock, Device, Part, TaggedDevice
from migpool.migration.settings import ConfigLoad
from migpool.schedulers.base import Taking

Shared: TypeAlias = Literal["nothing", "reads", "writes", "reads and writes"]
"""For which calls the devices of one host hold one lock, besides the big lock for configs."""
Way: TypeAlias = Literal["iterable", "tagged", "described", "section"]
"""How a device's state crosses: in chunks; in parts with tags; as a config over the multifd channels, or over the main
channel."""

BUFFER: Final = 32 << 10
"""What QEMU gathers of the main channel before it sends, in bytes."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One device.

    Arguments:
        size: of its state in chunks or parts.
        read: how long all of it takes to be read by one caller, each chunk according to its length.
        write: how long all of it takes to be written.
        stop: from running to stopped; devices stop one after the other.
        load_config: of its config, under ``load_lock``.
        load_growth: what each config that was loaded before adds to that.
        shared: what devices of one host do one at a time.
        way: how its state crosses.
        lanes: how many jobs save it at once; of a tagged device, its engines, which load it at once, too.
        after: the places, from 0, of the devices that must be loaded before it.
        save_config: how long its config takes to be saved, under ``save_lock``.
        config_size: of its config.
        save_lock, load_lock: what its config needs.
        in_python: whether its configs are made by Python code, of which a process runs one thread at a time.
        live: how much of its state goes in each round while the machine runs, besides ``size``.
        chunk: the most bytes that one read returns; 0: the world's chunk.
        lock: which lock ``shared`` is about: devices with another one do not wait for this one.
        read_slack: see :class:`~migpool.device.Outline`.
        channel: what the end of its state takes besides, at the source, for each channel.
        start: how long it takes to start at the destination, in seconds.
        ram: whether it is the memory's last round, which QEMU saves before all others.
        read_call, write_call: what each read, and each write, takes of ``read`` and ``write`` however short it is.
    """

    size: int = 0
    read: float = 0.0
    write: float = 0.0
    stop: float = 0.0
    load_config: float = 0.0
    load_growth: float = 0.0
    shared: Shared = "nothing"
    way: Way = "iterable"
    lanes: int = 1
    after: Sequence[int] = ()
    save_config: float = 0.0
    config_size: int = 0
    save_lock: ConfigLock = "big"
    load_lock: ConfigLock = "big"
    in_python: bool = False
    live: int = 0
    chunk: int = 0
    lock: str = ""
    read_slack: float | None = None
    channel: float = 0.0
    start: float = 0.0
    ram: bool = False
    read_call: float = 0.0
    write_call: float = 0.0


@dataclass(frozen=True, slots=True)
class World:
    """A machine, and two hosts.

    Arguments:
        devices: in the order in which they are stopped and saved.
        savers: workers at the source, which take up jobs in the order in which they are submitted.
        loaders: workers at the destination.
        channels: of multifd; the main channel is one more.
        channel_rate: how fast one thread can put state into one channel, and another take it out.
        link_rate: of all channels together.
        chunk: what one read returns.
        rooms: the destination's budget in chunks, at least one a device with chunks.
        base: what the downtime has besides devices: memory, vCPUs, everything else.
        step: what a wait costs besides the wait, in Python code, of which a process runs one thread at a time.
        slow_channel: how many times slower the first channel is than the others.
        rounds: how many rounds of ``live`` state go before the machine stops.
        latency: how long anything is under way, in either direction, in seconds.
        jitter: by how much longer or shorter a packet may be, in seconds.
        loss: of each packet, a probability.
        mtu: the largest packet; 0: the link takes bytes, not packets.
        save_taking, load_taking: how each end's threading model takes jobs; see
            :class:`~migpool.schedulers.base.Staffing`.
        config_load: when the configs of iterable devices are loaded: with their own state, or once all have theirs.
        each: the most rooms that one device may have; 0: no bound of its own.
        processors: of each host, where all that devices take is processor time; 0: each thread has one for itself.
        copying: how many threads of both ends can copy at once, as on one host; 0: all.
        copy_rate: how fast a thread that reads, or writes, copies what it has read or writes, in bytes a second.
        wake: what it takes to wake a thread, or a device's process, if a processor is idle.
    """

    devices: Sequence[Profile]
    savers: int
    loaders: int
    channels: int
    channel_rate: float
    link_rate: float
    chunk: int
    rooms: int
    base: float = 0.0
    step: float = 0.0
    slow_channel: float = 1.0
    rounds: int = 0
    latency: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    mtu: int = 0
    save_taking: Taking = "queue"
    load_taking: Taking = "queue"
    config_load: ConfigLoad = "as-loaded"
    each: int = 0
    processors: int = 0
    copying: int = 0
    copy_rate: float = inf
    wake: float = 0.0


class _Simulated(Device):
    """What the machine and the jobs ask of a device."""

    def __init__(self, number: int, profile: Profile) -> None:
        self.idstr = f"device-{number}"
        self.iterable = profile.way == "iterable"
        self.in_flight = profile.lanes
        self.config_channel = "multifd" if profile.way == "described" else "main-channel"
        self.after = [f"device-{other}" for other in profile.after]
        self.save_lock = profile.save_lock
        self.load_lock = profile.load_lock
        self._config = bytes(profile.config_size)

    def save_config(self) -> bytes:
        return self._config

    def load_config(self, data: bytes) -> None:
        del data


class _SimulatedParts(TaggedDevice, _Simulated):
    """A device that gives its parts in order, to whoever asks."""

    def __init__(self, number: int, profile: Profile, parts: int, length: int) -> None:
        super().__init__(number, profile)
        self.iterable = True
        self.engines = profile.lanes
        self._parts = iter([Part(tag, length) for tag in range(parts)])

    def save_part(self, buffer: memoryview) -> Part | None:
        del buffer
        return next(self._parts, None)

    def load_part(self, tag: int, data: memoryview) -> None:
        del tag, data


def chunk_of(profile: Profile, chunk: int) -> int:
    """How many bytes one read of a device returns, where ``chunk`` is the world's."""
    return min(profile.chunk or chunk, chunk)


def chunks_of(profile: Profile, chunk: int) -> int:
    """How many chunks or parts a device's state is."""
    return -(-profile.size // chunk_of(profile, chunk))


def last_of(profile: Profile, chunk: int) -> int:
    """How long the last of these is."""
    return profile.size - (chunks_of(profile, chunk) - 1) * chunk_of(profile, chunk)


def machine_of(world: World) -> Machine:
    """The devices of a world as a machine.

    Raises:
        UsageError: devices must be loaded before each other, or one with chunks after another.
    """
    return Machine(
        "simulated",
        [
            _SimulatedParts(number, profile, chunks_of(profile, world.chunk), chunk_of(profile, world.chunk))
            if profile.way == "tagged"
            else _Simulated(number, profile)
            for number, profile in enumerate(world.devices)
        ],
    )
