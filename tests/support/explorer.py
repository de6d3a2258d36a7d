"""An interpreter for tests: it runs the real jobs against the real windows, effect by effect, in an order of choice.

There are no threads here. A migration is a set of actors (save jobs, channels, load jobs), each of which can do its
next step or cannot yet; a chooser picks one of those that can. So every order of a small migration can be run, or as
many seeded random ones as there is time for; an order in which nobody can go on before all is done is a deadlock.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import (
    Acquire,
    Credit,
    Effect,
    KeepConfig,
    LoadConfig,
    Loaded,
    NextChunk,
    ReadState,
    Release,
    SaveConfig,
    Send,
    SendConfig,
    Steps,
    TakeConfig,
    WriteState,
)
from migpool.core.jobs import load_config, load_state, save_state
from migpool.core.machine import Machine, NamedDevice, Slot
from migpool.flow.window import Grant, Reassembly, Windows
from migpool.migration.kept_configs import KeptConfigs

Chooser = Callable[[int], int]
"""Given how many actors can go on, picks one of them."""


class DeadlockError(AssertionError):
    """Nobody can go on, and not everything is done."""


@dataclass
class Piece:
    """A chunk without memory."""

    index: int = -1
    last: bool = False
    payload: bytes = b""


@dataclass
class Packet:
    slot: Slot
    index: int
    last: bool


@dataclass
class JobActor:
    slot: Slot
    steps: Steps
    effect: Effect[object] | None = None
    done: bool = False

    def begin(self) -> None:
        self.effect = self.steps.send(None)

    def answer(self, value: object) -> None:
        try:
            self.effect = self.steps.send(value)
        except StopIteration:
            self.effect, self.done = None, True


@dataclass
class World:
    """A small migration.

    Arguments:
        chunks: how many chunks of state each device has.
        rooms: the budget at the destination, in chunks.
        channels: how many packets can be under way at once, each overtaking any other.
        savers: how many save jobs may run at once, taken up in the devices' order.
        loaders: likewise for load jobs.
        hold: whether the configs are loaded only when every device has all its state.
    """

    chunks: Sequence[int]
    rooms: int
    channels: int
    savers: int
    loaders: int
    hold: bool = False
    under_way: dict[int, Packet] = field(default_factory=dict)
    loaded: list[list[int]] = field(default_factory=list)
    most_held: int = 0

    def __post_init__(self) -> None:
        machine = Machine("explored", [NamedDevice(number) for number in range(len(self.chunks))])
        self.saves = [JobActor(slot, save_state(slot)) for slot in machine]
        self.loads = [JobActor(slot, load_state(slot, keep=self.hold)) for slot in machine]
        self.kept_configs = KeptConfigs(CancelSwitch(), machine, self._submit_configs)
        self.configured: list[int] = []
        self.windows = Windows(len(self.chunks), self.rooms)
        self.inboxes: list[Reassembly[Piece]] = [Reassembly() for _ in self.chunks]
        # The source hears of a grant at once or much later: what it has heard is a step of its own.
        self.heard = [0] * len(self.chunks)
        self.grants: deque[tuple[int, int]] = deque((grant.device, grant.limit) for grant in self.windows.opening())
        self.loaded = [[] for _ in self.chunks]
        self.held = 0

    # ------------------------------------------------------------------ what can happen next

    def moves(self) -> Iterator[Callable[[], None]]:
        if self.grants:
            yield self._hear
        for channel in self.under_way:
            yield partial(self._arrive, channel)
        for job in self._running(self.saves, self.savers):
            if self._can_save(job):
                yield partial(self._save, job)
        for job in self._running(self.loads, self.loaders):
            if self._can_load(job):
                yield partial(self._load, job)

    def run(self, choose: Chooser) -> None:
        while moves := list(self.moves()):
            moves[choose(len(moves))]()
            assert self.held <= self.rooms, f"{self.held} chunks are held in {self.rooms} rooms"
            assert self.windows.granted <= self.rooms
            self.most_held = max(self.most_held, self.held)
        waiting = [f"{job.slot.name}: {job.effect}" for job in (*self.saves, *self.loads) if not job.done]
        if waiting:
            raise DeadlockError("; ".join(waiting))

    @staticmethod
    def _running(jobs: list[JobActor], workers: int) -> list[JobActor]:
        return list(itertools.islice((job for job in jobs if not job.done), workers))

    # ------------------------------------------------------------------ the source

    def _can_save(self, job: JobActor) -> bool:
        effect = job.effect
        if isinstance(effect, Credit):
            return effect.index < self.heard[job.slot.number]
        if isinstance(effect, Send | SendConfig):
            return len(self.under_way) < self.channels
        return True

    def _save(self, job: JobActor) -> None:
        number = job.slot.number
        match job.effect:
            case None:
                job.begin()
            case Acquire():
                job.answer(Piece())
            case ReadState(index=index):
                job.answer(int(index < self.chunks[number]))
            case Send(index=index) | SendConfig(index=index):
                free = next(channel for channel in range(self.channels) if channel not in self.under_way)
                self.under_way[free] = Packet(job.slot, index, isinstance(job.effect, SendConfig))
                job.answer(None)
            case SaveConfig():
                job.answer(b"")
            case Credit():
                job.answer(self.heard[number])
            case Release():
                job.answer(None)
            case other:
                raise AssertionError(other)

    # ------------------------------------------------------------------ between

    def _hear(self) -> None:
        device, limit = self.grants.popleft()
        self.heard[device] = max(self.heard[device], limit)

    def _arrive(self, channel: int) -> None:
        packet = self.under_way.pop(channel)
        number = packet.slot.number
        chunk = Piece(packet.index, packet.last)
        self.inboxes[number].put(packet.index, chunk, packet.last, self.windows.limit(number))
        self.held += 1
        self._grant(self.windows.received(number))

    def _grant(self, grants: Sequence[Grant]) -> None:
        self.grants.extend((grant.device, grant.limit) for grant in grants)

    # ------------------------------------------------------------------ the destination

    def _submit_configs(self) -> None:
        self.loads += [JobActor(job.slot, load_config(job.slot)) for job in list(self.loads)]

    def _can_load(self, job: JobActor) -> bool:
        return not isinstance(job.effect, NextChunk) or self.inboxes[job.slot.number].available

    def _load(self, job: JobActor) -> None:
        number = job.slot.number
        match job.effect:
            case None:
                job.begin()
            case NextChunk():
                job.answer(self.inboxes[number].take())
            case WriteState(index=index):
                self.loaded[number].append(index)
                job.answer(None)
            case Loaded(last=last):
                self.held -= 1
                self._grant(self.windows.finished(number) if last else self.windows.loaded(number))
                job.answer(None)
            case KeepConfig() as effect:
                self.kept_configs.keep(effect)
                job.answer(None)
            case TakeConfig() as effect:
                job.answer(self.kept_configs.take(effect))  # there already, or it would wait for ever
            case LoadConfig():
                if self.hold:
                    assert [len(one) for one in self.loaded] == list(self.chunks), "a config before a device's state"
                self.configured.append(number)
                job.answer(None)
            case other:
                raise AssertionError(other)


class EveryOrder:
    """Chooses so that, run after run, every order of a world is seen exactly once."""

    def __init__(self) -> None:
        self._path: list[list[int]] = []
        self._depth = 0

    def __call__(self, choices: int) -> int:
        if self._depth == len(self._path):
            self._path.append([0, choices])
        taken = self._path[self._depth][0]
        self._depth += 1
        return taken

    def another(self) -> bool:
        """Turn to the next order; returns whether there is one."""
        self._depth = 0
        while self._path and self._path[-1][0] + 1 == self._path[-1][1]:
            self._path.pop()
        if not self._path:
            return False
        self._path[-1][0] += 1
        return True
