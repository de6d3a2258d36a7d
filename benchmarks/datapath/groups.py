"""What is run: groups of runs that take turns, round by round, so that a slow moment of the machine meets all of them.

A row of the result is a figure of one round, made from runs of that round only; its median over the rounds counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle

from benchmarks.datapath.content import Content
from benchmarks.datapath.disturbance import Attempts
from benchmarks.datapath.runs import run_c, run_python
from benchmarks.datapath.side import DELAY
from benchmarks.datapath.task import Measure, Task

__all__ = ["GROUPS", "Group", "Row", "Run", "play", "scaled"]

Round = Mapping[str, Measure]
"""The measures of one round, by the names of the runs."""


@dataclass(frozen=True, slots=True)
class Run:
    """One contender.

    Arguments:
        name: says which program it is: "C ..." or "Python ...".
        task: what it does.
        content: whether it needs the devices' state.
    """

    name: str
    task: Task
    content: bool = True

    def measure(self, content: Content) -> Measure:
        """Run it once."""
        program = run_c if self.name.startswith("C") else run_python
        return program(self.task, content if self.content else None)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result.

    Arguments:
        name: what it is about.
        figure: makes the figure from one round.
        target: what its median must reach; ``None`` for a row that only informs.
        at_most: whether the median must not be over the target, instead of not under it.
    """

    name: str
    figure: Callable[[Round], float]
    target: float | None = None
    at_most: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that take turns.

    Arguments:
        name: what ``--only`` selects it by.
        runs: in the order of a turn; every second turn goes the other way.
        rows: made from them.
        turns: how many make a round, which has the mean of them: for rows whose runs differ by less than two runs of
            the same.
    """

    name: str
    runs: Sequence[Run]
    rows: Sequence[Row]
    turns: int = 1


def _rate(fast: str, slow: str) -> Callable[[Round], float]:
    """The rate of ``fast`` over that of ``slow``; seconds for the same bytes."""
    return lambda measures: measures[fast].rate / measures[slow].rate


def _own_cpu(python: str, c: str) -> Callable[[Round], float]:
    """CPU seconds that Python takes over C for as many chunks as a GiB has at 1 MiB."""

    def figure(measures: Round) -> float:
        chunks = OWN.bytes / OWN.chunk
        return (measures[python].cpu - measures[c].cpu) / chunks * 1024

    return figure


def _with_workers(program: str, workers: int, busy: bool) -> str:
    """What a run is called whose source has so many workers, with a thread that computes beside them or without."""
    return f"{program}, {workers} workers{', a thread computes' if busy else ''}"


NOTHING = Task("none", "none")
# As many senders as channels, and as many as CPUs: what the calls cost, without a queue for a channel.
PLAIN = Task("none", "none", devices=2, size=2 * Task().bytes)
# Nothing but the budget holds back a source without credits, and a budget that it exceeds ends the migration.
UNBOUNDED = Task(credits=False, trace=False, budget=Task().bytes)
OWN = Task("none", "none", devices=1, channels=1, chunk=4096, size=16384 * 4096, budget=64 * 4096)
# Short chunks: this is about threads that wait, not about bytes that move.
BLOCKING = Task("blocking", "none", devices=16, chunk=16 * 1024, size=100 * 16 * 1024, source="pool", workers=16)
# As many as devices, and as many as processors: the more threads want a processor, the less the one that computes gets.
COMPUTING = (4, 2)
IDEAL = BLOCKING.size / BLOCKING.chunk * DELAY

GROUPS: Sequence[Group] = (
    Group(
        "leg",
        (
            Run("C", PLAIN, content=False),
            Run("Python, channels alone", replace(PLAIN, bare="channels"), content=False),
            Run("Python, calls alone", replace(PLAIN, bare="calls"), content=False),
        ),
        (
            Row("socket leg, TCP", _rate("Python, channels alone", "C"), 0.95),
            Row("socket leg, TCP, by the system calls alone", _rate("Python, calls alone", "C")),
        ),
        turns=4,
    ),
    Group(
        "sockets",
        (
            Run("C", NOTHING, content=False),
            Run("Python", NOTHING, content=False),
            Run("C, UNIX", replace(NOTHING, transport="unix"), content=False),
            Run("Python, UNIX", replace(NOTHING, transport="unix"), content=False),
        ),
        (
            Row("a whole migration of nothing, TCP", _rate("Python", "C")),
            Row("a whole migration of nothing, UNIX sockets", _rate("Python, UNIX", "C, UNIX")),
        ),
    ),
    Group(
        "memfd",
        (
            Run("C", Task()),
            Run("C, a thread a device", Task(workers=0)),
            Run("Python", Task()),
            Run("Python, calls alone", Task(bare="calls")),
            Run("C, splice", Task("splice", "splice")),
            Run("Python, splice", Task("splice", "splice")),
        ),
        (
            Row("memfd to memfd, in order", _rate("Python", "C"), 0.90),
            Row("memfd to memfd, by the system calls alone", _rate("Python, calls alone", "C")),
            Row("memfd to memfd, in order, against C with a thread a device", _rate("Python", "C, a thread a device")),
            Row("with splice, against C that copies", _rate("Python, splice", "C"), 1.15),
            Row("C with splice, against C that copies", _rate("C, splice", "C")),
            Row("with splice, against C with splice", _rate("Python, splice", "C, splice")),
        ),
        turns=2,
    ),
    Group(
        "credits",
        (Run("Python", Task()), Run("Python, no credits or trace", UNBOUNDED)),
        (Row("credits and trace on, against off", _rate("Python", "Python, no credits or trace"), 0.97),),
        turns=4,
    ),
    Group(
        "computing",
        tuple(
            Run(_with_workers(program, workers, busy), Task(workers=workers, busy=busy))
            for workers in COMPUTING
            for program in ("C", "Python")
            for busy in (False, True)
        ),
        tuple(
            Row(
                f"a thread computes beside {program}, {workers} workers, against none",
                _rate(_with_workers(program, workers, True), _with_workers(program, workers, False)),
                0.75 if program == "Python" else None,
            )
            for workers in COMPUTING
            for program in ("Python", "C")
        ),
    ),
    Group(
        "pipes",
        (Run("C", Task("read")), Run("Python", Task("read"))),
        (Row("from pipes", _rate("Python", "C"), 0.85),),
    ),
    Group(
        "unix",
        (Run("C", Task("recv")), Run("Python", Task("recv"))),
        (Row("from UNIX sockets", _rate("Python", "C"), 0.80),),
    ),
    Group(
        "blocking",
        (Run("Python", BLOCKING, content=False),),
        (
            Row(
                "16 blocking devices, 16 workers: time over ideal",
                lambda measures: measures["Python"].seconds / IDEAL,
                1.1,
                at_most=True,
            ),
        ),
    ),
    Group(
        "cpu",
        (Run("C", OWN, content=False), Run("Python", OWN, content=False)),
        (Row("Python's own CPU, both sides, s a GiB", _own_cpu("Python", "C"), 0.04, at_most=True),),
    ),
)


def scaled(group: Group, *, size: int, source: str, destination: str) -> Group:
    """The group with devices of ``size`` bytes where they have content, and with other threading models."""

    def fit(run: Run) -> Run:
        task = run.task
        if task.reading != "blocking":  # these want a worker each, whatever else is asked for
            task = replace(task, source=source, destination=destination)
        if task.chunk == Task().chunk:  # else the number of chunks is what matters
            task = replace(task, size=task.size * size // Task().size)
        return replace(run, task=task)

    return replace(group, runs=tuple(fit(run) for run in group.runs))


def play(group: Group, content: Content, rounds: int, attempts: Attempts) -> Iterator[Round]:
    """Run ``group`` once to warm up, and then ``rounds`` times; yields each round's measures."""
    orders = cycle((group.runs, group.runs[::-1]))

    def turn() -> Round:
        return {run.name: attempts.undisturbed(partial(run.measure, content)) for run in next(orders)}

    turn()
    for _ in range(rounds):
        turns = [turn() for _ in range(group.turns)]
        yield {run.name: Measure.mean([each[run.name] for each in turns]) for run in group.runs}
