"""WorkerPool in an event loop: submit without blocking it, in line with the threads; its default executor."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from migpool.errors import PoolFull
from migpool.workers.pool import WorkerPool
from tests.support.pool_gates import LIMIT, Caller, Gate, occupy, until


def run(main: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(main, LIMIT))


async def in_line(pool: WorkerPool, waiting: int) -> None:
    """The loop runs on while others wait for room: this is one who sees it."""
    while pool.statistics().blocked < waiting:
        await asyncio.sleep(0)


def test_a_coroutine_waits_for_room_and_the_loop_runs_on() -> None:
    async def main() -> None:
        with WorkerPool(1, max_pending=1) as pool:
            gate = occupy(pool, 1)
            queued = await pool.submit_async(abs, -1)
            waiting = [asyncio.create_task(pool.submit_async(pow, 2, exp=exp)) for exp in (3, 4)]
            await in_line(pool, 2)
            with pytest.raises(PoolFull):
                pool.try_submit(abs, -1)
            threads = pool.statistics().threads
            gate.open()
            assert [await await_twice for await_twice in [queued, *[await each for each in waiting]]] == [1, 8, 16]
            assert threads == pool.statistics().most_threads == 1
            assert pool.statistics().most_queued == 1

    run(main())


def test_coroutines_and_threads_stand_in_one_line() -> None:
    order: list[int] = []

    async def main() -> None:
        with WorkerPool(1, max_pending=0) as pool:
            gate = occupy(pool, 1)
            first = asyncio.create_task(pool.submit_async(order.append, 1))
            await in_line(pool, 1)
            second = Caller(lambda: pool.submit(order.append, 2))
            await in_line(pool, 2)
            third = asyncio.create_task(pool.submit_async(order.append, 3))
            await in_line(pool, 3)
            gate.open()
            await (await first)
            await (await third)
            second.outcome()

    run(main())
    assert order == [1, 2, 3]


def test_who_is_cancelled_in_line_leaves_it_and_his_call_is_not_made() -> None:
    made: list[int] = []

    async def main() -> None:
        with WorkerPool(1, max_pending=0) as pool:
            gate = occupy(pool, 1)
            leaving = asyncio.create_task(pool.submit_async(made.append, 1))
            staying = asyncio.create_task(pool.submit_async(made.append, 2))
            await in_line(pool, 2)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert pool.statistics().blocked == 1
            gate.open()
            await (await staying)

    run(main())
    assert made == [2]


def test_who_is_cancelled_just_as_it_is_served_frees_what_it_was_given() -> None:
    made: list[int] = []

    async def main() -> None:
        with WorkerPool(1, max_pending=1) as pool:
            gate = occupy(pool, 1)
            second = Gate()
            blocker = await pool.submit_async(second)
            leaving = asyncio.create_task(pool.submit_async(made.append, 1))
            await in_line(pool, 1)
            gate.open()  # the worker takes ``second``, whose place in the queue is given to who leaves
            until(lambda: pool.statistics().queued == 1 and not pool.statistics().blocked)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert pool.statistics().queued == 0
            pool.try_submit(made.append, 2)
            second.open()
            await blocker

    run(main())
    assert made == [2]


def test_a_pool_that_is_shut_down_refuses_who_waits() -> None:
    async def main() -> None:
        pool = WorkerPool(1, max_pending=0)
        gate = occupy(pool, 1)
        waiting = asyncio.create_task(pool.submit_async(abs, -1))
        await in_line(pool, 1)
        pool.shutdown(wait=False)
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            await waiting
        gate.open()
        pool.shutdown()

    run(main())


def test_a_loop_that_was_closed_harms_no_worker() -> None:
    with WorkerPool(1, max_pending=0) as pool:
        gate = occupy(pool, 1)
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(pool.submit_async(abs, -1))
        loop.run_until_complete(in_line(pool, 1))
        loop.close()
        gate.open()
        assert pool.submit(abs, -7).result(LIMIT) == 7
        coroutine = waiting.get_coro()
        assert coroutine is not None
        coroutine.close()


def test_to_cancel_the_loops_future_cancels_the_call() -> None:
    made: list[int] = []

    async def main() -> None:
        with WorkerPool(1) as pool:
            gate = occupy(pool, 1)
            future = await pool.submit_async(made.append, 1)
            future.cancel()
            while pool.statistics().queued:
                await asyncio.sleep(0)
            gate.open()

    run(main())
    assert made == []


def test_a_loop_in_a_worker_never_waits_for_its_own_pool() -> None:
    with WorkerPool(1, max_pending=0) as pool:

        async def main() -> asyncio.Future[int]:
            return await pool.submit_async(abs, -7)

        def in_task() -> None:
            asyncio.run(asyncio.wait_for(main(), LIMIT))

        pool.submit(in_task).result(LIMIT)


def test_it_is_taken_for_a_loops_default_executor() -> None:
    async def main() -> None:
        pool = WorkerPool(2)
        asyncio.get_running_loop().set_default_executor(pool)
        assert await asyncio.to_thread(abs, -7) == 7
        assert pool.statistics().completed == 1

    run(main())
