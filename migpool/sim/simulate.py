"""Interprets the jobs in virtual time.

Each worker is a SimPy process that takes up one job after the other and waits out its effects: a delay, a resource that
others hold, or an event of another job. Grants of room reach the source at once; a link's latency is not simulated.

Guarantees:

1. The same world gives the same downtime, on every machine: there is no chance in it, and no clock.
2. A simulation in which nobody can go on raises an error that names the jobs, as a deadlock of the
   real ones would show.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from migpool.core.effects import (
    Acquire,
    Credit,
    Effect,
    LoadConfig,
    Loaded,
    NextChunk,
    ReadState,
    Release,
    SaveConfig,
    Send,
    Steps,
    WriteState,
)
from migpool.core.jobs import load_state, save_state
from migpool.core.machine import Machine, NamedDevice, Slot
from migpool.errors import MigpoolError, UsageError
from migpool.flow.window import Grant, Reassembly, Windows

try:
    import simpy
except ImportError:
    raise UsageError("the simulator needs SimPy: pip install 'migpool[sim]'") from None

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


_Process: TypeAlias = Generator[simpy.Event, Any, Any]


class _Piece(NamedTuple):
    """A chunk without memory."""

    last: bool
    payload: bytes = b""


def downtime(world: World) -> float:
    """Simulate one switchover; returns its downtime in seconds.

    Raises:
        MigpoolError: the jobs wait for each other.
    """
    return _Simulation(world).run()


class _Simulation:
    def __init__(self, world: World) -> None:
        self._world = world
        profile = world.profile
        self._chunks = -(-profile.size // world.chunk)
        self._env = simpy.Environment()
        self._channels = simpy.Resource(self._env, world.channels)
        self._link = simpy.Resource(self._env)
        self._save_lock = simpy.Resource(self._env)
        self._load_lock = simpy.Resource(self._env)
        self._read_lock = simpy.Resource(self._env) if profile.shared in ("reads", "reads and writes") else None
        self._write_lock = simpy.Resource(self._env) if profile.shared in ("writes", "reads and writes") else None
        self._slots = list(Machine("simulated", [NamedDevice(number) for number in range(world.devices)]))
        self._windows = Windows(world.devices, world.rooms)
        self._inboxes: list[Reassembly[_Piece]] = [Reassembly() for _ in self._slots]
        self._granted = [0] * world.devices
        self._changed = [self._env.event() for _ in self._slots]
        self._waiting: set[str] = set()
        self._grant(self._windows.opening())

    def run(self) -> float:
        world = self._world
        workers: list[simpy.Event] = []
        sides = (("save", world.savers, save_state), ("load", world.loaders, load_state))
        for name, count, job in sides:
            jobs = iter([(f"{name} {slot.name}", job(slot)) for slot in self._slots])
            workers += [self._env.process(self._work(jobs)) for _ in range(count)]
        self._env.run()
        if not all(worker.processed for worker in workers):
            raise MigpoolError(f"the simulated jobs wait for each other: {', '.join(sorted(self._waiting))}")
        return world.base + world.devices * world.profile.stop + float(self._env.now)

    def _work(self, jobs: Iterator[tuple[str, Steps]]) -> _Process:
        """A worker: one job after the other, each from its first effect to its last."""
        for name, steps in jobs:
            self._waiting.add(name)
            answer: object = None
            while True:
                try:
                    effect = steps.send(answer)
                except StopIteration:
                    break
                answer = yield from self._perform(effect)
            self._waiting.discard(name)

    def _perform(self, effect: Effect[object]) -> _Process:
        world, profile, number = self._world, self._world.profile, effect.slot.number
        match effect:
            case Acquire():
                return _Piece(last=False)
            case ReadState(index=index):
                if index == self._chunks:
                    return 0
                yield from self._hold(self._read_lock, profile.read / self._chunks)
                return world.chunk
            case Credit(index=index):
                while index >= self._granted[number]:
                    yield self._changed[number]
                return self._granted[number]
            case Send(index=index, last=last):
                size = 0 if last else world.chunk
                with self._channels.request() as channel:
                    yield channel
                    yield self._env.timeout(size / world.channel_rate)
                    yield from self._hold(self._link, size / world.link_rate)
                self._arrive(effect.slot, index, last)
            case SaveConfig():
                yield from self._hold(self._save_lock, 0.0)
                return b""
            case NextChunk():
                while not self._inboxes[number].available:
                    yield self._changed[number]
                return self._inboxes[number].take()
            case WriteState():
                yield from self._hold(self._write_lock, profile.write / self._chunks)
            case Loaded(last=last):
                self._grant(self._windows.finished(number) if last else self._windows.loaded(number))
            case LoadConfig():
                yield from self._hold(self._load_lock, profile.load_config)
            case Release():
                pass
            case _:
                raise UsageError(f"the simulator does not know the wait {type(effect).__name__}")
        return None

    def _hold(self, resource: simpy.Resource | None, seconds: float) -> _Process:
        if resource is None:
            yield self._env.timeout(seconds)
            return
        with resource.request() as held:
            yield held
            yield self._env.timeout(seconds)

    def _arrive(self, slot: Slot, index: int, last: bool) -> None:
        number = slot.number
        self._inboxes[number].put(index, _Piece(last), last, self._windows.limit(number))
        self._wake([number])
        self._grant(self._windows.received(number))

    def _grant(self, grants: Sequence[Grant]) -> None:
        for grant in grants:
            self._granted[grant.device] = max(self._granted[grant.device], grant.limit)
        self._wake(grant.device for grant in grants)

    def _wake(self, devices: Iterable[int]) -> None:
        for number in devices:
            self._changed[number].succeed()
            self._changed[number] = self._env.event()
