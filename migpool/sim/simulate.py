"""Interprets the jobs in virtual time.

Each worker is a SimPy process that takes up one job after the other and waits out its effects: a delay, a resource that
others hold, or an event of another job. Whose turn it is at a device, which devices have been loaded, what has come and
how much room there is, is decided by the migration's own code (``migpool/migration/lanes.py``,
``migpool/migration/load_order.py``, ``migpool/flow/``). Grants of room reach the source at once; a link's latency is
not simulated.

Guarantees:

1. The same world gives the same times, on every machine: there is no chance in it, and no clock.
2. A simulation in which nobody can go on raises an error that names the jobs, as a deadlock of the
   real ones would show.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import (
    Acquire,
    AfterOthers,
    Credit,
    Effect,
    EndLane,
    EndLiveTurn,
    EndParts,
    EndTurn,
    IterateInto,
    LoadConfig,
    Loaded,
    LoadPart,
    Locked,
    NextChunk,
    NextPart,
    ReadState,
    Release,
    SaveConfig,
    SavePart,
    SayLoaded,
    Send,
    SendAhead,
    SendPart,
    SendSection,
    Steps,
    Turn,
    WriteState,
)
from migpool.core.interpreter import Handlers
from migpool.core.jobs import (
    load_described,
    load_live,
    load_parts,
    load_section,
    load_state,
    save_described,
    save_lane,
    save_live,
    save_parts,
    save_sections,
    save_state,
)
from migpool.core.machine import Slot, in_lanes
from migpool.errors import MigpoolError, UsageError
from migpool.flow.parts import Parts
from migpool.flow.window import Grant, Reassembly, Windows
from migpool.migration.lanes import Lanes
from migpool.migration.load_order import LoadOrder
from migpool.sim.world import Profile, World, chunks_of, last_of, machine_of

try:
    import simpy
except ImportError:
    raise UsageError("the simulator needs SimPy: pip install 'migpool[sim]'") from None

__all__ = ["Profile", "Simulated", "World", "downtime", "simulate"]

_Process: TypeAlias = Generator[simpy.Event, Any, Any]
_Side: TypeAlias = Literal["save", "load"]


class _Piece:
    """A chunk without memory, or the bytes of a config."""

    __slots__ = ("buffer", "index", "last", "length", "payload", "size")

    def __init__(
        self, size: int, payload: bytes = b"", *, index: int = -1, length: int = 0, last: bool = False
    ) -> None:
        self.buffer = memoryview(b"")
        self.size = size
        self.length = length
        self.index = index
        self.last = last
        self.payload = payload


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a simulation gave.

    Arguments:
        downtime: in seconds.
        live: how long the rounds before it took, in seconds.
        held: how many chunks, parts and configs were at the destination at most, come and not yet loaded.
        early: how many of these came before an earlier one of the same device, at most; parts with tags never do.
    """

    downtime: float
    live: float
    held: int
    early: int


def downtime(world: World) -> float:
    """Simulate one switchover; returns its downtime in seconds.

    Raises:
        MigpoolError: the jobs wait for each other.
    """
    return simulate(world).downtime


def simulate(world: World) -> Simulated:
    """Simulate the rounds of one migration and its switchover.

    Raises:
        MigpoolError: the jobs wait for each other.
        UsageError: the machine cannot be.
    """
    return _Simulation(world).run()


class _Arrivals:
    """What has come of one device."""

    def __init__(self) -> None:
        self.chunks: Reassembly[_Piece] = Reassembly()
        self.parts: Parts[_Piece] = Parts()
        self.takers: set[NextPart] = set()
        self.ended = False
        self.early: set[int] = set()
        self.following = 0

    def note(self, index: int) -> None:
        """Chunk ``index`` has come: which have come before an earlier one?"""
        self.early.add(index)
        while self.following in self.early:
            self.early.remove(self.following)
            self.following += 1


