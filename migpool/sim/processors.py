"""What threads and processors there are in virtual time, and who waits for one."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal, TypeAlias

import simpy

from migpool.sim.world import World

Process: TypeAlias = Generator[simpy.Event, Any, Any]
Side: TypeAlias = Literal["save", "load"]


def crew(env: simpy.Environment, threads: int) -> simpy.Resource | None:
    """So many threads or processors; ``None`` if there is one for everybody."""
    return simpy.Resource(env, threads) if threads else None


class Processors:
    """Those of both ends of one migration.

    Attributes:
        scarce: whether threads that copy, or are woken, may have to wait for one.
    """

    def __init__(self, env: simpy.Environment, world: World) -> None:
        self._env = env
        self._wake = world.wake
        self._copying = crew(env, world.copying)
        self._working = {side: crew(env, world.processors) for side in ("save", "load")}
        self.scarce = self._copying is not None

    def copy(self, seconds: float, wakes: int = 0) -> Process:
        """Have a thread copy for some time, on a processor that others may have, once so many have woken each other.

        Who finds all of them at work waits for one, and for no wake.
        """
        wake = wakes * self._wake
        if not (seconds or wake):
            return
        if self._copying is None:
            yield self._env.timeout(seconds + wake)
            return
        if self._copying.count < self._copying.capacity:
            seconds += wake
        with self._copying.request() as processor:
            yield processor
            yield self._env.timeout(seconds)

    def woken(self, waiting: Process) -> Process:
        """Wait for what another thread brings, and for this one to wake if that was not there."""
        began = self._env.now
        answer = yield from waiting
        if self._wake and self._env.now != began:
            yield from self.copy(0.0, 1)
        return answer

    def hold(
        self,
        resource: simpy.Resource | None,
        seconds: float,
        within: simpy.Resource | None = None,
        work: Side | None = None,
    ) -> Process:
        """Take some time with a lock, and ``within`` another; ``work``: on a processor of that end."""
        if resource is None and within is None and work is not None:
            resource, work = self._working[work], None
        if resource is None:
            if within is not None:
                yield from self.hold(within, seconds, None, work)
            else:
                yield self._env.timeout(seconds)
            return
        with resource.request() as held:
            yield held
            yield from self.hold(None, seconds, within, work)
