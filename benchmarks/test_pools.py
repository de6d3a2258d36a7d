"""What a task costs in other pools of threads, against WorkerPool in the same run.

``pytest benchmarks/test_pools.py -s`` prints a table of ratios. A package that is not installed is skipped with its
name: the extra ``bench`` has them all. ``test_workerpool.py`` looks at the standard library's pool more closely.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.contenders import CONTENDERS, UNCONTENDED, Contender, Ours
from benchmarks.paired import Table, paired

ROUNDS = 9
TASKS = {"batch": 1000, "round_trips": 100, "contended": 1000}
WORKERS = (1, 2, 4, 8)
ROWS = [
    (kind, work, workers)
    for work in TASKS
    for workers in WORKERS
    for kind in CONTENDERS
    if work != "contended" or kind not in UNCONTENDED
]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    made = Table("µs a task, medians; ratio: theirs over ours", "theirs", "ours")
    yield made
    print(f"\n{made}")  # noqa: T201


@pytest.mark.parametrize(
    ("kind", "work", "workers"), ROWS, ids=[f"{kind.__name__}-{work}-{workers}" for kind, work, workers in ROWS]
)
def test_ratio(kind: type[Contender], work: str, workers: int, table: Table) -> None:
    if kind.needs and importlib.util.find_spec(kind.needs) is None:
        pytest.skip(f"{kind.needs} is not installed: pip install -e '.[bench]'")
    tasks = TASKS[work]
    theirs, ours = kind(workers), Ours(workers)
    try:
        found = paired(lambda: getattr(ours, work)(tasks), lambda: getattr(theirs, work)(tasks), ROUNDS)
    finally:
        theirs.close()
        ours.close()
    table.add(f"{kind.__name__}, {work}, {workers} workers", found, 1e-6 * tasks)
    assert len(found.ratios) == ROUNDS


@pytest.mark.benchmark(min_rounds=3, max_time=0.2)
@pytest.mark.parametrize("work", TASKS)
@pytest.mark.parametrize("workers", WORKERS)
def test_cost(benchmark: BenchmarkFixture, work: str, workers: int) -> None:
    """WorkerPool's own figures, for ``--benchmark-compare`` between commits."""
    ours = Ours(workers)
    try:
        benchmark(getattr(ours, work), TASKS[work])
    finally:
        ours.close()
