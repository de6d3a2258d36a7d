"""The words after a model's name: what each of them changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from migpool.core.buffers import Conduit
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Acquire, Steps
from migpool.core.handlers import Handlers
from migpool.core.interpreter import Interpreter, Job
from migpool.core.machine import Machine
from migpool.core.threads import ThreadGroup
from migpool.core.trace import Tracer
from migpool.device import Side
from migpool.errors import Cancelled
from migpool.migration.report import SideReport
from migpool.migration.states import State
from migpool.scenario.model_syntax import parse_model
from migpool.schedulers import Setup
from migpool.schedulers.pool import START_LIMIT, start_workers
from migpool.workers.pool import WorkerPool
from tests.support.rig import KIB, Pair, Scripted, contents

LIMIT = 20.0


@pytest.mark.parametrize(("model", "submitted"), [("pool:1", 1), ("pool:1:block", 1), ("pool:1:queue", 3)])
def test_a_full_pool_makes_the_submitter_wait_unless_its_tasks_queue(model: str, submitted: int) -> None:
    switch, machine = CancelSwitch(), Machine("m", [Scripted(number) for number in range(3)])
    gate, begun = threading.Event(), threading.Event()

    def hold(effect: Acquire) -> Conduit:
        del effect
        begun.set()
        assert gate.wait(LIMIT)
        return Conduit.__new__(Conduit)

    def steps(number: int) -> Steps:
        yield Acquire(machine.slots[number])

    handlers = Handlers()
    handlers.on(Acquire, hold)
    interpreter = Interpreter(handlers, threading.Lock(), Tracer(), switch)
    scheduler, threads = parse_model(model).source.make(), ThreadGroup(LIMIT)
    scheduler.setup(Setup("source", machine.iterable, 2, interpreter, threads, switch, workers=1))
    came: list[int] = []
    all_came = threading.Event()

    def submit() -> None:
        for number in range(3):
            scheduler.submit(Job("save", steps(number), machine.slots[number]))
            came.append(number)
        all_came.set()

    submitter = threading.Thread(target=submit)
    submitter.start()
    assert begun.wait(LIMIT)
    if submitted == 3:
        assert all_came.wait(LIMIT)
    else:
        assert not all_came.wait(0.1)
    assert len(came) == submitted
    gate.set()
    submitter.join(LIMIT)
    scheduler.drain()
    scheduler.close()
    threads.close()


def reports(folder: Path, model: str) -> dict[Side, SideReport]:
    """A migration of four devices over two channels, with that model at both ends."""
    state = contents(64 * KIB)
    pair = Pair([Scripted(number, state) for number in range(4)], [Scripted(number) for number in range(4)])
    parsed = parse_model(model)
    pair.models = (parsed.source.make, parsed.destination.make)
    sent, received = pair.run(folder)
    assert (sent.outcome, received.outcome) == (State.COMPLETED, State.COMPLETED), (sent.error, received.error)
    return {"source": sent, "destination": received}


@pytest.mark.parametrize(
    ("model", "workers"),
    [
        ("per-device", 4),
        ("per-device:setup", 4),
        ("per-device:switchover", 0),
        ("pool", 2),
        ("pool:switchover", 0),
        ("elastic", 0),
        ("elastic:switchover", 0),
        ("elastic:setup", 4),
        ("inline", 0),
    ],
)
def test_the_report_says_which_threads_were_there_before_the_switchover(
    tmp_path: Path, model: str, workers: int
) -> None:
    both = reports(tmp_path, model)
    # Without any worker: at the source the caller and the return path; at the destination the caller, two channels and
    # the watch on the source.
    assert both["source"].threads_before == 2 + workers
    assert both["destination"].threads_before == 4 + workers


class EndsMeanwhile(WorkerPool):
    """Takes a task, and then no more, as a pool whose migration ends while its workers are started."""

    def __init__(self) -> None:
        super().__init__(3)
        self.futures: list[Future[object]] = []

    def submit(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> Future[object]:  # type: ignore[override]
        if self.futures:
            raise Cancelled("the migration was cancelled")
        self.futures.append(super().submit(fn, *args, **kwargs))
        return self.futures[0]


def test_a_worker_that_came_waits_for_nobody_once_the_migration_ends() -> None:
    with EndsMeanwhile() as pool:
        with pytest.raises(Cancelled):
            start_workers(pool, 3)
        assert isinstance(pool.futures[0].exception(START_LIMIT / 2), threading.BrokenBarrierError)