class _Simulation:
    def __init__(self, world: World) -> None:
        self._world = world
        self._env = env = simpy.Environment()
        self._machine = machine_of(world)
        self._crossing = self._machine.crossing("main-channel")
        slots = self._machine.slots
        self._channels = simpy.Store(env)
        for number in range(world.channels):
            self._channels.put(world.channel_rate / (1.0 if number else world.slow_channel))
        self._main = simpy.Resource(env)
        self._link = simpy.Resource(env)
        # What a process has once: the big lock, Python, and a lock for each device.
        self._big = {"save": simpy.Resource(env), "load": simpy.Resource(env)}
        self._python = {"save": simpy.Resource(env), "load": simpy.Resource(env)}
        self._own = {side: [simpy.Resource(env) for _ in slots] for side in ("save", "load")}
        self._read_lock, self._write_lock = simpy.Resource(env), simpy.Resource(env)
        placed = [*self._machine.iterable, *self._crossing.described]
        self._place = {slot.number: place for place, slot in enumerate(placed)}
        self._placed = [slot.number for slot in placed]
        self._windows = Windows(len(self._machine.iterable), world.rooms, described=len(self._crossing.described))
        self._left = [chunks_of(profile, world.chunk) for profile in world.devices]
        self._left_live = [0 for _ in slots]
        self._following = [0 for _ in slots]
        self._arrivals = [_Arrivals() for _ in slots]
        self._granted = [0] * len(slots)
        self._changed = [env.event() for _ in slots]
        self._sections: simpy.Store = simpy.Store(env)
        self._waiting: set[str] = set()
        self._held = self._most_held = self._most_early = 0
        self._handlers = Handlers()
        switch = CancelSwitch()
        self._lanes = Lanes([slot.number for slot in slots], switch)
        self._lanes.handle(self._handlers)
        LoadOrder(switch).handle(self._handlers)
        self._grant(self._windows.opening())

    def run(self) -> Simulated:
        world = self._world
        for _ in range(world.rounds):
            self._round()
        live = float(self._env.now)
        self._lanes.begin_at(dict(enumerate(self._following)))
        jobs = self._crossing.jobs
        saving = self._workers("save", world.savers, self._submitted(jobs, "save"))
        self._workers("load", world.loaders, self._submitted(jobs, "load"))
        sections = self._crossing.sections
        self._waiting.add("save sections")
        self._env.process(self._save_sections(sections, [] if world.together else saving))
        self._env.process(self._load_sections(sections))
        self._run_out()
        stops = sum(profile.stop for profile in world.devices)
        return Simulated(world.base + stops + float(self._env.now) - live, live, self._most_held, self._most_early)

    def _round(self) -> None:
        alive = [slot for slot in self._machine.iterable if self._world.devices[slot.number].live]
        saves, loads = [], []
        for slot in alive:
            first, wanted = self._following[slot.number], self._world.devices[slot.number].live
            self._left_live[slot.number] = -(-wanted // self._world.chunk)
            saves.append((f"save live {slot.name}", save_live(slot, first, wanted)))
            loads.append((f"load live {slot.name}", load_live(slot, first)))
        self._workers("save", self._world.savers, saves)
        self._workers("load", self._world.loaders, loads)
        self._run_out()

    def _run_out(self) -> None:
        self._env.run()
        if self._waiting:
            raise MigpoolError(f"the simulated jobs wait for each other: {', '.join(sorted(self._waiting))}")

    def _submitted(self, slots: Sequence[Slot], side: _Side) -> list[tuple[str, Steps]]:
        """The jobs in the order in which both ends submit them."""
        return [
            (f"{side} {slot.name}" + (f", job {lane + 1}" if lane else ""), self._job(slot, side, lane))
            for slot, lane in in_lanes(slots, lambda slot: self._jobs(slot, side))
        ]

    def _jobs(self, slot: Slot, side: _Side) -> int:
        profile = self._world.devices[slot.number]
        if profile.way == "tagged" or (profile.way == "iterable" and side == "save"):
            return profile.lanes
        return 1

    def _job(self, slot: Slot, side: _Side, lane: int) -> Steps:
        profile, first = self._world.devices[slot.number], self._following[slot.number]
        match profile.way, side:
            case "tagged", "save":
                return save_parts(slot, lane)
            case "tagged", "load":
                return load_parts(slot)
            case "described", "save":
                return save_described(slot, self._world.chunk)
            case "described", "load":
                return load_described(slot)
            case _, "save":
                return save_lane(slot, lane) if profile.lanes > 1 else save_state(slot, first)
        return load_state(slot, first)

    def _workers(self, side: _Side, count: int, jobs: Iterable[tuple[str, Steps]]) -> list[simpy.Process]:
        listed = list(jobs)
        self._waiting.update(name for name, _ in listed)
        shared = iter(listed)
        return [self._env.process(self._work(shared, side)) for _ in range(min(count, len(listed)))]

    def _work(self, jobs: Iterator[tuple[str, Steps]], side: _Side) -> _Process:
        """A worker: one job after the other."""
        for name, steps in jobs:
            yield from self._whole(name, steps, side)

    def _whole(self, name: str, steps: Steps, side: _Side) -> _Process:
        """A job, from its first effect to its last."""
        answer: object = None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration:
                break
            if self._world.step:
                yield from self._hold(self._python[side], self._world.step)
            answer = yield from self._perform(effect, side)
        self._waiting.discard(name)

    def _save_sections(self, slots: Sequence[Slot], after: Sequence[simpy.Process]) -> _Process:
        """The source's main thread."""
        yield self._env.all_of(after)
        yield from self._whole("save sections", save_sections(slots), "save")

    def _load_sections(self, slots: Sequence[Slot]) -> _Process:
        """The destination's main thread: each section as it comes."""
        names = {slot.number: f"load {slot.name}" for slot in slots}
        self._waiting.update(names.values())
        for _ in slots:
            slot, config = yield self._sections.get()
            yield from self._whole(names[slot.number], load_section(slot, config), "load")

    def _perform(self, effect: Effect[object], side: _Side) -> _Process:
        number = effect.slot.number
        profile = self._world.devices[number]
        match effect:
            case Turn() | AfterOthers():
                return (yield from self._ask(effect))
            case EndTurn() | EndLane() | SayLoaded():
                return self._handlers[type(effect)](effect)
            case Acquire():
                return _Piece(self._world.chunk)
            case ReadState(chunk=piece):
                return (yield from self._read(profile, piece, self._left, number))
            case IterateInto(chunk=piece):
                return (yield from self._read(profile, piece, self._left_live, number))
            case SavePart(chunk=piece):
                part = self._handlers[SavePart](effect)
                if part is not None:
                    yield from self._hold(self._for_reads(profile), self._cost(profile, profile.read))
                return part
            case Credit(index=index):
                while index >= self._granted[number]:
                    yield self._changed[number]
                return self._granted[number]
            case Send() | SendAhead() | SendPart() | SendSection():
                yield from self._send(effect)
            case NextChunk():
                while not self._arrivals[number].chunks.available:
                    yield self._changed[number]
                return self._arrivals[number].chunks.take()
            case NextPart():
                return (yield from self._next_part(effect))
            case EndParts(following=following):
                return self._end_parts(self._arrivals[number], following)
            case WriteState() | LoadPart():
                yield from self._hold(self._for_writes(profile), self._cost(profile, profile.write))
            case Loaded(last=last):
                self._held -= 1
                place = self._place[number]
                self._grant(self._windows.finished(place) if last else self._windows.loaded(place))
            case SaveConfig():
                yield from self._locked(effect, side, profile.save_config + profile.channel * self._world.channels)
                return effect.slot.device.save_config()
            case LoadConfig():
                yield from self._locked(effect, side, profile.load_config)
            case EndLiveTurn(index=index):
                self._following[number] = index
            case Release():
                pass
            case _:
                raise UsageError(f"the simulator does not know the wait {type(effect).__name__}")
        return None

    def _ask(self, effect: Turn | AfterOthers) -> _Process:
        """Ask the migration's own code until it answers; it calls when it is worth asking again."""
        caller = self._handlers.callers[type(effect)]
        while True:
            called = self._env.event()

            def ready(brought: object = None, /, *, called: simpy.Event = called) -> None:
                called.succeed(brought)

            answer = caller(effect, ready=ready, leave=False)
            if answer is None:
                answer = yield called
            if answer is not None:
                return answer

    def _read(self, profile: Profile, piece: Any, left: list[int], number: int) -> _Process:
        if not left[number]:
            piece.length = 0
            return 0
        left[number] -= 1
        last = left is self._left and not left[number]
        piece.length = last_of(profile, self._world.chunk) if last else self._world.chunk
        yield from self._hold(self._for_reads(profile), self._cost(profile, profile.read))
        return piece.length

    def _cost(self, profile: Profile, whole: float) -> float:
        return whole / max(1, chunks_of(profile, self._world.chunk))

    def _for_reads(self, profile: Profile) -> simpy.Resource | None:
        return self._read_lock if profile.shared in ("reads", "reads and writes") else None

    def _for_writes(self, profile: Profile) -> simpy.Resource | None:
        return self._write_lock if profile.shared in ("writes", "reads and writes") else None

    def _locked(self, effect: Locked[Any], side: _Side, seconds: float) -> _Process:
        number = effect.slot.number
        lock = {"big": self._big[side], "own": self._own[side][number], "none": None}[effect.lock]
        within = self._python[side] if self._world.devices[number].in_python else None
        yield from self._hold(lock, seconds, within)

    def _hold(self, resource: simpy.Resource | None, seconds: float, within: simpy.Resource | None = None) -> _Process:
        if resource is None:
            if within is not None:
                yield from self._hold(within, seconds)
            else:
                yield self._env.timeout(seconds)
            return
        with resource.request() as held:
            yield held
            yield from self._hold(None, seconds, within)

    def _send(self, effect: Send | SendAhead | SendPart | SendSection) -> _Process:
        slot = effect.slot
        if isinstance(effect, SendSection):
            with self._main.request() as main:
                yield main
                yield from self._cross(len(effect.config), self._world.channel_rate)
            self._sections.put((slot, effect.config))
            return
        piece = self._sent(effect)
        rate: float = yield self._channels.get()
        yield from self._cross(piece.length or len(piece.payload), rate)
        self._channels.put(rate)
        self._arrive(slot, piece)

    def _cross(self, size: int, rate: float) -> _Process:
        yield self._env.timeout(size / rate)
        yield from self._hold(self._link, size / self._world.link_rate)

    def _sent(self, effect: Send | SendAhead | SendPart) -> _Piece:
        """What is to arrive: nobody may change it any more, as the job changes its own."""
        size, index = self._world.chunk, effect.index
        if isinstance(effect, SendPart):
            return _Piece(size, bytes(effect.part), index=index, last=effect.last)
        if isinstance(effect.chunk, bytes):
            return _Piece(size, effect.chunk, index=index, last=True)
        return _Piece(size, index=index, length=effect.chunk.length)

    def _arrive(self, slot: Slot, piece: _Piece) -> None:
        number, place = slot.number, self._place[slot.number]
        arrivals, limit = self._arrivals[number], self._windows.limit(place)
        if self._world.devices[number].way == "tagged":
            arrivals.parts.put(piece.index, piece, piece.last, limit)
        else:
            arrivals.chunks.put(piece.index, piece, piece.last, limit)
            arrivals.note(piece.index)
        self._held += 1
        self._most_held = max(self._most_held, self._held)
        self._most_early = max(self._most_early, sum(len(one.early) for one in self._arrivals))
        self._wake([number])
        self._grant(self._windows.received(place))

    def _next_part(self, effect: NextPart) -> _Process:
        number = effect.slot.number
        arrivals = self._arrivals[number]
        while (piece := arrivals.parts.take()) is None:
            if arrivals.parts.exhausted:
                self._wake([number])
                return False
            yield self._changed[number]
        arrivals.takers.add(effect)
        effect.index = piece.index
        if arrivals.parts.exhausted:
            self._wake([number])
        return piece

    @staticmethod
    def _end_parts(arrivals: _Arrivals, following: NextPart) -> _Piece | None:
        arrivals.takers.discard(following)
        if arrivals.takers or arrivals.ended:
            return None
        arrivals.ended = True
        return arrivals.parts.config

    def _grant(self, grants: Sequence[Grant]) -> None:
        numbers = []
        for grant in grants:
            number = self._placed[grant.device]
            self._granted[number] = max(self._granted[number], grant.limit)
            numbers.append(number)
        self._wake(numbers)

    def _wake(self, devices: Iterable[int]) -> None:
        for number in devices:
            self._changed[number].succeed()
            self._changed[number] = self._env.event()
