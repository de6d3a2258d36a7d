"""Guarantees 9 and 10 where they concern the process: the interpreter's exit, and fork. In processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

LIMIT = 60


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the prologue that all of these need."""
    prologue = """
        import os, signal, sys, threading, time
        from concurrent.futures import wait
        from migpool.workers.pool import WorkerPool
        signal.alarm(50)
    """
    source = textwrap.dedent(prologue) + textwrap.dedent(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore::DeprecationWarning", "-c", source],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=environment,
    )


def outcome(program: str) -> tuple[int, str, str]:
    done = run(program)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("shut_down", ["", "pool.shutdown(wait=False)", "del pool"])
def test_at_exit_accepted_tasks_are_finished_and_idle_threads_ended(shut_down: str) -> None:
    program = f"""
        pool = WorkerPool(2, idle_timeout=None)
        gate = threading.Event()
        for n in range(2):
            pool.submit(gate.wait)
        for n in range(20):
            pool.submit(lambda n=n: os.write(1, b"%d " % n) if n % 2 else None)
        {shut_down}
        threading.Timer(0.05, gate.set).start()
    """
    code, out, errors = outcome(program)
    assert (code, errors) == (0, "")
    assert sorted(map(int, out.split())) == list(range(1, 20, 2))


def test_at_exit_an_idle_pool_ends_at_once() -> None:
    assert outcome("pool = WorkerPool(2, idle_timeout=None); pool.submit(abs, -1).result()") == (0, "", "")


def test_at_exit_nobody_waits_for_threads_that_somebody_else_owns() -> None:
    program = """
        from migpool.core.threads import ThreadGroup
        group = ThreadGroup()
        pool = WorkerPool(2, thread=group.thread)
        pool.submit(threading.Event().wait)
        print(pool.submit(abs, -1).result(), group.alive)
    """
    assert outcome(program) == (0, "1 2\n", "")


def test_after_exit_has_begun_nothing_is_accepted() -> None:
    program = """
        import atexit
        pool = WorkerPool(2)
        @atexit.register
        def late():
            for submit in (pool.submit, WorkerPool(1).submit):
                try:
                    submit(abs, -1)
                except RuntimeError as error:
                    print(error)
    """
    refusal = "cannot schedule new futures after interpreter shutdown\n"
    assert outcome(program) == (0, 2 * refusal, "")


def test_exit_refuses_a_thread_that_waits_for_room() -> None:
    program = """
        pool = WorkerPool(1, max_pending=0)
        gate = threading.Event()
        pool.submit(gate.wait)
        def submit():
            try:
                pool.submit(abs, -1)
            except RuntimeError as error:
                print(error)
            gate.set()
        threading.Thread(target=submit).start()
        while not pool.statistics().blocked:
            time.sleep(0.001)
    """
    assert outcome(program) == (0, "cannot schedule new futures after interpreter shutdown\n", "")


def test_a_task_that_submits_at_exit_is_refused_and_the_exit_goes_on() -> None:
    program = """
        pool = WorkerPool(1)
        def submit_forever():
            try:
                while True:
                    pool.submit(abs, -1)
                    time.sleep(0.001)
            except RuntimeError as error:
                print(error)
        pool.submit(submit_forever)
    """
    assert outcome(program) == (0, "cannot schedule new futures after interpreter shutdown\n", "")


