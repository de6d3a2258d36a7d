"""What devices take for their state in virtual time: each at its own pace, and under the locks that they share."""

from __future__ import annotations

from collections import defaultdict
from math import inf
from typing import Any

import simpy

from migpool.sim.processors import Process, Processors, Side
from migpool.sim.world import Profile, World, chunks_of, last_of


class DeviceTimes:
    """Reads and writes of all devices of one migration.

    Arguments:
        env: the time.
        world: whose devices.
        processors: of both ends.
    """

    def __init__(self, env: simpy.Environment, world: World, processors: Processors) -> None:
        self._env = env
        self._world = world
        self._processors = processors
        self._read_locks = defaultdict[str, simpy.Resource](lambda: simpy.Resource(env))
        self._write_locks = defaultdict[str, simpy.Resource](lambda: simpy.Resource(env))
        self._chunks = [chunks_of(profile, world.chunk) for profile in world.devices]
        self._last = [last_of(profile, world.chunk) for profile in world.devices]
        self._left = list(self._chunks)
        self._left_live = [0 for _ in world.devices]
        self._produced = [0.0 for _ in world.devices]
        self._reads = [0 for _ in world.devices]
        self._free_at = {side: defaultdict[str, float](lambda: -inf) for side in ("save", "load")}

    def run(self, number: int, wanted: int) -> None:
        """The device has so many bytes for a round while the machine runs."""
        self._left_live[number] = -(-wanted // self._world.chunk)

    def stop(self, number: int, when: float) -> None:
        """The device has been stopped then, and one that reads ahead begins."""
        self._produced[number] = when

    def read(self, number: int, piece: Any) -> Process:
        """Read the next chunk of a device that stands still into ``piece``; returns its bytes, 0 if there is none."""
        return self._read(number, piece, self._left)

    def read_live(self, number: int, piece: Any) -> Process:
        """The same of a device that runs."""
        return self._read(number, piece, self._left_live)

    def read_part(self, number: int) -> Process:
        """Read a part with a tag."""
        profile = self._world.devices[number]
        return self._processors.hold(self._for_reads(profile), profile.read / self._chunks[number], work="save")

    def write(self, number: int, size: int, side: Side) -> Process:
        """Write so many bytes: while a device's process is woken and they are copied, the device's own time goes on."""
        began, profile = float(self._env.now), self._world.devices[number]
        yield from self._processors.copy(size / self._world.copy_rate, 2)
        lock, cost = self._for_writes(profile), self._cost(profile.write, profile.write_call, size, 1, number)
        if lock is None:
            yield from self._processors.hold(None, max(0.0, began + cost - float(self._env.now)), work=side)
            return
        free_at = self._free_at[side]
        with lock.request() as held:
            yield held
            due = max(began, free_at[profile.lock]) + cost
            yield from self._processors.hold(None, max(0.0, due - float(self._env.now)), work=side)
            free_at[profile.lock] = float(self._env.now)

    def _read(self, number: int, piece: Any, left: list[int]) -> Process:
        profile = self._world.devices[number]
        if not left[number]:
            piece.length = 0
            return 0
        left[number] -= 1
        last = self._last[number] if left is self._left else piece.size
        made = piece.length = piece.size if left[number] else last
        # A device makes as much at once as it allows to read at once, however little of it is read.
        at_once = max(1, profile.chunk // self._world.chunk)
        read, self._reads[number] = self._reads[number], self._reads[number] + 1
        if profile.read_slack is not None:
            made = min(at_once * piece.size, left[number] * piece.size + last)
        lock, cost = self._for_reads(profile), self._cost(profile.read, profile.read_call, made, at_once, number)
        yield from self._processors.copy(0.0, 1)
        if profile.read_slack is None:
            yield from self._processors.hold(lock, cost, work="save")
        elif not read % at_once:
            if lock is None:
                yield from self._processors.hold(None, self._made(number, cost), work="save")
            else:
                with lock.request() as held:
                    yield held
                    yield from self._processors.hold(None, self._made(number, cost), work="save")
        yield from self._processors.copy(piece.length / self._world.copy_rate, 1)
        if profile.read_slack is not None:
            # What comes next the device begins when this has been taken; who came later than the slack has delayed it.
            self._produced[number] = max(self._produced[number], float(self._env.now) - profile.read_slack)
        return piece.length

    def _made(self, number: int, cost: float) -> float:
        """How long a reader still waits for what the device has worked on since it was last read."""
        begin, profile = self._produced[number], self._world.devices[number]
        free_at = self._free_at["save"]
        if self._for_reads(profile) is not None:
            begin = max(begin, free_at[profile.lock])
        due = self._produced[number] = free_at[profile.lock] = begin + cost
        return max(0.0, due - float(self._env.now))

    def _cost(self, whole: float, call: float, size: int, at_once: int, number: int) -> float:
        """What a call for so many bytes takes, of the ``whole`` that all of them take."""
        calls = -(-self._chunks[number] // at_once)
        call = min(call, whole / calls)
        return call + (whole - calls * call) * size / self._world.devices[number].size

    def _for_reads(self, profile: Profile) -> simpy.Resource | None:
        return self._read_locks[profile.lock] if profile.shared in ("reads", "reads and writes") else None

    def _for_writes(self, profile: Profile) -> simpy.Resource | None:
        return self._write_locks[profile.lock] if profile.shared in ("writes", "reads and writes") else None
