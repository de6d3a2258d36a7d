"""How much shorter a downtime would have been with one resource out of the way.

The recorded steps are played again (``plan.py``): device work takes as long as it took, every wait is
computed anew. Once with everything as it was; what comes out stands beside the measured downtime and says how far the
replay can be trusted. Then once for each resource, with that one free:

=====================  ==============================================================================================
big lock               any number of configs at once, at one side or at both
shared by reads        the reads of devices that are read one after the other by what no span shows (``serial.py``) are
                       done side by side, each as long as its turn; the same for writes
slow device            the reads and writes of the one that takes by far the longest take as long as the next one's
workers                every job has a thread at once, at one side or at both
receiving threads      where the channels' threads load too: they do not keep a chunk in its socket, nor a job waiting
channels               a chunk never waits for an idle channel, nor, at the other end, behind others of its channel;
                       where there are as many threads as channels, as a pool has them, every job has one, too
link                   sending takes no time and chunks arrive at once
pre-copied             what was sent before the stop has been loaded by then
sections               of the devices that are saved and loaded one after the other as sections, all but the one that
                       takes longest take no time for their configs
memory budget          the destination always has room for chunks; pages go where they belong and never wait for room
CPU                    no thread has to compute or to be woken between two waits
processors             every thread has one: besides, a device's work takes no longer than it declares, and its sends no
                       longer than the quickest tenth of them took; what is gained is at the most the time in which some
                       thread of a host was ready and had none, by the kernel's account
=====================  ==============================================================================================

Limits: what is out of the way of one thing is out of the way at once and for nothing; the rest does not get slower for
it, as it may on a host whose processors are full: where devices take no time of their own and threads only copy,
more threads are promised more than they can give. Reads that a device does ahead while the last chunk is sent are as
long as they were seen to be, not as they would be if the device were asked sooner. Waits for credit are replayed with
the window that the device was seen to have. Who overtook whom at a channel is replayed as it was, until channels or the
link are free. Resources hide behind each other: the parts do not add up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from migpool.core.effects import Wait
from migpool.device import Side, StateCosts
from migpool.lab.analysis.page_jobs import with_page_jobs
from migpool.lab.analysis.whatif.jobsteps import JobSteps, page_steps
from migpool.lab.analysis.whatif.ownsteps import OwnSteps
from migpool.lab.analysis.whatif.plan import (
    CHANNELS,
    RECEIVER,
    THREAD,
    Plan,
    Step,
    Unplayable,
    lock_of,
    play,
    turns_of,
    workers_of,
)
from migpool.lab.analysis.whatif.recorded import Recorded, recorded
from migpool.lab.analysis.whatif.serial import InTurn, in_turn
from migpool.migration.report import SideReport

HOLDS = 0.04
"""How far from the downtime a replay with a lock that no span shows may be: one that is not there changes it."""
SLOW = 1.5
"""How many times as long as the next one's a device's work must be for it to count as slow."""


@dataclass(frozen=True, slots=True)
class Freed:
    """One resource out of the way.

    Attributes:
        resource: "big lock", "shared by reads", "shared by writes", "shared by reads and writes", "slow device",
            "workers", "receiving threads", "channels", "link", "memory budget", "pre-copied", "sections", "CPU" or
            "processors".
        side: "source" or "destination"; empty if it is both's.
        shorter: how much shorter the downtime is in the replay, in nanoseconds; never under 0.
        devices: those that share it, or the one that is slow.
        turn: for devices that take turns, how long one turn takes in nanoseconds; for a slow one, its work.
        wait: for devices that take turns, how long a thread waits for one; for a slow one, the next one's work; of
            processors, for how long there were too few.
    """

    resource: str
    side: Side | Literal[""]
    shorter: int
    devices: tuple[str, ...] = ()
    turn: int = 0
    wait: int = 0


@dataclass(frozen=True, slots=True)
class Replays:
    """All of them.

    Attributes:
        downtime: as measured, in nanoseconds.
        replayed: as the replay has it with everything as it was.
        freed: the resources, the one that shortens it most first.
    """

    downtime: int
    replayed: int
    freed: tuple[Freed, ...]


def replays(source: SideReport, destination: SideReport, costs: Sequence[StateCosts | None] = ()) -> Replays | None:
    """Play a completed migration again, once for each resource.

    Arguments:
        costs: what the devices declare, by slot; empty if none declares anything.

    Returns:
        ``None`` if it has no downtime, or its trace is not whole.
    """
    begin, end = source.stopped, destination.running
    if not source.stopped or not destination.running or end <= begin:
        return None
    source, destination = with_page_jobs(source, destination)
    ours = recorded(source, begin, end)
    theirs = recorded(destination, begin, end)
    reads, writes = _in_turn(ours, Wait.READ), _in_turn(theirs, Wait.WRITE)
    recording = _recording(ours, theirs, end - begin, reads, writes)
    if (reads or writes) and not _comes_to(recording, end - begin):
        reads = writes = None
        recording = _recording(ours, theirs, end - begin, None, None)
    names = [device.name for device in source.devices]
    ways = [*_ways(recording, names, reads, writes)]
    if short := too_few_processors(source, destination):
        quick = _quick(recording.steps, _declared(source, costs, ours.shared | theirs.shared))
        ways.append((Freed("processors", "", 0, wait=short), _changed(recording, quick)))
    try:
        whole = play(recording.steps, recording.places)[-1]
        freed = [replace(one, shorter=max(0, whole - play(changed.steps, changed.places)[-1])) for one, changed in ways]
    except Unplayable:
        return None
    freed = [replace(one, shorter=min(one.shorter, one.wait)) if one.resource == "processors" else one for one in freed]
    return Replays(end - begin, whole, tuple(sorted(freed, key=lambda one: -one.shorter)))


def too_few_processors(source: SideReport, destination: SideReport) -> int:
    """For how many nanoseconds of the downtime a host had too few processors, at the most; 0 if it is not known."""
    ours, theirs = source.processors_short or 0, destination.processors_short or 0
    return ours if source.clock == "monotonic" else ours + theirs


def _declared(
    source: SideReport, costs: Sequence[StateCosts | None], shared: frozenset[int]
) -> dict[tuple[str, int], int]:
    """What a device's stop, reads, writes and configs take, in nanoseconds, as it declares; by part and slot.

    Not of one that several jobs saved or loaded at once, nor of one of which a part moved before the stop: what is
    declared is then not the sum of what was recorded.
    """
    found: dict[tuple[str, int], int] = {}
    for slot, (device, one) in enumerate(zip(source.devices, costs, strict=False)):
        if one is not None and slot not in shared and not device.bytes_before_stop:
            parts = {
                "stop": one.stop,
                "read": one.read,
                "write": one.write,
                "config": one.save_config + one.load_config,
            }
            found |= {(part, slot): round(seconds * 1e9) for part, seconds in parts.items()}
    return found


def _quick(steps: list[Step], declared: Mapping[tuple[str, int], int]) -> Callable[[Step], Step]:
    """As if there were a processor for every thread."""
    took: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for step in steps:
        took[step.part, step.slot].append(step.work)
    factors = {key: min(1.0, whole / (sum(took[key]) or 1)) for key, whole in declared.items()}
    sends = {slot: sorted(works)[len(works) // 10] for (part, slot), works in took.items() if part == "send"}

    def change(step: Step) -> Step:
        work = round(step.work * factors.get((step.part, step.slot), 1.0))
        return replace(step, delay=0, work=min(work, sends[step.slot]) if step.part == "send" else work)

    return change


def _recording(ours: Recorded, theirs: Recorded, end: int, reads: InTurn | None, writes: InTurn | None) -> Recording:
    turns = {wait: {} if found is None else found.turns for wait, found in ((Wait.READ, reads), (Wait.WRITE, writes))}
    return recording_of(ours, theirs, end, turns)


def _comes_to(recording: Recording, downtime: int) -> bool:
    """Whether devices that take turns as they seem to come to the downtime that was measured: else they do not."""
    try:
        return abs(play(recording.steps, recording.places)[-1] - downtime) <= HOLDS * downtime
    except Unplayable:
        return False


def _in_turn(side: Recorded, wait: Wait) -> InTurn | None:
    return in_turn([span for job in side.jobs.values() for span in job.spans if span.wait is wait])


def _ways(
    recording: Recording, names: list[str], reads: InTurn | None, writes: InTurn | None
) -> Iterator[tuple[Freed, Recording]]:
    """Each resource that is there, and the recording without it."""
    loads_there = any(name.startswith(THREAD) for name in recording.places)
    sides: tuple[Side, Side] = ("source", "destination")
    for side in sides:
        yield Freed("big lock", side, 0), _without(recording, [lock_of(side)])
        resource = "receiving threads" if side == "destination" and loads_there else "workers"
        yield Freed(resource, side, 0), _with_threads(recording, [side])
    yield Freed("big lock", "", 0), _without(recording, [lock_of("source"), lock_of("destination")])
    bounded = workers_of("source") in recording.places or any(
        step.part == "begin" and step.carried for step in recording.steps
    )
    if bounded and (loads_there or workers_of("destination") in recording.places):
        yield Freed("workers", "", 0), _with_threads(recording, ["source", "destination"])
    shared = [(wait, found) for wait, found in ((Wait.READ, reads), (Wait.WRITE, writes)) if found is not None]
    for wait, found in shared:
        reading = wait is Wait.READ
        one = Freed("shared by reads" if reading else "shared by writes", "source" if reading else "destination", 0)
        yield _told(one, found, names), _without(recording, [turns_of(wait)])
    if len(shared) > 1:
        one = _told(Freed("shared by reads and writes", "", 0), shared[0][1], names)
        yield one, _without(recording, [turns_of(wait) for wait, _ in shared])
    receiving = [name for name in recording.places if name.startswith(RECEIVER)]
    unbounded = _changed(_without(recording, [CHANNELS, *receiving]), lambda step: replace(step, overtaken=[]))
    if any(recording.places.get(workers_of(side)) == recording.places.get(CHANNELS, 0) for side in sides):
        unbounded = _with_threads(unbounded, ["source", "destination"])  # a pool has as many threads as channels
    yield Freed("channels", "", 0), unbounded
    yield Freed("pre-copied", "destination", 0), _changed(recording, _loaded_before)
    sections = _sections(recording.steps)
    if len(sections) > 1:
        yield Freed("sections", "", 0, tuple(names[slot] for slot in sections)), _changed(recording, _beside(sections))
    yield Freed("link", "", 0), _changed(recording, _sent_at_once)
    yield Freed("memory budget", "destination", 0), _changed(recording, lambda step: replace(step, room=[]))
    yield Freed("CPU", "", 0), _changed(recording, lambda step: replace(step, delay=0))
    if (slow := _slow(recording.steps)) is not None:
        slot, work, next_ = slow
        quicker = _changed(recording, lambda step: _scaled(step, slot, next_ / work))
        yield Freed("slow device", "", 0, (names[slot],), turn=work, wait=next_), quicker


def _told(one: Freed, found: InTurn, names: list[str]) -> Freed:
    return replace(one, devices=tuple(names[slot] for slot in found.slots), turn=found.turn, wait=found.wait)


def _without(recording: Recording, resources: list[str]) -> Recording:
    places = {name: places for name, places in recording.places.items() if name not in resources}
    return Recording(recording.steps, places)


def _with_threads(recording: Recording, sides: list[str]) -> Recording:
    """As if every job had a thread at once."""
    resources = [workers_of(side) for side in sides]
    if "destination" in sides:
        resources += [name for name in recording.places if name.startswith(THREAD)]

    def change(step: Step) -> Step:
        # At the source it is the beginning of a job that can wait for whoever has its thread.
        side = "source" if step.part == "begin" else "destination"
        return replace(step, carried=[]) if step.carried and side in sides else step

    return _changed(_without(recording, resources), change)


def _changed(recording: Recording, change: Callable[[Step], Step]) -> Recording:
    return Recording([change(step) for step in recording.steps], recording.places)


def _sent_at_once(step: Step) -> Step:
    if step.overtaken:
        return replace(step, overtaken=[])
    if step.part == "send":
        return replace(step, work=0)
    return replace(step, lag=0, work=0) if step.part in ("arrive", "word") else step


def _loaded_before(step: Step) -> Step:
    return replace(step, work=0, delay=0) if step.part == "pre-copied" else step


def _sections(steps: list[Step]) -> dict[int, int]:
    """The devices that are saved and loaded as sections, and how long their configs take."""
    with_job = {step.slot for step in steps if step.part in ("begin", "end")}
    work: defaultdict[int, int] = defaultdict(int)
    for step in steps:
        if step.part == "config" and step.slot not in with_job:
            work[step.slot] += step.work
    return dict(work)


def _beside(sections: Mapping[int, int]) -> Callable[[Step], Step]:
    """As if all sections took the time of the longest alone."""
    longest = max(sections, key=lambda slot: sections[slot])
    return lambda step: (
        replace(step, work=0) if step.part == "config" and step.slot in sections and step.slot != longest else step
    )


def _scaled(step: Step, slot: int, factor: float) -> Step:
    if step.slot == slot and step.part in ("read", "write"):
        return replace(step, work=round(step.work * factor))
    return step


def _slow(steps: list[Step]) -> tuple[int, int, int] | None:
    """The device whose reads and writes take much longer than any other's: its slot, its work, that of the next one."""
    work: defaultdict[int, int] = defaultdict(int)
    for step in steps:
        if step.part in ("read", "write"):
            work[step.slot] += step.work
    if len(work) < 2:
        return None
    (slot, most), (_, next_) = sorted(work.items(), key=lambda pair: -pair[1])[:2]
    return (slot, most, next_) if most > SLOW * next_ else None


