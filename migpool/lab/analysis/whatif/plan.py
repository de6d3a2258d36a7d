"""The steps of a replay while they are made, and what they have to know of each other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from operator import attrgetter

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.lab.analysis.kinds import WAITS
from migpool.lab.analysis.whatif.recorded import Recorded, RecordedJob, loading_on
from migpool.lab.analysis.whatif.schedule import Step

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
            self._count_workers(side)
            for slot in side.jobs:
                self.begun[side.side, slot] = self.add(Step("begin", slot, takes=self._workers(side, slot)))
                self.done[side.side, slot] = self.add(Step("end", slot, gives=self._workers(side, slot)))
        self._chain_pages()
        holds = [span for job in destination.jobs.values() for span in job.spans if span.wait is Wait.HOLD]
        self.held = {span.slot: self.add(Step("own", span.slot)) for span in holds}
        ends = {job.slot: span.end for job in destination.jobs.values() for span in job.spans if _loads_config(span)}
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
        if rule in ("stop", "start", "read", "write", "config"):
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

    def _count_workers(self, side: Recorded) -> None:
        jobs = [job for slot, job in side.jobs.items() if slot not in side.later]
        threads = set().union(*(job.threads for job in jobs)) if jobs else set()
        if threads and not threads & self.receivers and len(threads) < len(jobs) and _keep_threads(side):
            self.places[workers_of(side.side)] = len(threads)

    def _workers(self, side: Recorded, slot: int) -> str:
        resource = workers_of(side.side)
        takes = resource in self.places and slot not in side.later and bool(side.jobs[slot].spans)
        return resource if takes else ""

    def _chain_pages(self) -> None:
        """A job of the memory whose thread had another one of the round before waits for that."""
        for slot, before in self.source.later.items():
            self.steps[self.begun["source", slot]].carried.append(self.done["source", before])


def _at_once(side: Recorded, slot: int) -> int:
    """How many jobs of one device were seen to read or write it at the same time, at the most."""
    spans = [span for job in side.jobs.values() for span in job.spans if span.slot == slot]
    calls = [span for span in spans if span.wait in (Wait.READ, Wait.WRITE)]
    edges = sorted([(span.begin, 1) for span in calls] + [(span.end, -1) for span in calls])
    return max(accumulate((change for _, change in edges)), default=1) or 1


def _loads_config(span: Span) -> bool:
    return span.wait is Wait.LOAD_CONFIG


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
