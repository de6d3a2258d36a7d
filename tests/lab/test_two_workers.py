"""``compare --hosts``: source and destination on two Dask workers, one of which has another clock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commandline import migpool, started
from tests.support.dask_cluster import DaskCluster, cluster
from tests.support.time_namespace import AHEAD, OFFSET, possible

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SCENARIO = """
name = "two hosts"
[[devices]]
plugin = "vfio"
count = 2
options = {profile = "tiny", size = "4MiB", read_rate = "RATE"}
[memory]
chunk = "64KiB"
"""


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with cluster(tmp_path_factory.mktemp("dask")) as made:
        made.worker("A")
        made.worker("B", before=AHEAD if possible() else ())
        made.worker("C")
        made.wait_for_workers("A", "B", "C")
        yield made


@pytest.fixture(autouse=True, scope="module")
def _first(dask: DaskCluster) -> None:
    """The cluster is there before a test looks for what outlives it."""


def written(folder: Path, rate: str = "100MiB/s") -> str:
    path = folder / "two.toml"
    path.write_text(SCENARIO.replace("RATE", rate))
    return str(path)


def test_results_traces_and_clocks_come_back(dask: DaskCluster, tmp_path: Path) -> None:
    told, page = tmp_path / "r.json", tmp_path / "r.html"
    files = ("--json", str(told), "--report", str(page))
    ended = migpool(
        *("compare", written(tmp_path), "--models", "pool,inline", "--repeats", "1", *files),
        *("--hosts", "A", "B", "--cluster", dask.address),
    )
    assert ended.code == 0, ended.err
    runs = json.loads(told.read_text())["runs"]
    assert len(runs) == 2
    for run in runs:
        assert (run["outcome"], run["verified"]) == ("completed", True)
        # 4 MiB at 100 MiB/s and more; what a clock that is seconds off would make of it is nowhere near.
        assert 40 < run["downtime_ms"] < 1000 * OFFSET
        assert sum(run["attribution"].values()) == pytest.approx(run["downtime_ms"])
        if possible():
            assert run["clock"] == "exchanges"
            assert f"{OFFSET}000 ms ahead" in run["clocks"]
    assert any(run["analysis"] and run["analysis"]["trace"]["destination"]["spans"] for run in runs)
    assert page.stat().st_size > 1 << 20


def test_wrong_workers_are_said(dask: DaskCluster, tmp_path: Path) -> None:
    file = written(tmp_path)
    same = migpool("compare", file, "--models", "pool", "--hosts", "A", "A", "--cluster", dask.address, "--no-report")
    assert (same.code, same.err) == (2, "migpool: A and A are one worker: name two\n")
    none = migpool("compare", file, "--models", "pool", "--hosts", "A", "D", "--cluster", dask.address, "--no-report")
    assert (none.code, none.err) == (2, "migpool: the cluster has no worker 'D'; there are: A, B, C\n")


def test_a_worker_that_is_killed_ends_the_run_and_is_named(dask: DaskCluster, tmp_path: Path) -> None:
    command = ("compare", written(tmp_path, "1MiB/s"), "--models", "pool", "--repeats", "1", "--no-report", "-v")
    with started(*command, "--hosts", "A", "C", "--cluster", dask.address) as run:
        run.complained_of("switchover")
        dask.kill("C")
        ended = run.wait()
        assert run.all_gone()
    assert ended.code == 1
    assert "failed: " in ended.err
    assert "is gone" in ended.err or "ended the connection" in ended.err