@dataclass(frozen=True, slots=True)
class Recording:
    """A downtime as steps.

    Attributes:
        steps: the last one ends when the machine runs.
        places: how many may hold each resource at once.
    """

    steps: list[Step]
    places: dict[str, int]


def recording_of(
    source: Recorded, destination: Recorded, end: int, turns: Mapping[Wait, Mapping[tuple[int, int], int]]
) -> Recording:
    """Turn what both sides recorded into steps.

    Each span of work becomes a step as long as it was. A wait becomes none: what was waited for becomes a cause of the
    step behind it, or the resource that this step takes. What is left between the end of the last cause and the begin
    of the step, as recorded, is the step's delay (a thread computed, or had to be woken), or, for a chunk, its way
    through the network. So steps that are played with every resource as it was end about when they were recorded to
    end.

    The memory's packets (``jobsteps.py``) wait for a thread, a channel and their way like chunks, and for nothing else;
    no job loads them, but the end of the round waits for them all.

    Arguments:
        end: when the machine ran, in nanoseconds from the begin of the downtime.
        turns: how long a read or a write took by itself, where devices took turns.
    """
    plan = Plan(source, destination, turns)
    own, jobs = OwnSteps(plan), JobSteps(plan)
    last = own.at_destination(own.at_source())
    pages = [job for slot, job in source.jobs.items() if slot in source.page_jobs]
    if pages:
        page_steps(plan, jobs, pages)
    for slot, job in source.jobs.items():
        if slot not in source.page_jobs:
            jobs.saving(job)
    jobs.overtaking()
    for job in destination.jobs.values():
        jobs.loading(job)
    jobs.arriving()
    ended = max((span.end for span in destination.own), default=0)
    plan.add(Step("own", causes=[last], delay=max(0, end - ended)))
    return Recording(plan.steps, plan.places)
