"""The steps of a replay: what they are, how they are made of what was recorded, and how they are played."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate, count
from operator import attrgetter

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.lab.analysis.kinds import WAITS
from migpool.lab.analysis.whatif.recorded import Recorded, RecordedJob, loading_on


class Unplayable(Exception):
    """Some steps wait for each other for ever: what was recorded is not whole."""


@dataclass(slots=True)
class Step:
    """Something that takes time. Times are in nanoseconds.

    Arguments:
        part: what it is: "read", "send", "own" ...; what can be made free goes by it.
        slot: the device that it is for, -1 for none.
        causes: the steps that must have ended before, by their number.
        room: the same, but only as long as the destination's memory is bounded.
        carried: the same, but only as long as a job must wait for a thread.
        overtaken: the same, but only as long as channels are bounded.
        delay: what the thread needs by itself before it begins, once the causes have ended.
        lag: what the way through the network adds to that; may be negative, since a chunk is received while it is sent.
        work: how long it takes.
        takes: the resource that it takes before its work; empty for none.
        gives: the resource that it gives back after it.
    """

    part: str
    slot: int = -1
    causes: list[int] = field(default_factory=list)
    room: list[int] = field(default_factory=list)
    carried: list[int] = field(default_factory=list)
    overtaken: list[int] = field(default_factory=list)
    delay: int = 0
    lag: int = 0
    work: int = 0
    takes: str = ""
    gives: str = ""


# What the resources are called that steps take.
CHANNELS = "channels"
PAGE_JOBS = "jobs of the memory"
THREAD = "thread "
RECEIVER = "receiver "


def lock_of(side: str) -> str:
    """The resource that is a side's big lock."""
    return f"{side} lock"


def workers_of(side: str) -> str:
    """The resource that is a side's threads for jobs."""
    return f"{side} workers"


def turns_of(wait: Wait) -> str:
    """The resource that devices share while they are read, or written, by what no span shows."""
    return "reads in turn" if wait is Wait.READ else "writes in turn"


def turn_of(side: str, slot: int) -> str:
    """The resource that is the turn to read, or write, a device that has several jobs."""
    return f"{side} turn {slot}"


def thread_of(name: str) -> str:
    """The resource that is one channel's thread at the destination."""
    return THREAD + name


class Plan:
    """What both sides recorded, and the steps that are made of it; those that others wait for have a number at once.

    Arguments:
        turns: how long a read or a write took by itself, where devices took turns.

    Attributes:
        places: how many may hold each resource at once.
        receivers: the channels' threads at the destination, where they also load.
        busy: when each of those loaded.
        begun: for each side and slot, the step at which a thread took the job up.
        done: the same, at which the job ended.
        arrivals: by slot and chunk, its arrival.
        sent: its sending.
        loads: its room given back.
        held: by slot, its config put aside.
        configs: by slot, its config loaded, where a job did that; in the order in which they ended.
        all_held: when the last one was.
    """

    def __init__(
        self, source: Recorded, destination: Recorded, turns: Mapping[Wait, Mapping[tuple[int, int], int]]
    ) -> None:
        self.source = source
        self.destination = destination
        self._turns = turns
        self.steps: list[Step] = []
        self.places: dict[str, int] = {lock_of("source"): 1, lock_of("destination"): 1}
        senders = {span.thread for span in destination.receives.values()}
        if senders:
            self.places[CHANNELS] = len(senders)
        # Where the channels' threads also load, a chunk can lie in its socket behind another device's.
        loaders = {span.thread for job in destination.jobs.values() for span in job.spans if span.wait is Wait.WRITE}
        self.receivers = senders & loaders
        self.places |= {thread_of(name): 1 for name in self.receivers}
        for wait, known in turns.items():
            if known:
                self.places[turns_of(wait)] = 1
        self.places |= {
            turn_of(side.side, slot): _at_once(side, slot) for side in (source, destination) for slot in side.shared
        }
        self.busy = loading_on(destination, self.receivers)
        self.begun: dict[tuple[str, int], int] = {}
        self.done: dict[tuple[str, int], int] = {}
        self.sent: dict[tuple[int, int], int] = {}
        self._asked = {
            (side.side, span.slot, span.index): span.begin
            for side in (source, destination)
            for span in (*side.own, *(span for job in side.jobs.values() for span in job.spans))
            if span.wait is Wait.LOCK
        }
        for side in (source, destination):
            resource = workers_of(side.side)
            jobs = [job for slot, job in side.jobs.items() if slot not in side.later]
            threads = {thread for job in jobs for thread in job.threads}
            if threads and not threads & self.receivers and len(threads) < len(jobs) and _keep_threads(side):
                self.places[resource] = len(threads)
            for slot, job in side.jobs.items():
                workers = resource if resource in self.places and slot not in side.later and job.spans else ""
                self.begun[side.side, slot] = self.add(Step("begin", slot, takes=workers))
                self.done[side.side, slot] = self.add(Step("end", slot, gives=workers))
        for slot, before in source.later.items():
            # A job of the memory whose thread had another one of the round before waits for that.
            self.steps[self.begun["source", slot]].carried.append(self.done["source", before])
        holds = [span for job in destination.jobs.values() for span in job.spans if span.wait is Wait.HOLD]
        self.held = {span.slot: self.add(Step("own", span.slot)) for span in holds}
        spans = (span for job in destination.jobs.values() for span in job.spans)
        ends = {span.slot: span.end for span in spans if span.wait is Wait.LOAD_CONFIG}
        self.configs = {slot: self.add(Step("own", slot)) for slot in sorted(ends, key=ends.__getitem__)}
        self._config_ends = ends
        self.all_held = max((span.end for span in holds), default=0)
        self.arrivals = {key: self.add(Step("arrive", key[0])) for key in destination.receives}
        self._loaded = {(slot, span.index): span for slot, spans in destination.loaded.items() for span in spans}
        self.loads = {key: self.add(Step("own", key[0], work=span.duration)) for key, span in self._loaded.items()}

    def add(self, step: Step) -> int:
        """The step's number."""
        self.steps.append(step)
        return len(self.steps) - 1

    def woken(self, side: Recorded, job: RecordedJob) -> int:
        """The step at which a job's thread has woken for it."""
        return self.add(Step("own", job.slot, causes=[self.begun[side.side, job.slot]], delay=job.woken))

    def loaded_on_a_channel(self, key: tuple[int, int]) -> Span | None:
        """When a chunk's room was given back by a channel's thread, which came to a SYNC only then; else ``None``."""
        span = self._loaded[key]
        return span if span.thread in self.receivers else None

    def loaded_before(self, span: Span) -> int | None:
        """The step at which the device was loaded that was the last before the end of a wait for others."""
        ended = (slot for slot in reversed(self.configs) if span.begin < self._config_ends[slot] <= span.end)
        return next((self.configs[slot] for slot in ended if slot != span.slot), None)

    def work(self, step: Step, side: Recorded, span: Span, before: int) -> None:
        """What a span of work becomes; ``before`` is when the last of its causes ended."""
        begin = span.begin
        step.work = span.duration
        step.slot = span.slot
        rule = WAITS[span.wait].replay
        if rule in ("stop", "start", "read", "write", "config", "pre-copied"):
            step.part = rule
        if rule == "config":
            # From its last step to the config's begin the job waited for the lock; the wait began at its own span.
            asked = self._asked.get((side.side, span.slot, span.index))
            if asked is not None:  # without, the device needs no big lock
                step.takes = step.gives = lock_of(side.side)
                begin = asked
        elif rule in ("read", "write"):
            turn = self._turns.get(span.wait, {}).get((span.slot, span.index))
            if turn is not None:
                step.work = turn
                step.takes = step.gives = turns_of(span.wait)
            elif span.thread in self.receivers:
                step.takes = step.gives = thread_of(span.thread)
            elif span.slot in side.shared:
                step.takes = step.gives = turn_of(side.side, span.slot)
        elif rule == "lock":
            step.part, step.work = "own", 0
        step.delay = max(0, begin - before)


