"""Sweeps on Dask workers: two thousand points while everything is killed once, and who may run real migrations."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commandline import migpool, started
from tests.support.dask_cluster import DaskCluster, cluster
from tests.support.sweeps import numbers, parts, rows, wait_for_parts, written

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SPACE = """
[[axes]]
key = "channels.count"
values = [1, 2, 3, 4]
[[axes]]
key = "devices.0.options.stop_time"
least = "1ms"
most = "20ms"
[[axes]]
key = "memory.budget"
least = "256KiB"
most = "4MiB"
multiple = "64KiB"
"""
TOP = 'models = ["inline", "pool", "per-device", "poll"]\nsample = 500'


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[DaskCluster]:
    with cluster(tmp_path) as made:
        yield made


def test_two_thousand_points_while_scheduler_worker_and_client_are_killed(dask: DaskCluster, tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = ("lab", "sweep", str(written(tmp_path, TOP, SPACE)), "--results", str(results), "--cluster", dask.address)
    dask.worker("one")
    dask.worker("two")
    dask.wait_for_workers("one", "two")
    with started(*command) as first:
        wait_for_parts(results, 2)
        dask.kill("one")
        wait_for_parts(results, 4)
        dask.kill("scheduler")
        dask.kill("two")  # which would look for its scheduler for a while
        dask.scheduler()
        dask.worker("three")
        dask.wait_for_workers("three")
        wait_for_parts(results, len(parts(results)) + 1)
        os.kill(first.process.pid, signal.SIGKILL)
        assert first.all_gone()
    before, there = parts(results), numbers(results)
    assert 0 < len(there) < 2000, "it was over before its client was killed"
    with started(*command) as second:
        second.process.wait(400)
        ended = second.wait()
    assert ended.code == 0, ended.err
    assert {name: told for name, told in parts(results).items() if name in before} == before
    assert numbers(results) == list(range(2000))
    assert {row["outcome"] for row in rows(results)} == {"simulated"}


def test_real_points_run_on_workers_that_are_marked_and_nowhere_else(dask: DaskCluster, tmp_path: Path) -> None:
    axes = '[[axes]]\nkey = "channels.count"\nvalues = [1, 2]'
    file = written(tmp_path, 'mode = "real"\nmodels = ["pool"]\nrepeats = 2', axes)
    command = ("lab", "sweep", str(file), "--results", str(tmp_path / "results"), "--cluster", dask.address)
    alone = migpool(*command)
    assert alone.code == 2
    assert "(0 workers) has the resource real" in alone.err
    dask.worker("unmarked")
    dask.wait_for_workers("unmarked")
    unmarked = migpool(*command)
    assert "(1 worker) has the resource real" in unmarked.err
    dask.worker("marked", "--resources", "real=1")
    dask.wait_for_workers("marked")
    ended = migpool(*command)
    assert ended.code == 0, ended.err
    assert [row["outcome"] for row in rows(tmp_path / "results")] == ["completed"] * 4


def test_a_scheduler_that_is_not_there_is_said(tmp_path: Path) -> None:
    file = written(tmp_path)
    ended = migpool("lab", "sweep", str(file), "--results", str(tmp_path / "results"), "--cluster", "tcp://127.0.0.1:9")
    assert ended.code == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in ended.err
