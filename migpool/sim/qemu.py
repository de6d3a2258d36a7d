"""QEMU's own threading in virtual time: what one of its migrations would take with the devices of a world.

The source's own thread stops the machine and saves the memory's last round. What comes then depends on whether VFIO's
devices go over the multifd channels (``x-migration-multifd-transfer``):

* without, the same thread saves the iterable devices one after the other into the main channel, and the destination's
  own thread loads them as they come;
* with it, each has a thread at either end from the begin of the memory's last round on, and the source's own thread
  waits for these before it goes on.

Then come the sections of all other devices (without transfer also the iterable devices' configs), one after the other
at both ends. The destination's own thread holds the big lock while it loads, the threads of devices while they load
their config, and the machine starts when all are done. QEMU gathers what it writes into the main channel and sends
``BUFFER`` at once, besides at the end of the memory and of everything: until then the destination waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any, NamedTuple, TypeAlias

from migpool.device import Side
from migpool.errors import UsageError
from migpool.sim.world import BUFFER, Profile, World, chunk_of, chunks_of, last_of

try:
    import simpy
except ImportError:
    raise UsageError("the simulator needs SimPy: pip install 'migpool[sim]'") from None

_Process: TypeAlias = Generator[simpy.Event, Any, Any]


class _Item(NamedTuple):
    """Something on the main channel: where it ends, and how long it takes to be loaded."""

    end: int
    load: float


def qemu_downtime(world: World, *, transfer: bool) -> float:
    """Simulate one switchover as QEMU carries it out; returns its downtime in seconds.

    Arguments:
        world: its workers, rooms and order mean nothing here.
        transfer: whether iterable devices go over the multifd channels, each on a thread of its own.
    """
    return _Switchover(world, transfer=transfer).run()


class _Switchover:
    def __init__(self, world: World, *, transfer: bool) -> None:
        self._world, self._transfer = world, transfer
        self._env = env = simpy.Environment()
        self._ram = [profile for profile in world.devices if profile.ram]
        self._iterable = [one for one in world.devices if one.way in ("iterable", "tagged") and not one.ram]
        self._sections = [one for one in world.devices if one.way in ("described", "section")]
        self._channels = simpy.Resource(env, max(1, world.channels))
        self._link, self._big = simpy.Resource(env), simpy.Resource(env)
        count = world.processors
        self._processors: dict[Side, simpy.Resource | None] = {
            end: simpy.Resource(env, count) if count else None for end in ("source", "destination")
        }
        self._gathered: deque[_Item] = deque()
        self._written = self._sent = 0
        self._main: simpy.Store = simpy.Store(env)
        self._running = 0.0

    def run(self) -> float:
        env, devices = self._env, self._world.devices
        loaders = []
        savers = []
        if self._transfer:
            for profile in self._iterable:
                arrived: simpy.Store = simpy.Store(env)
                savers.append(env.process(self._save(profile, arrived)))
                loaders.append(env.process(self._load(profile, arrived)))
        env.process(self._source(savers))
        env.process(self._destination(loaders))
        env.run()
        return self._world.base + sum(profile.stop for profile in devices) + self._running

    def _source(self, savers: list[simpy.Process]) -> _Process:
        """The source's own thread, once the machine stands still."""
        env = self._env
        for ram in self._ram:
            yield from self._work("source", ram.read + ram.save_config + ram.channel * self._world.channels)
            yield from self._put(0, ram.write + ram.load_config)
            yield from self._flush(self._written)
        if self._transfer:
            yield env.all_of(savers)
        else:
            for profile in self._iterable:
                count = max(1, chunks_of(profile, self._world.chunk))
                for number in range(count):
                    yield from self._work("source", profile.read / count)
                    yield from self._put(self._length(profile, number, count), profile.write / count)
        configs = [] if self._transfer else self._iterable
        for profile in (*self._sections, *configs):
            yield from self._work("source", profile.save_config)
            yield from self._put(profile.config_size, profile.load_config)
        yield from self._flush(self._written)
        self._main.put(None)

    def _put(self, size: int, load: float) -> _Process:
        """Write into the main channel."""
        self._written += size
        self._gathered.append(_Item(self._written, load))
        full = (self._written - self._sent) // BUFFER * BUFFER
        if full:
            yield from self._flush(self._sent + full)

    def _flush(self, until: int) -> _Process:
        """Send what has been gathered, up to this byte."""
        yield from self._cross(until - self._sent)
        self._sent = until
        while self._gathered and self._gathered[0].end <= until:
            self._main.put(self._gathered.popleft())

    def _destination(self, loaders: list[simpy.Process]) -> _Process:
        """The destination's own thread: it lets the big lock go only where it waits."""
        going_on = True
        while going_on:
            items = [(yield self._main.get())]
            with self._big.request() as held:
                yield held
                while items:
                    item = items.pop()
                    if item is None:
                        going_on = False
                    else:
                        yield from self._work("destination", item.load)
                    if going_on and self._main.items:
                        items.append((yield self._main.get()))
        yield self._env.all_of(loaders)
        self._running = float(self._env.now)

    def _save(self, profile: Profile, arrived: simpy.Store) -> _Process:
        """The thread of a device at the source."""
        count = chunks_of(profile, self._world.chunk)
        for number in range(count):
            yield from self._work("source", profile.read / count)
            yield from self._send(self._length(profile, number, count))
            arrived.put(profile.write / count)
        yield from self._work("source", profile.save_config)
        yield from self._send(profile.config_size)
        arrived.put(None)

    def _load(self, profile: Profile, arrived: simpy.Store) -> _Process:
        """The thread of a device at the destination."""
        while (write := (yield arrived.get())) is not None:
            yield from self._work("destination", write)
        with self._big.request() as held:
            yield held
            yield from self._work("destination", profile.load_config)

    def _work(self, end: Side, seconds: float) -> _Process:
        processors = self._processors[end]
        if processors is None:
            yield self._env.timeout(seconds)
            return
        with processors.request() as processor:
            yield processor
            yield self._env.timeout(seconds)

    def _send(self, size: int) -> _Process:
        with self._channels.request() as channel:
            yield channel
            yield self._env.timeout(size / self._world.channel_rate)
            yield from self._cross(size)

    def _cross(self, size: int) -> _Process:
        with self._link.request() as held:
            yield held
            yield self._env.timeout(size / self._world.link_rate)

    def _length(self, profile: Profile, number: int, count: int) -> int:
        """Bytes of a chunk."""
        if not profile.size:
            return 0
        return chunk_of(profile, self._world.chunk) if number < count - 1 else last_of(profile, self._world.chunk)