CHILD = """
        def in_child(check):
            pid = os.fork()
            if pid == 0:
                try:
                    check()
                    sys.stdout.flush()
                    os._exit(0)
                except BaseException as error:
                    sys.stderr.write(repr(error))
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def test_a_child_finds_the_pool_empty_and_working_and_the_parent_is_not_disturbed() -> None:
    program = f"""
        {CHILD}
        pool = WorkerPool(2, "crew", max_pending=3, idle_timeout=None)
        gate = threading.Event()
        futures = [pool.submit(gate.wait) for _ in range(2)] + [pool.submit(abs, -n) for n in range(3)]
        def check():
            assert pool.statistics().threads == pool.statistics().queued == pool.statistics().running == 0
            assert [f.result(20) for f in [pool.submit(abs, -n) for n in range(5)]] == list(range(5))
            assert all(f.cancelled() for f in futures)
            assert wait(futures, 20).not_done == set()
            pool.shutdown()
        in_child(check)
        gate.set()
        assert [f.result(20) for f in futures] == [True, True, 0, 1, 2]
        assert pool.submit(abs, -7).result(20) == 7
    """
    assert outcome(program) == (0, "", "")


def test_a_child_finds_each_task_cancelled_wherever_its_worker_was() -> None:
    # A fork at each call that a worker makes, and at the end of each, from its birth to its second task's end.
    program = f"""
        {CHILD}
        class Held:
            def __init__(self, at):
                self.left, self.here, self.go_on = at, threading.Event(), threading.Event()
            def __call__(self, *_):
                self.left -= 1
                if not self.left:
                    sys.setprofile(None)
                    self.here.set()
                    self.go_on.wait(20)
        def forked_at(step):
            held = Held(step)
            threading.setprofile(held)
            pool = WorkerPool(1, max_pending=None, idle_timeout=None)
            gate = threading.Event()
            # The second is in before the first ends: no submission waits for a lock that the held worker has.
            first, second = pool.submit(gate.wait), pool.submit(abs, -2)
            gate.set()
            while not (reached := held.here.wait(0.001)) and not second.done():
                pass
            threading.setprofile(None)
            def check():
                assert all(each.done() for each in (first, second)), step
            if reached:
                in_child(check)
            held.go_on.set()
            assert (first.result(20), second.result(20)) == (True, 2)
            pool.shutdown()
            return reached
        step = 1
        while forked_at(step):
            step += 1
        print(step > 20)
    """
    assert outcome(program) == (0, "True\n", "")


def test_a_child_forked_while_threads_submit_never_inherits_a_taken_lock() -> None:
    program = f"""
        {CHILD}
        stop = threading.Event()
        pools = [WorkerPool(2), WorkerPool(2, max_pending=1)]
        def hammer(pool):
            while not stop.is_set():
                pool.submit(abs, -1).result(20)
        threads = [threading.Thread(target=hammer, args=(pool,)) for pool in pools]
        for thread in threads:
            thread.start()
        def check():
            for pool in pools:
                assert pool.submit(abs, -7).result(20) == 7
                pool.shutdown()
        for _ in range(30):
            in_child(check)
        stop.set()
    """
    assert outcome(program) == (0, "", "")


def test_a_child_forked_by_a_task_goes_on_as_the_only_worker() -> None:
    program = f"""
        {CHILD}
        pool = WorkerPool(2, "crew")
        def check():
            assert pool.statistics().threads == pool.statistics().running == 1
            assert pool.submit(lambda: threading.current_thread().name).result(20) == "crew_1"
        pool.submit(in_child, check).result(20)
    """
    assert outcome(program) == (0, "", "")


def test_a_child_finds_the_futures_of_its_parents_tasks_cancelled_in_whatever_state_they_were() -> None:
    program = f"""
        {CHILD}
        import asyncio
        from concurrent.futures import CancelledError, as_completed
        pool = WorkerPool(1, max_pending=3)
        gate, begun = threading.Event(), threading.Event()
        running = pool.submit(lambda: begun.set() or gate.wait())
        begun.wait(20)
        done_before = pool.submit_within(20, abs, -1)
        watched, plain = (pool.try_submit(abs, -1) for _ in range(2))
        called = []
        watched.add_done_callback(called.append)
        done_before.cancel()
        blocked = []
        line = threading.Thread(target=lambda: blocked.append([pool.submit(abs, -n) for n in range(9)]))
        line.start()
        while not pool.statistics().blocked:
            time.sleep(0.001)
        def check():
            for future in (running, watched, plain, done_before):
                try:
                    future.result(20)
                except CancelledError:
                    assert future.done() and future.cancelled() and not future.cancel() is None
                else:
                    raise AssertionError(future)
            assert len(list(as_completed([running, watched, plain], 20))) == 3
            async def loop():
                try:
                    await asyncio.wait_for(asyncio.wrap_future(running), 20)
                except asyncio.CancelledError:
                    return "cancelled"
            assert asyncio.run(loop()) == "cancelled"
            assert not called
        in_child(check)
        gate.set()
        assert (running.result(20), watched.result(20), plain.result(20)) == (True, 1, 1)
        line.join(20)
    """
    assert outcome(program) == (0, "", "")


def test_a_task_that_forks_goes_on_in_the_child_and_its_future_with_it() -> None:
    program = """
        pool = WorkerPool(2)
        def fork():
            read, write = os.pipe()
            if os.fork() == 0:
                tell = lambda: os.write(write, str(future.result(20)).encode()) and os._exit(0)
                threading.Thread(target=tell).start()
                return "of the child"
            return os.read(read, 100).decode()
        gate = threading.Event()
        future = pool.submit(lambda: gate.wait(20) and fork())
        gate.set()
        print(future.result(20))
    """
    assert outcome(program) == (0, "of the child\n", "")


def test_a_child_of_multiprocessing_exits_although_the_parent_has_busy_workers() -> None:
    program = """
        import multiprocessing
        pool = WorkerPool(1, idle_timeout=None)
        gate = threading.Event()
        pool.submit(gate.wait)
        child = multiprocessing.get_context("fork").Process(target=abs, args=(-1,))
        child.start()
        child.join(20)
        print(child.exitcode)
        gate.set()
    """
    assert outcome(program) == (0, "0\n", "")


def test_a_child_that_a_task_forked_exits_with_0() -> None:
    program = """
        import multiprocessing
        def fork():
            child = multiprocessing.get_context("fork").Process(target=abs, args=(-1,))
            child.start()
            child.join(20)
            return child.exitcode
        pool, other = WorkerPool(1), WorkerPool(1)
        other.submit(abs, -1).result(20)
        print(pool.submit(fork).result(20))
    """
    assert outcome(program) == (0, "0\n", "")


def test_a_child_that_a_task_forked_finishes_what_it_was_given_before_it_exits() -> None:
    program = """
        import multiprocessing
        pool = WorkerPool(2)
        def submit_and_leave():
            pool.submit(lambda: (time.sleep(0.05), os.write(1, b"done ")))
        def fork():
            child = multiprocessing.get_context("fork").Process(target=submit_and_leave)
            child.start()
            child.join(20)
            return child.exitcode
        print(pool.submit(fork).result(20))
    """
    assert outcome(program) == (0, "done 0\n", "")
