"""What lies between the two hosts, in virtual time: multifd channels, the main channel, and the link that all share."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import simpy

from migpool.sim.tcp import Channel, goodput, lateness
from migpool.sim.world import World

_Process: TypeAlias = Generator[simpy.Event, Any, Any]


class Link:
    """One migration's connections.

    Arguments:
        env: the time.
        world: what the connections are like.
        shared: the link of this migration and others; whoever holds it sends.
        copy: has a thread copy for some time.
    """

    def __init__(
        self,
        env: simpy.Environment,
        world: World,
        shared: simpy.Resource | None,
        copy: Callable[[float], _Process],
    ) -> None:
        self._copy = copy
        self._env = env
        self._world = world
        self._channels = simpy.Store(env)
        for number in range(world.channels):
            self._channels.put(Channel(world.channel_rate / (1.0 if number else world.slow_channel), world))
        self._main = simpy.Resource(env)
        self._main_channel = Channel(world.channel_rate, world)
        self._goodput = goodput(world)
        self._shared = shared or simpy.Resource(env)

    def idle(self) -> simpy.Event:
        """Wait for a multifd channel that nobody sends on; its value is the channel, for one :meth:`send`."""
        return self._channels.get()

    def send(self, size: int, channel: Channel) -> _Process:
        """Send so many bytes over a multifd channel, which is idle then."""
        yield from self._cross(size, channel)
        self._channels.put(channel)

    def send_on_main(self, size: int) -> _Process:
        """Send so many bytes over the main channel, once it is free."""
        with self._main.request() as main:
            yield main
            yield from self._cross(size, self._main_channel)

    def later(self, happen: Callable[[], object], size: int = 1) -> None:
        """What the other end sees, once all of ``size`` bytes have come there."""
        if not self._world.latency:
            happen()
            return
        self._env.process(self._arriving(happen, lateness(self._world, size)))

    def _arriving(self, happen: Callable[[], object], late: float) -> _Process:
        yield self._env.timeout(late)
        happen()

    def _cross(self, size: int, channel: Channel) -> _Process:
        yield from self._copy(size / channel.rate)
        while size > 0:
            room, until = channel.room(float(self._env.now))
            if not room:
                yield self._env.timeout(max(0.0, until - float(self._env.now)))
                continue
            flight = min(size, room)
            channel.send(flight)
            with self._shared.request() as held:
                yield held
                yield self._env.timeout(flight / self._goodput)
            size -= flight
