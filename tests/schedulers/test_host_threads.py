"""Threads that a host's migrations have together: never more at work than there are, whoever asks."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Release, Steps
from migpool.core.handlers import Handlers
from migpool.core.interpreter import Interpreter, Job
from migpool.core.machine import Machine
from migpool.core.threads import ThreadGroup
from migpool.core.trace import Tracer
from migpool.errors import UsageError
from migpool.schedulers import Setup
from migpool.schedulers.host_threads import VARIABLE, HostThreads
from migpool.schedulers.pool import PoolScheduler, automatic
from tests.support.rig import Scripted

LIMIT = 20.0


class Counted:
    """Jobs of several migrations; the most that were at work at once."""

    def __init__(self, migrations: int) -> None:
        self.lock = threading.Lock()
        self.now = self.most = self.done = 0
        self.group, self.switch = ThreadGroup(LIMIT), CancelSwitch()
        self.gate = threading.Semaphore(0)
        self.schedulers = [self._made() for _ in range(migrations)]

    def _made(self) -> PoolScheduler:
        handlers = Handlers()
        handlers.on(Release, self._work)
        slots = Machine("m", [Scripted(number) for number in range(8)]).slots
        self.slot = slots[0]
        scheduler = PoolScheduler()
        scheduler.chosen = frozenset({"auto"})
        interpreter = Interpreter(handlers, threading.Lock(), Tracer(), self.switch)
        scheduler.begin(Setup("source", slots, 8, interpreter, self.group, self.switch))
        return scheduler

    def _work(self, effect: Release) -> None:
        del effect
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.gate.acquire(timeout=LIMIT)
        with self.lock:
            self.now -= 1
            self.done += 1

    def submit(self, jobs: int) -> None:
        def steps() -> Steps:
            yield Release(self.slot, None)  # type: ignore[arg-type]

        for scheduler in self.schedulers:
            for _ in range(jobs):
                scheduler.take(Job("job", steps(), self.slot))

    def close(self) -> None:
        for scheduler in self.schedulers:
            scheduler.close()
        self.group.close()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> HostThreads:
    made = HostThreads.of(3)
    monkeypatch.setenv(*next(iter(made.environment().items())))
    return made


def test_two_migrations_never_have_more_than_there_are(threads: HostThreads) -> None:
    counted = Counted(2)
    counted.submit(8)
    for _ in range(16):
        counted.gate.release()
    for scheduler in counted.schedulers:
        scheduler.drain()
    counted.close()
    assert counted.done == 16
    assert 1 <= counted.most <= 3
    assert len(os.read(threads.reading, 10)) == 3, "all were put back"
    threads.close()


def test_a_migration_that_waits_for_a_thread_can_be_cancelled(threads: HostThreads) -> None:
    assert all(threads.take(CancelSwitch()) for _ in range(3))
    counted = Counted(1)
    counted.submit(2)
    counted.switch.cancel()
    counted.close()
    assert counted.done == 0
    threads.close()


def test_without_threads_in_common_auto_is_a_pool_by_itself() -> None:
    counted = Counted(1)
    counted.submit(4)
    for _ in range(4):
        counted.gate.release()
    counted.schedulers[0].drain()
    counted.close()
    assert counted.done == 4


@pytest.mark.parametrize("text", ["x", "1", "998,999", "-1,-1"])
def test_what_is_no_pipe_is_said(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UsageError, match="two descriptors"):
        HostThreads.inherited()


@given(st.none() | st.integers(1, 64), st.integers(0, 255), st.integers(0, 4096))
def test_the_number_of_workers_follows_from_what_there_is(workers: int | None, channels: int, devices: int) -> None:
    found = automatic(workers, channels, devices)
    assert 1 <= found <= max(1, devices)
    assert found <= 2 * max(channels, os.cpu_count() or 1)
    assert workers is None or found <= workers
