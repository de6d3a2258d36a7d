"""The explorer for machines of every kind of device: with tags, described, with several jobs, and plain ones.

As in ``explorer.py``, nothing has a thread and a chooser picks who goes on. The jobs are the real ones, and so is all
that they say to each other: turns and tags (``Lanes``), chunks and credits (``ChunkQueues``, ``Windows``), the order of
loading (``LoadOrder``), configs that are kept. Who must wait is called back, as by a threading model without a thread
to spare.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from migpool.core.buffers import Chunk
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import (
    Acquire,
    AfterOthers,
    Credit,
    Effect,
    EndLane,
    EndParts,
    EndTurn,
    KeepConfig,
    LoadConfig,
    Loaded,
    LoadPart,
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
    Steps,
    TakeConfig,
    Turn,
    WriteState,
)
from migpool.core.handlers import Caller, Handlers
from migpool.core.jobs import (
    load_config,
    load_described,
    load_parts,
    load_state,
    save_described,
    save_lane,
    save_parts,
    save_state,
)
from migpool.core.machine import Machine, NamedDevice, Slot
from migpool.device import Device, Part, TaggedDevice
from migpool.flow.window import Grant, Windows
from migpool.migration.chunk_queue import ChunkQueues
from migpool.migration.kept_configs import KeptConfigs
from migpool.migration.lanes import Lanes
from migpool.migration.load_order import LoadOrder
from tests.support.explorer import Chooser, DeadlockError

SIZE = 8
VERSION_SIZE = 4


@dataclass(frozen=True)
class Kind:
    """One device of a world.

    Arguments:
        name: "plain", "tagged" or "described".
        chunks: of state, or, of one that is described, of its version and config: 1 at least.
        jobs: how many save it at once; of one with tags, how many load it, too.
        after: the numbers of the devices that must be loaded before it.
    """

    name: str
    chunks: int
    jobs: int = 1
    after: Sequence[int] = ()


class _Tagged(TaggedDevice):
    def __init__(self, number: int, kind: Kind) -> None:
        self.idstr = f"device-{number}"
        self.engines = kind.jobs
        self.tags = list(range(100, 100 + kind.chunks))

    def save_part(self, buffer: memoryview) -> Part | None:
        del buffer
        return Part(self.tags.pop(), 1) if self.tags else None

    def load_part(self, tag: int, data: memoryview) -> None:
        raise AssertionError((tag, data))

    def save_config(self) -> bytes:
        return b""

    def load_config(self, data: bytes) -> None:
        del data


def _device(number: int, kind: Kind) -> Device:
    if kind.name == "tagged":
        return _Tagged(number, kind)
    device = NamedDevice(number)
    device.iterable = kind.name == "plain"
    device.after = tuple(f"device-{other}" for other in kind.after)
    return device


@dataclass
class _Piece:
    """A chunk without memory."""

    index: int = -1
    last: bool = False
    payload: bytes = b"."
    length: int = 1
    size: int = SIZE
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(SIZE)))


class _Actor:
    """A job, and whether it waits to be called back."""

    def __init__(self, slot: Slot, steps: Steps) -> None:
        self.slot = slot
        self.waits = self.done = False
        self.effect: Effect[object] | None = None
        self._steps = steps

    def answer(self, value: object) -> None:
        try:
            self.effect = self._steps.send(value)
        except StopIteration:
            self.effect, self.done = None, True

    def ask(self, handlers: Handlers) -> None:
        """Ask for what another one brings; it comes now, or the callback brings it, or says to ask again."""

        def ready(*answer: object) -> None:
            self.waits = False
            if answer:
                self.answer(answer[0])

        assert self.effect is not None
        self.waits = True
        answer = handlers.callers[type(self.effect)](self.effect, cast("Any", ready), leave=False)
        if answer is not None:
            self.waits = False
            self.answer(answer)


class MixedWorld:
    """A small migration.

    Arguments:
        kinds: the devices, those that are described behind the others.
        rooms: the budget at the destination, in chunks.
        channels: how many packets can be under way at once, each overtaking any other.
        savers, loaders: how many save jobs, and load jobs, may run at once, taken up in order.
        hold: whether the configs of iterable devices are loaded only when all of them have their state.

    Attributes:
        loaded: by device, the indices or tags of what was loaded, in order.
        configured: the devices whose config was loaded, in order.
    """

    def __init__(
        self, kinds: Sequence[Kind], rooms: int, channels: int, savers: int, loaders: int, *, hold: bool = False
    ) -> None:
        self.kinds, self.rooms, self.channels = kinds, rooms, channels
        self.savers, self.loaders, self.hold = savers, loaders, hold
        self.machine = machine = Machine("explored", [_device(number, kind) for number, kind in enumerate(kinds)])
        jobs = machine.crossing("multifd").jobs
        described = [slot for slot in jobs if not slot.device.iterable]
        self.loaded: list[list[int]] = [[] for _ in kinds]
        self.configured: list[int] = []
        self.held = self.most_held = 0
        self._under_way: dict[int, tuple[Slot, _Piece]] = {}
        self._heard = dict.fromkeys(range(len(kinds)), 0)
        self._grants: deque[tuple[int, int]] = deque()
        self._places = [slot.number for slot in (*machine.iterable, *described)]
        switch, self._handlers = CancelSwitch(), Handlers()
        self._lanes = Lanes(self._places, switch)
        self._lanes.handle(self._handlers)
        self.load_order = LoadOrder(switch)
        self.load_order.handle(self._handlers)
        self.queues = ChunkQueues(
            (*machine.iterable, *described), self._grant, switch, lambda _: self._give_back(), SIZE
        )
        self._handlers.on_call(NextChunk, self.queues.take_or_call)
        part_or_call: Caller[NextPart, Chunk | bool] = self.queues.part_or_call
        self._handlers.on_call(NextPart, part_or_call)
        self._kept = KeptConfigs(switch, machine.iterable, self._submit_configs)
        self.windows = Windows(len(machine.iterable), rooms, described=len(described))
        self.queues.use_credits(self.windows)
        order = range(max(kind.jobs for kind in kinds))
        self._saves = [
            _Actor(slot, self._saving(slot, lane)) for lane in order for slot in jobs if self._has(slot, lane)
        ]
        self._loads = [
            _Actor(slot, self._loading(slot))
            for lane in order
            for slot in jobs
            if not lane or (self._has(slot, lane) and kinds[slot.number].name == "tagged")
        ]

    def _has(self, slot: Slot, lane: int) -> bool:
        return lane < self.kinds[slot.number].jobs

    def _saving(self, slot: Slot, lane: int) -> Steps:
        match self.kinds[slot.number]:
            case Kind("tagged"):
                return save_parts(slot, lane)
            case Kind("described"):
                return save_described(slot, SIZE)
            case Kind(jobs=1):
                return save_state(slot)
        return save_lane(slot, lane)

    def _loading(self, slot: Slot) -> Steps:
        match self.kinds[slot.number].name:
            case "tagged":
                return load_parts(slot, keep=self.hold)
            case "described":
                return load_described(slot)
        return load_state(slot, keep=self.hold)

    # ------------------------------------------------------------------ what can happen next

    def run(self, choose: Chooser) -> None:
        while moves := list(self._moves()):
            moves[choose(len(moves))]()
            assert self.held <= self.rooms, f"{self.held} chunks are held in {self.rooms} rooms"
            assert self.windows.granted <= self.rooms
            self.most_held = max(self.most_held, self.held)
        if waiting := [f"{job.slot.name}: {job.effect}" for job in (*self._saves, *self._loads) if not job.done]:
            raise DeadlockError("; ".join(waiting))

    def _moves(self) -> Iterator[Callable[[], None]]:
        if self._grants:
            yield self._hear
        for channel in self._under_way:
            yield partial(self._arrive, channel)
        for job in _running(self._saves, self.savers):
            if self._can_save(job):
                yield partial(self._save, job)
        for job in _running(self._loads, self.loaders):
            if not job.waits:
                yield partial(self._load, job)

    def _can_save(self, job: _Actor) -> bool:
        if isinstance(job.effect, Credit):
            return job.effect.index < self._heard[job.slot.number]
        if isinstance(job.effect, Send | SendAhead | SendConfig | SendPart):
            return len(self._under_way) < self.channels
        return not job.waits

    def _save(self, job: _Actor) -> None:
        number, effect = job.slot.number, job.effect
        match effect:
            case None:
                job.answer(None)
            case Acquire():
                job.answer(_Piece())
            case ReadState(index=index):
                job.answer(int(index < self.kinds[number].chunks))
            case Turn():
                job.ask(self._handlers)
            case SavePart() | EndTurn() | EndLane():
                job.answer(self._handlers[type(effect)](effect))
            case Send(index=index) | SendAhead(index=index):
                self._send(job, _Piece(index))
            case SendConfig(index=index):
                self._send(job, _Piece(index, True))
            case SendPart(index=index, part=part, last=last):
                self._send(job, _Piece(index, last, bytes(part)))
            case SaveConfig():
                described = self.kinds[number].name == "described"
                job.answer(bytes(self.kinds[number].chunks * SIZE - VERSION_SIZE) if described else b"")
            case Credit():
                job.answer(self._heard[number])
            case Release():
                job.answer(None)
            case other:
                raise AssertionError(other)

    # ------------------------------------------------------------------ between

    def _send(self, job: _Actor, piece: _Piece) -> None:
        free = next(channel for channel in range(self.channels) if channel not in self._under_way)
        self._under_way[free] = (job.slot, piece)
        job.answer(None)

    def _grant(self, grant: Grant) -> None:
        self._grants.append((self._places[grant.device], grant.limit))

    def _hear(self) -> None:
        number, limit = self._grants.popleft()
        self._heard[number] = max(self._heard[number], limit)

    def _arrive(self, channel: int) -> None:
        slot, piece = self._under_way.pop(channel)
        self.held += 1
        self.queues.deliver(self.queues.by_slot[slot.number], cast("Chunk", piece))

    def _give_back(self) -> None:
        self.held -= 1

    # ------------------------------------------------------------------ the destination

    def _submit_configs(self) -> None:
        self._loads += [_Actor(slot, load_config(slot)) for slot in self.machine.iterable]

    def _load(self, job: _Actor) -> None:
        number, effect = job.slot.number, job.effect
        match effect:
            case None:
                job.answer(None)
            case NextChunk() | NextPart() | AfterOthers():
                job.ask(self._handlers)
            case WriteState(index=index) | LoadPart(index=index):
                self.loaded[number].append(index)
                job.answer(None)
            case Loaded():
                if self.kinds[number].name == "described":
                    self.loaded[number].append(effect.index)
                self.queues.loaded(effect)
                job.answer(None)
            case EndParts():
                job.answer(self.queues.end_parts(effect))
            case KeepConfig():
                self._kept.keep(effect)
                job.answer(None)
            case TakeConfig():
                job.answer(self._kept.take(effect))  # there already, or it would wait for ever
            case LoadConfig():
                state = self.kinds[number].chunks
                assert len(self.loaded[number]) == state, "a config before the device's own state"
                assert set(self.kinds[number].after) <= set(self.configured), "a config before one that it waits for"
                self.configured.append(number)
                job.answer(None)
            case SayLoaded():
                job.answer(self._handlers[SayLoaded](effect))
            case other:
                raise AssertionError(other)

    def check(self) -> None:
        """All is loaded, once, and in order where there is one."""
        assert sorted(self.configured) == list(range(len(self.kinds)))
        for kind, loaded in zip(self.kinds, self.loaded, strict=True):
            if kind.name == "tagged":
                assert sorted(loaded) == list(range(100, 100 + kind.chunks))
            else:
                assert loaded == list(range(kind.chunks))


def _running(jobs: list[_Actor], workers: int) -> list[_Actor]:
    return list(itertools.islice((job for job in jobs if not job.done), workers))