def _at_once(side: Recorded, slot: int) -> int:
    """How many jobs of one device were seen to read or write it at the same time, at the most."""
    spans = [span for job in side.jobs.values() for span in job.spans if span.slot == slot]
    calls = [span for span in spans if span.wait in (Wait.READ, Wait.WRITE)]
    edges = sorted([(span.begin, 1) for span in calls] + [(span.end, -1) for span in calls])
    return max(accumulate((change for _, change in edges)), default=1) or 1


def _keep_threads(side: Recorded) -> bool:
    """Whether each job keeps one thread from its begin to its end; those that are polled share theirs."""
    free: dict[str, int] = {}
    for job in sorted(side.jobs.values(), key=attrgetter("taken")):
        if not job.kept:
            continue
        if len(job.threads) > 1 or free.get(job.kept[0].thread, 0) > job.taken:
            return False
        free[job.kept[0].thread] = job.kept[-1].end
    return True


def play(steps: Sequence[Step], places: Mapping[str, int]) -> list[int]:
    """Play steps against the clock; when each ends, counted from a begin at 0.

    Guarantees:

    1. A step begins at the earliest moment at which all its causes have ended and its resource has a place for it.
    2. Who asked for a resource first has it first; of those that ask at one moment, the one whose causes ended first.
    3. Nothing is random: the same steps end at the same times.

    Arguments:
        steps: a step's number is its place here.
        places: how many may hold each resource at once; one that is not named here is never waited for.

    Raises:
        Unplayable: some steps never begin.
    """
    free = dict(places)
    waiting: defaultdict[str, deque[int]] = defaultdict(deque)
    after: list[list[int]] = [[] for _ in steps]
    missing: list[int] = []
    for number, step in enumerate(steps):
        causes = {*step.causes, *step.room, *step.carried, *step.overtaken}
        missing.append(len(causes))
        for cause in causes:
            after[cause].append(number)
    ready = [0] * len(steps)
    ends = [-1] * len(steps)
    turns = count()
    asks = [
        (max(0, steps[at].lag) + steps[at].delay, next(turns), at, False) for at, left in enumerate(missing) if not left
    ]
    events = sorted(asks)
    while events:
        now, _, number, over = heappop(events)
        step = steps[number]
        if not over:
            if free.get(step.takes, 1):
                if step.takes in free:
                    free[step.takes] -= 1
                heappush(events, (now + step.work, next(turns), number, True))
            else:
                waiting[step.takes].append(number)
            continue
        ends[number] = now
        if step.gives in free:
            if waiting[step.gives]:
                next_ = waiting[step.gives].popleft()
                heappush(events, (now + steps[next_].work, next(turns), next_, True))
            else:
                free[step.gives] += 1
        for then in after[number]:
            ready[then] = max(ready[then], now)
            missing[then] -= 1
            if not missing[then]:
                ask = max(0, ready[then] + steps[then].lag) + steps[then].delay
                heappush(events, (ask, next(turns), then, False))
    if -1 in ends:
        raise Unplayable(f"{ends.count(-1)} of {len(steps)} steps never end")
    return ends
