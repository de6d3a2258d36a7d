"""How much shorter a QEMU's downtime would have been with something out of the way.

The pieces of all threads become the steps of a replay (``migpool/lab/analysis/whatif/plan.py``): work takes as long as
it took, a wait ends when what it was for has, and what was left of it then is left again. Played as they are they end
exactly when they did. Then once for each of these:

=============  ====================================================================================================
in parallel    devices of one kind, or all, are saved, or loaded, at once, from the moment at which it was their turn;
               at one side or at both
device         one device is there for nothing
step           the machine stops, or starts, at once; or nothing is left to do when the last device has been loaded
all like the   of devices of one kind that take longer the more of them are loaded before: each as long as the first
first
flat views     QEMU builds the flat views of memory once, after the last device, and not in each device's load
channel        nobody waits for one channel at the end of a round
big lock       a config's load waits for no other's
pre-copied     what was sent before the stop had been loaded by then
network        what is sent is there
tracing        the lines that the migration's own threads wrote to the log took no time
=============  ====================================================================================================

Limits: what the devices' loads need of each other, and the lock under which QEMU has them run, are left out of account:
"in parallel" says what it could be worth at most. The parts do not add up.

What the lines of the trace took stands in all times. So each is also played without them, which says what it is worth
at the least, had nobody looked.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from migpool.device import Side
from migpool.lab.analysis.whatif.plan import Step, Unplayable, play
from migpool.lab.qemu.actors import Actor, Piece
from migpool.lab.qemu.path import Threads
from migpool.lab.qemu.views import Views, once

SAVED = "save config"
LOADED = "load config"
OF_A_DEVICE = frozenset(
    {"device read", "device write", "send", "scan", "sync", SAVED, LOADED, "device stop", "quiesce"}
)
MOST_DEVICES = 6
GROWS = 1.3
"""How much longer than the first third of its kind the last third of devices must take to load to be said to grow."""
IN_ORDER = 0.75
"""The share of all pairs of them of which the later one must take longer: else one or two were held up by chance."""


@dataclass(frozen=True, slots=True)
class Without:
    """Something out of the way.

    Attributes:
        resource: as in the table above.
        side: empty for both.
        devices: those that it is about.
        kind: the kind of device, if they are all of one.
        shorter: nanoseconds.
        untraced: the same where the trace's own lines take no time.
    """

    resource: str
    side: Side | Literal[""]
    devices: tuple[str, ...] = ()
    kind: str = ""
    shorter: int = 0
    untraced: int = 0


@dataclass(frozen=True, slots=True)
class LinesWritten:
    """What a side's own thread wrote to its log.

    Attributes:
        times: when, in order, on the source's clock.
        each: nanoseconds that a line takes, at the least.
    """

    times: Sequence[int]
    each: int

    def count(self, begin: int, end: int) -> int:
        """How many lines were written between two moments."""
        return bisect_right(self.times, end) - bisect_right(self.times, begin)

    def took(self, begin: int, end: int) -> int:
        """What those took, in nanoseconds."""
        return self.each * self.count(begin, end)


@dataclass(frozen=True, slots=True)
class _Made:
    """A piece as a step.

    Attributes:
        before: the step before it on its thread, -1 for none.
        causes: those of other threads.
        delay: what is left of a wait when these have ended; of work, what lies before it.
        barrier: whether the thread goes on only when all devices of before have been dealt with.
        last: whether it comes right after that.
    """

    piece: Piece
    actor: Actor
    before: int
    causes: tuple[int, ...]
    delay: int
    work: int
    barrier: bool
    last: bool


def kind_of(device: str) -> str:
    """What devices of one kind have in common: the last part of their name ("0000:00:01.0/e1000e")."""
    return re.sub(r"#\d+$", "", device).rpartition("/")[2]


def _same(one: _Made) -> _Made:
    return one


def without(
    threads: Threads,
    begin: int,
    end: int,
    views: Mapping[str, Views] | None = None,
    lines: Mapping[Side, LinesWritten] | None = None,
) -> tuple[int, list[Without]]:
    """The downtime as the replay has it, and what would shorten it, the most first; times in nanoseconds.

    Arguments:
        views: the flat views that each device's load built, if that is known.
        lines: what the sides' own threads wrote to their logs, if that is known.
    """
    made = _steps(threads, begin, end)
    bare = [_untraced(one, threads, lines or {}) for one in made]

    def played(
        steps: Sequence[_Made], change: Callable[[_Made], _Made] = _same, beside: frozenset[int] = frozenset()
    ) -> int:
        return play(_playable([change(one) for one in steps], beside), {})[-1]

    try:
        whole = played(made)
        untraced = played(bare) if bare != made else whole
        found = [Without("tracing", "", shorter=max(0, whole - untraced))]
        for one, change, beside in _ways(made, views or {}):
            shorter = max(0, whole - played(made, change, beside))
            net = max(0, untraced - played(bare, change, beside)) if untraced < whole and shorter else shorter
            found.append(replace(one, shorter=shorter, untraced=net))
    except Unplayable:
        return 0, []
    return whole, sorted((one for one in found if one.shorter), key=lambda one: -one.shorter)


def _untraced(one: _Made, threads: Threads, lines: Mapping[Side, LinesWritten]) -> _Made:
    """A step without the lines that were written in it."""
    written = lines.get(one.actor.side)
    if written is None or one.actor not in threads.own or not one.work:
        return one
    return replace(one, work=max(0, one.work - written.took(one.piece.begin, one.piece.end)))


def _free(which: Callable[[_Made], bool]) -> Callable[[_Made], _Made]:
    """Without the time of some steps."""
    return lambda one: replace(one, work=0, delay=0) if which(one) else one


def _ways(
    made: Sequence[_Made], views: Mapping[str, Views]
) -> Iterator[tuple[Without, Callable[[_Made], _Made], frozenset[int]]]:
    turns: dict[Side, defaultdict[str, list[int]]] = {"source": defaultdict(list), "destination": defaultdict(list)}
    devices: defaultdict[str, int] = defaultdict(int)
    channels: set[int] = set()
    for number, one in enumerate(made):
        piece = one.piece
        if piece.device and piece.kind in OF_A_DEVICE:
            devices[piece.device] += one.work
        if piece.kind in (SAVED, LOADED) and piece.device and not one.actor.device:
            turns[one.actor.side][piece.device].append(number)
        if piece.kind == "sync" and piece.index >= 0:
            channels.add(piece.index)
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for device in dict.fromkeys([*turns["source"], *turns["destination"]]):
        kinds[kind_of(device)].append(device)
    groups = [(kind, group) for kind, group in kinds.items() if len(group) > 1]
    everything = [device for group in kinds.values() for device in group]
    sides: tuple[Side | Literal[""], ...] = ("source", "destination", "")
    for side in sides:
        here = [one for one in turns if side in ("", one)]
        for kind, group in [*groups, ("", everything)]:
            numbers = frozenset(number for one in here for device in group for number in turns[one].get(device, ()))
            if len(group) > 1 and numbers:
                yield Without("in parallel", side, tuple(group), kind), _same, numbers
    for device in sorted(devices, key=lambda name: -devices[name])[:MOST_DEVICES]:
        yield Without("device", "", (device,), kind_of(device)), _free(_is_of(device)), frozenset()
    for side, kind in sorted({(one.actor.side, one.piece.kind) for one in made if _is_step(one)}):
        yield Without("step", side, (), kind), _free(_is_of_step(side, kind)), frozenset()
    for kind, group in groups:
        if (first := _growing(group, turns["destination"], made)) is not None:
            yield Without("all like the first", "destination", tuple(group), kind), _at_most(group, first), frozenset()
    if views:
        yield Without("flat views", "destination", tuple(views)), _built_once(views, made), frozenset()
    for channel in sorted(channels):
        yield Without("channel", "source", (str(channel),)), _free(_waits_for(channel)), frozenset()
    yield Without("big lock", ""), _free(lambda one: one.piece.kind == "lock"), frozenset()
    yield Without("pre-copied", "destination"), _free(lambda one: one.piece.kind == "pre-copied"), frozenset()
    yield Without("network", ""), lambda one: replace(one, delay=0) if one.causes else one, frozenset()


def _is_of(device: str) -> Callable[[_Made], bool]:
    return lambda one: one.piece.device == device and one.piece.kind in OF_A_DEVICE


def _is_step(one: _Made) -> bool:
    """Whether it is the machine's, and no device's: its stop, its start, and what comes after the last load."""
    of_machine = one.piece.kind in ("device stop", "start") or (one.piece.kind == LOADED and one.last)
    return of_machine and not one.piece.device and not one.actor.device


def _is_of_step(side: Side, kind: str) -> Callable[[_Made], bool]:
    return lambda one: _is_step(one) and (one.actor.side, one.piece.kind) == (side, kind)


def _waits_for(channel: int) -> Callable[[_Made], bool]:
    return lambda one: one.piece.kind == "sync" and one.piece.index == channel and one.actor.side == "source"


def _growing(group: Sequence[str], loads: defaultdict[str, list[int]], made: Sequence[_Made]) -> int | None:
    """How long the first of some devices took to load, if they take longer and longer; ``None`` if they do not."""
    times = [sum(made[number].work for number in loads[device]) for device in group if loads.get(device)]
    third = len(times) // 3
    if not third or not times[0]:
        return None
    first, last = sum(times[:third]) / third, sum(times[-third:]) / third
    pairs = [sooner < later for sooner, later in combinations(times, 2)]
    return min(times[:third]) if last > GROWS * first and sum(pairs) >= IN_ORDER * len(pairs) else None


def _at_most(group: Sequence[str], first: int) -> Callable[[_Made], _Made]:
    wanted = frozenset(group)

    def change(one: _Made) -> _Made:
        if one.piece.kind == LOADED and one.actor.side == "destination" and one.piece.device in wanted:
            return replace(one, work=min(one.work, first))
        return one

    return change


def _built_once(views: Mapping[str, Views], made: Sequence[_Made]) -> Callable[[_Made], _Made]:
    """Loads without the time of their flat views, but for one rebuild, which the last of them does."""
    loads: defaultdict[str, int] = defaultdict(int)
    for one in made:
        if _loads(one):
            loads[one.piece.device] += one.work
    last = list(views)[-1]
    shorter = {device: one.took - (once(views) if device == last else 0) for device, one in views.items()}

    def change(one: _Made) -> _Made:
        if not _loads(one) or not (whole := loads[one.piece.device]):
            return one
        return replace(one, work=one.work - one.work * min(shorter.get(one.piece.device, 0), whole) // whole)

    return change


def _loads(one: _Made) -> bool:
    return one.piece.kind == LOADED and one.actor.side == "destination" and not one.actor.device


def _steps(threads: Threads, begin: int, end: int) -> list[_Made]:
    """The pieces of all threads, each cut where another thread waits for it."""
    barriers = threads.barriers()
    for _ in range(3):
        cuts: defaultdict[int, set[int]] = defaultdict(set)
        for own in threads.own:
            cuts[id(own)].add(barriers[own.side][0])
        for actor in threads.actors:
            awaited = [threads.start(actor)]
            for piece in actor.pieces:
                awaited += [threads.cause(actor, piece, piece.end), threads.needs(actor, piece)]
            for cause in awaited:
                if cause is not None:
                    cuts[id(cause.actor)].add(cause.time)
        for actor in threads.actors:
            actor.cut(cuts[id(actor)])
    first = {}
    total = 0
    for actor in threads.actors:
        first[id(actor)] = total
        total += len(actor.pieces)
    made: list[_Made] = []
    for actor in threads.actors:
        barrier, done = barriers[actor.side]
        for at, piece in enumerate(actor.pieces):
            before = len(made) - 1 if at else -1
            started = None if at else threads.start(actor)
            cause = started or threads.cause(actor, piece, piece.end)
            waits = cause is not None and started is None
            needed = [one for one in (cause, threads.needs(actor, piece)) if one is not None]
            places = [(first[id(one.actor)], one.actor.place(one.time)) for one in needed]
            causes = tuple(number + place for number, place in places if place >= 0)
            ended = piece.begin if at else begin
            if cause is not None:
                ended = max(ended, cause.time) if waits else min(cause.time, piece.begin)
            work = 0 if waits else piece.duration
            delay = max(0, (piece.end if waits else piece.begin) - ended)
            made.append(
                _Made(piece, actor, before, causes, delay, work, piece.begin == barrier, barrier <= piece.begin < done)
            )
    last = first[id(threads.last)] + len(threads.last.pieces) - 1
    made.append(_Made(Piece(end, end, "other"), threads.last, last, (), max(0, end - threads.last.end), 0, True, False))
    return made


def _playable(made: Sequence[_Made], beside: frozenset[int]) -> list[Step]:
    """The steps, some of them beside their threads: a thread waits for these at its next barrier only."""
    steps: list[Step] = []
    went: dict[int, int] = {}  # of a step that its thread does not wait for, the one that the thread comes from
    pending: defaultdict[int, list[int]] = defaultdict(list)
    for number, one in enumerate(made):
        before = one.before
        while before in went:
            before = went[before]
        step = Step(
            one.piece.kind, causes=[*([before] if before >= 0 else []), *one.causes], delay=one.delay, work=one.work
        )
        if number in beside:
            went[number] = before
            pending[id(one.actor)].append(number)
        elif one.barrier:
            step.causes += pending.pop(id(one.actor), [])
        steps.append(step)
    return steps
