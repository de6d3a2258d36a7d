"""Interprets the jobs in virtual time.

Each job is a SimPy process that waits out its effects: a delay, a resource that others hold, an event of another job.
Threads are such a resource: how many there are, and what they are kept for, the threading model itself says
(``Scheduler.staffing``). What TCP makes of a link is in ``migpool/sim/tcp.py``. Whose turn it is at a device, which
devices have been loaded, what has come and how much room there is, is decided by the migration's own code
(``migpool/migration/lanes.py``, ``migpool/migration/load_order.py``, ``migpool/flow/``). Not simulated are pages of
memory, and processors that are fewer than the threads that compute.

Guarantees:

1. The same world gives the same times, on every machine: there is no chance in it, and no clock.
2. A simulation in which nobody can go on raises an error that names the jobs, as a deadlock of the
   real ones would show.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import (
    READS,
    SENDS,
    WRITES,
    Acquire,
    AfterOthers,
    Credit,
    Effect,
    EndLane,
    EndLiveTurn,
    EndParts,
    EndTurn,
    IterateInto,
    KeepConfig,
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
    SendConfig,
    SendPart,
    SendSection,
    Steps,
    TakeConfig,
    Turn,
    WriteState,
)
from migpool.core.handlers import Handlers
from migpool.core.jobs import (
    load_config,
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
from migpool.migration.kept_configs import KeptConfigs
from migpool.migration.lanes import Lanes
from migpool.migration.load_order import LoadOrder
from migpool.sim.tcp import Channel
from migpool.sim.world import Profile, World, chunk_of, machine_of

try:
    import simpy
    from simpy.resources.resource import Request
except ImportError:
    raise UsageError("the simulator needs SimPy: pip install 'migpool[sim]'") from None
else:
    from migpool.sim.arrivals import Arrivals, Piece
    from migpool.sim.devices import DeviceTimes
    from migpool.sim.link import Link
    from migpool.sim.processors import Process, Processors, Side, crew

__all__ = ["Profile", "Simulated", "World", "downtime", "simulate"]

_KEPT_APART = (*READS, *SENDS, *WRITES)
"""For what a thread is kept under a model that keeps none for a whole job."""


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
    return Migration(world).run()


@dataclass(frozen=True, slots=True)
class Common:
    """What migrations that go on at the same time have in common.

    Arguments:
        env: their time.
        link: theirs; whoever holds it sends.
        crew: threads that save, for all of them; without them each has its own.
    """

    env: simpy.Environment
    link: simpy.Resource
    crew: simpy.Resource | None = None


class Migration:
    """One migration in virtual time. ``common``: what it has in common with others; ``None`` for one that is alone."""

    def __init__(self, world: World, common: Common | None = None) -> None:
        self._world = world
        self._env = env = common.env if common else simpy.Environment()
        self._machine = machine_of(world)
        self._crossing = self._machine.crossing("main-channel")
        slots = self._machine.slots
        self._processors = processors = Processors(env, world)
        self._devices = DeviceTimes(env, world, processors)
        # What a process has once: the big lock, Python, and a lock for each device.
        self._big = {"save": simpy.Resource(env), "load": simpy.Resource(env)}
        self._python = {"save": simpy.Resource(env), "load": simpy.Resource(env)}
        self._own = {side: [simpy.Resource(env) for _ in slots] for side in ("save", "load")}
        saving = (common and common.crew) or crew(env, world.savers)
        self._crews = {"save": saving, "load": crew(env, world.loaders)}
        self._takings = {"save": world.save_taking, "load": world.load_taking}
        self._following = [0 for _ in slots]
        self._sections: simpy.Store = simpy.Store(env)
        self._waiting: set[str] = set()
        self._configs = 0  # that have been loaded, or are about to be
        self._over = env.event()
        self._submitting = 0
        self._ended = 0.0
        self._handlers = Handlers()
        switch = CancelSwitch()
        self._lanes = Lanes([slot.number for slot in slots], switch)
        self._lanes.handle(self._handlers)
        LoadOrder(switch).handle(self._handlers)
        KeptConfigs(switch, self._machine.iterable, self._load_kept).handle(self._handlers)
        self._link = Link(env, world, common.link if common else None, processors.copy)
        described = self._crossing.described
        self._arrivals = Arrivals(env, world, self._machine.iterable, described, self._link.later)

    def run(self) -> Simulated:
        world = self._world
        for _ in range(world.rounds):
            self._round()
        live = float(self._env.now)
        stops = self._switch_over()
        self._run_out()
        return Simulated(world.base + stops + self._ended - live, live, self._arrivals.most, self._arrivals.most_early)

    def within(self) -> Process:
        """The same without rounds, as a process of the common time; returns the downtime in seconds."""
        began = float(self._env.now)
        yield self._env.timeout(self._world.base + sum(profile.stop for profile in self._world.devices))
        self._switch_over()
        yield self._over
        return self._ended - began

    def _switch_over(self) -> float:
        """Begin the jobs of both ends, the devices being stopped; returns how long their stops took."""
        self._lanes.begin_at(dict(enumerate(self._following)))
        stops = sum(profile.stop for profile in self._world.devices)
        # A device that reads ahead begins as soon as it has been stopped, before the others have.
        begin = float(self._env.now) - stops
        for number, profile in enumerate(self._world.devices):
            begin += profile.stop
            self._devices.stop(number, begin)
        jobs, sections = self._crossing.jobs, self._crossing.sections
        self._begin("save", self._submitted(jobs, "save"), self._save_sections(sections))
        self._begin("load", self._submitted(jobs, "load"), self._load_sections(sections))
        return stops

    def _round(self) -> None:
        alive = [slot for slot in self._machine.iterable if self._world.devices[slot.number].live]
        saves, loads = [], []
        for slot in alive:
            first, wanted = self._following[slot.number], self._world.devices[slot.number].live
            self._devices.run(slot.number, wanted)
            saves.append((f"save live {slot.name}", save_live(slot, first, wanted)))
            loads.append((f"load live {slot.name}", load_live(slot, first)))
        self._begin("save", saves)
        self._begin("load", loads)
        self._run_out()

    def _run_out(self) -> None:
        self._env.run()
        if self._waiting:
            raise MigpoolError(f"the simulated jobs wait for each other: {', '.join(sorted(self._waiting))}")

    def _submitted(self, slots: Sequence[Slot], side: Side) -> list[tuple[str, Steps]]:
        """The jobs in the order in which both ends submit them."""
        return [
            (f"{side} {slot.name}" + (f", job {lane + 1}" if lane else ""), self._job(slot, side, lane))
            for slot, lane in in_lanes(slots, lambda slot: self._jobs(slot, side))
        ]

    def _jobs(self, slot: Slot, side: Side) -> int:
        profile = self._world.devices[slot.number]
        if profile.way == "tagged" or (profile.way == "iterable" and side == "save"):
            return profile.lanes
        return 1

    def _job(self, slot: Slot, side: Side, lane: int) -> Steps:
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
        return load_state(slot, first, keep=self._world.config_load == "after-iterables")

    def _begin(self, side: Side, jobs: Iterable[tuple[str, Steps]], then: Process | None = None) -> None:
        """Have one end's migration thread submit its jobs, and do ``then`` what is its own."""
        listed = list(jobs)
        self._waiting.update(name for name, _ in listed)
        self._submitting += 1
        self._env.process(self._submit(listed, side, then))

    def _submit(self, jobs: Iterable[tuple[str, Steps]], side: Side, then: Process | None) -> Process:
        crew, taking = self._crews[side], self._takings[side]
        for name, steps in jobs:
            if taking == "run":
                yield from self._whole(name, steps, side)
            elif taking == "apart":
                self._env.process(self._whole(name, steps, side, crew))
            elif taking == "receive":
                self._env.process(self._whole(name, steps, side))
            elif crew is not None:
                free = crew.request()
                if taking == "block":
                    yield free
                self._env.process(self._staffed(free, crew, name, steps, side))
        if then is not None:
            yield from then
        self._submitting -= 1
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        if not self._waiting and not self._submitting and not self._over.triggered:
            self._over.succeed()

    def _staffed(self, free: Request, crew: simpy.Resource, name: str, steps: Steps, side: Side) -> Process:
        """A job on a thread, once one is free."""
        yield free
        yield from self._whole(name, steps, side)
        crew.release(free)

    def _load_kept(self) -> None:
        self._begin("load", [(f"load config of {slot.name}", load_config(slot)) for slot in self._machine.iterable])

    def _whole(self, name: str, steps: Steps, side: Side, apart: simpy.Resource | None = None) -> Process:
        """A job, from its first effect to its last; ``apart``: threads that it has for single effects alone."""
        answer: object = None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration:
                break
            if self._world.step:
                with self._python[side].request() as interpreter:
                    yield interpreter
                    yield from self._processors.copy(self._world.step)
            if apart is not None and isinstance(effect, _KEPT_APART):
                with apart.request() as thread:
                    yield thread
                    answer = yield from self._perform(effect, side)
            else:
                answer = yield from self._perform(effect, side)
        self._waiting.discard(name)
        self._ended = max(self._ended, float(self._env.now))
        self._look_for_the_end()

    def _save_sections(self, slots: Sequence[Slot]) -> Process:
        """The source's migration thread, when it has submitted the jobs."""
        self._waiting.add("save sections")
        yield from self._whole("save sections", save_sections(slots), "save")

    def _load_sections(self, slots: Sequence[Slot]) -> Process:
        """The destination's main thread: each section as it comes."""
        names = {slot.number: f"load {slot.name}" for slot in slots}
        self._waiting.update(names.values())
        for _ in slots:
            slot, config = yield self._sections.get()
            yield from self._whole(names[slot.number], load_section(slot, config), "load")

    def _perform(self, effect: Effect[object], side: Side) -> Process:
        number = effect.slot.number
        profile = self._world.devices[number]
        match effect:
            case Turn() | AfterOthers():
                return (yield from self._ask(effect))
            case EndTurn() | EndLane() | SayLoaded() | KeepConfig() | TakeConfig():
                return self._handlers[type(effect)](effect)
            case Acquire():
                return Piece(chunk_of(profile, self._world.chunk))
            case ReadState(chunk=piece):
                return (yield from self._devices.read(number, piece))
            case IterateInto(chunk=piece):
                return (yield from self._devices.read_live(number, piece))
            case SavePart(chunk=piece):
                part = self._handlers[SavePart](effect)
                if part is not None:
                    yield from self._devices.read_part(number)
                return part
            case Credit(index=index):
                return (yield from self._processors.woken(self._arrivals.credit(number, index)))
            case Send() | SendAhead() | SendConfig() | SendPart() | SendSection():
                yield from self._send(effect)
            case NextChunk():
                following = self._arrivals.next_chunk(number)
                # A receiver that brings the chunk is awake.
                brought = self._arrivals.is_for_receivers(number)
                return (yield from following if brought else self._processors.woken(following))
            case NextPart():
                return (yield from self._arrivals.next_part(effect))
            case EndParts(following=following):
                return self._arrivals.end_parts(number, following)
            case WriteState(chunk=piece) | LoadPart(chunk=piece):
                yield from self._devices.write(number, piece.length or piece.size, side)
            case Loaded(last=last):
                self._arrivals.loaded(number, last=last)
            case SaveConfig():
                yield from self._locked(effect, side, profile.save_config + profile.channel * self._world.channels)
                return effect.slot.device.save_config()
            case LoadConfig():
                self._arrivals.leave(number)
                before, self._configs = self._configs, self._configs + 1
                yield from self._locked(effect, side, profile.load_config + before * profile.load_growth)
            case EndLiveTurn(index=index):
                self._following[number] = index
            case Release():
                pass
            case _:
                raise UsageError(f"the simulator does not know the wait {type(effect).__name__}")
        return None

    def _ask(self, effect: Turn | AfterOthers) -> Process:
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

    def _locked(self, effect: Locked[Any], side: Side, seconds: float) -> Process:
        number = effect.slot.number
        lock = {"big": self._big[side], "own": self._own[side][number], "none": None}[effect.lock]
        within = self._python[side] if self._world.devices[number].in_python else None
        yield from self._processors.hold(lock, seconds, within, side)

    def _send(self, effect: Send | SendAhead | SendConfig | SendPart | SendSection) -> Process:
        slot = effect.slot
        if isinstance(effect, SendSection):
            yield from self._link.send_on_main(len(effect.config))
            self._link.later(lambda: self._sections.put((slot, effect.config)), len(effect.config))
            return
        piece = self._sent(effect)
        size = piece.length or len(piece.payload)
        channel: Channel = yield self._link.idle()
        if not self._processors.scarce and not self._arrivals.is_for_receivers(slot.number):
            # Where there is a processor for everybody, who takes it out is no later than who puts it in.
            yield from self._link.send(size, channel)
            self._link.later(lambda: self._arrivals.arrive(slot.number, piece), size)
            return
        whole = self._env.event()
        self._arrivals.receive(slot.number, piece, channel, self._taken_out(size, channel), whole)
        yield from self._link.send(size, channel)
        self._link.later(whole.succeed, size)

    def _taken_out(self, size: int, channel: Channel) -> Process:
        """A receiver takes so many bytes out of a channel, while they are put into it."""
        if self._processors.scarce:
            yield from self._processors.copy(size / channel.rate, 1)

    def _sent(self, effect: Send | SendAhead | SendConfig | SendPart) -> Piece:
        """What is to arrive: nobody may change it any more, as the job changes its own."""
        size, index = self._world.chunk, effect.index
        if isinstance(effect, SendPart):
            return Piece(size, bytes(effect.part), index=index, last=effect.last)
        if isinstance(effect, SendConfig):
            return Piece(size, effect.config, index=index, last=True)
        return Piece(size, index=index, length=effect.chunk.length)
