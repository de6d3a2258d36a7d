"""Cancels migrations at many waits, and counts what is left of them.

Both ends are in this process, so that everything that a migration starts or opens is in sight: the kernel's count of
this process's threads and descriptors, and the processes below it. A thread that was joined may be counted by the
kernel for a moment longer, so what is there too much is looked at again until it is gone or a second is over.

After each cancel the source's devices must go on: the same machine is migrated again, to a destination of its own, and
that migration must complete.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from migpool.conformance.pairing import cancelled_at, counting_waits, migrate, spread
from migpool.core.machine import Machine
from migpool.device import Side
from migpool.errors import MigpoolError
from migpool.experiments.finding import CountFinding
from migpool.lab.run.side import footprint
from migpool.migration.states import State
from migpool.scenario.build import build_machine
from migpool.scenario.model_syntax import Model, parse_model
from migpool.scenario.schema import Scenario
from migpool.units import count_of

SETTLED: Final = 1.0


def cancel_everywhere(
    scenario: Scenario,
    models: Sequence[str],
    waits: int,
    seconds: float,
    *,
    stop: Callable[[], bool],
    say: Callable[[str], None],
) -> Iterator[CountFinding]:
    """Cancel under each model, and count; two counts a model.

    Arguments:
        waits: at how many waits of each side and model, spread evenly.
        seconds: for all of it, the same share for each model; a model's cancels end early when its share is used up.
        stop, say: as for :func:`~migpool.experiments.runner.run_experiment`.

    Raises:
        MigpoolError: the machine cannot be built, or does not migrate even if nobody cancels it.
    """
    for name in models:
        if stop():
            return
        left, dead = _cancel_under(scenario, parse_model(name), waits, seconds / len(models), stop)
        late = len(left) - len(dead)
        note = f", {late} of them after the machine had moved" if late else ""
        say(f"{name}: {count_of(len(left), 'cancel')}{note}; something left after {sum(map(bool, left))}")
        yield CountFinding.of(name, "cancels that left a thread, a descriptor or a process", left)
        yield CountFinding.of(name, "machines that could not migrate after a cancel", dead)


def _cancel_under(
    scenario: Scenario, model: Model, waits: int, seconds: float, stop: Callable[[], bool]
) -> tuple[list[str], list[str]]:
    """Make the cancels of one model.

    Returns:
        What was left after each, and what was wrong with each further migration; none follows a cancel that was late.
    """
    left: list[str] = []
    dead: list[str] = []
    deadline = time.monotonic() + seconds
    with _machine(scenario, "source") as source, _machine(scenario, "destination") as destination:
        migrated, counted = counting_waits(source, destination, model, scenario.settings())
    if not migrated.completed:
        raise MigpoolError(f"{model.name}: the machine does not migrate even uncancelled: {migrated.error}")
    where = [(side, position) for side, count in counted.items() for position in spread(count, waits)]
    # If the time is up early, what was done is spread over both ends and all waits all the same.
    random.Random(scenario.seed).shuffle(where)
    for side, position in where:
        if stop() or (left and time.monotonic() > deadline):
            break
        before = _held()
        with _machine(scenario, "source") as source:
            with _machine(scenario, "destination") as destination:
                cancelled = cancelled_at(source, destination, model, scenario.settings(), side, position)
            when = f"cancelled at wait {position} of the {side}"
            if cancelled.source.outcome is not State.COMPLETED:
                with _machine(scenario, "destination") as destination:
                    again = migrate(source, destination, model, scenario.settings())
                good = again.completed and again.source.succeeded
                dead.append("" if good else f"{when}: {again.error or 'its state is wrong'}")
        left.append(_left_since(before, when))
    return left, dead


def _machine(scenario: Scenario, side: Side) -> closing[Machine]:
    return closing(build_machine(scenario, side, scenario.seed))


def _held() -> dict[str, int]:
    """How many of each thing this process holds."""
    seen = footprint()
    if seen is None:
        raise MigpoolError("this system has no /proc to count threads and descriptors by: run this on Linux")
    children = sum(len(_words(path)) for path in Path("/proc/self/task").glob("*/children"))
    return {"threads": seen.threads, "descriptors": seen.descriptors, "processes": children}


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []  # the thread has just ended


def _left_since(before: Mapping[str, int], when: str) -> str:
    """What is there too much, in words; empty if nothing is."""
    deadline = time.monotonic() + SETTLED
    while (more := {what: now - before[what] for what, now in _held().items() if now > before[what]}) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.01)
    return f"{when}: {', '.join(f'{count} more {what}' for what, count in more.items())}" if more else ""
