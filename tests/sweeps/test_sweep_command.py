"""``migpool lab sweep`` on processes of this host: whole, killed, gone on with, and of wrong input."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from migpool.errors import MigpoolError
from migpool.sweeps.local import Deaths
from migpool.sweeps.measure import measure
from migpool.sweeps.points import Plan
from migpool.sweeps.run import task_of
from tests.support.commandline import migpool, started
from tests.support.sweeps import AXES, made, numbers, parts, rows, wait_for_parts, written

SLOW = """
name = "slow"
[[devices]]
plugin = "vfio"
count = 8
options = {profile = "tiny", size = "2MiB", chunk = "16KiB"}
[memory]
budget = "4MiB"
chunk = "16KiB"
"""
MANY = """
[[axes]]
key = "channels.count"
values = [1, 2, 3, 4]
[[axes]]
key = "devices.0.options.stop_time"
values = ["1ms", "2ms", "3ms", "4ms", "5ms", "6ms", "7ms", "8ms"]
"""


def spawned(pids: list[int]) -> list[int]:
    """Those that are workers."""
    return [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_what_is_killed_in_the_middle_is_gone_on_with_and_nothing_is_done_twice(tmp_path: Path) -> None:
    results = tmp_path / "results"
    file = written(tmp_path, 'models = ["inline"]', MANY, SLOW)
    command = ("lab", "sweep", str(file), "--results", str(results), "--workers", "2")
    with started(*command) as first:
        wait_for_parts(results, 1)
        os.kill(spawned(first.alive())[0], signal.SIGKILL)
        wait_for_parts(results, 2)
        os.kill(first.process.pid, signal.SIGKILL)
        assert first.all_gone()
    before = parts(results)
    assert 0 < len(numbers(results)) < 32
    with started(*command) as second:
        ended = second.wait()
        assert second.all_gone()
    assert ended.code == 0, ended.err
    assert {name: told for name, told in parts(results).items() if name in before} == before
    assert numbers(results) == list(range(32))
    plan = Plan(made(tmp_path, 'models = ["inline"]', MANY, SLOW))
    expected = measure(task_of(plan, [plan.point(number) for number in (0, 17, 31)])).rows
    found = rows(results)
    assert [found[number]["downtime_ms"] for number in (0, 17, 31)] == [row["downtime_ms"] for row in expected]


def test_ctrl_c_keeps_what_is_there_and_says_how_to_go_on(tmp_path: Path) -> None:
    results = tmp_path / "results"
    file = written(tmp_path, 'models = ["inline"]', MANY, SLOW)
    with started("lab", "sweep", str(file), "--results", str(results), "--workers", "1") as command:
        wait_for_parts(results, 1)
        command.interrupt()
        ended = command.wait()
        assert command.all_gone()
    assert ended.code == 130
    assert f"{len(numbers(results))} of 32 points are there: the same command goes on" in ended.err
    assert not list((results / "points").glob(".*"))


def test_real_points_are_run_and_found_again(tmp_path: Path) -> None:
    results = tmp_path / "results"
    axes = '[[axes]]\nkey = "channels.transport"\nvalues = ["tcp", "unix"]'
    file = written(tmp_path, 'mode = "real"\nmodels = ["pool"]\nrepeats = 1', axes)
    ended = migpool("lab", "sweep", str(file), "--results", str(results), "--workers", "1")
    assert ended.code == 0, ended.err
    found = rows(results)
    assert [(row["channels.transport"], row["outcome"]) for row in found] == [
        ("tcp", "completed"),
        ("unix", "completed"),
    ]
    assert all(row["downtime_ms"] > 0 and row["threads"] > 0 and row["memory_bytes"] > 0 for row in found)
    before = parts(results)
    assert migpool("lab", "sweep", str(file), "--results", str(results), "--workers", "1").code == 0
    assert parts(results) == before


def test_a_directory_belongs_to_one_sweep(tmp_path: Path) -> None:
    results = tmp_path / "results"
    axes = '[[axes]]\nkey = "channels.count"\nvalues = [1]'
    file = written(tmp_path, 'models = ["pool"]', axes)
    command = ("lab", "sweep", str(file), "--results", str(results), "--workers", "1")
    assert migpool(*command).code == 0
    written(tmp_path, 'models = ["inline"]', axes)
    ended = migpool(*command)
    assert ended.code == 2
    assert "has the points of another sweep" in ended.err
    (part,) = (results / "points").glob("*.parquet")
    written(tmp_path, 'models = ["pool"]', axes)
    part.write_bytes(b"PAR1 and then nothing of the kind")
    ended = migpool(*command)
    assert ended.code == 1
    assert "remove it, and its points are computed again" in ended.err
    part.unlink()
    assert migpool(*command).code == 0


def test_points_that_cannot_be_computed_are_told(tmp_path: Path) -> None:
    axes = '[[axes]]\nkey = "memory.budget"\nvalues = ["1MiB", "4KiB"]'
    file = written(tmp_path, 'models = ["pool"]', axes)
    ended = migpool("lab", "sweep", str(file), "--results", str(tmp_path / "results"), "--workers", "1")
    assert ended.code == 1
    assert "1 of 2 points have no downtime, the first: " in ended.err


def test_wrong_usage(tmp_path: Path) -> None:
    assert migpool("lab", "sweep", str(tmp_path / "none.toml")).err.endswith("none.toml: there is no such file\n")
    file = written(tmp_path, 'models = ["pool"]', AXES)
    both = migpool("lab", "sweep", str(file), "--cluster", "tcp://127.0.0.1:1", "--workers", "2")
    assert (both.code, both.err) == (2, "migpool: --workers is for processes of this host: give it, or --cluster\n")


def test_a_task_that_ends_its_workers_again_and_again_is_an_error(tmp_path: Path) -> None:
    plan = Plan(made(tmp_path, 'models = ["pool"]'))
    deaths = Deaths()
    for number in (3, 3, 2):
        deaths.note(task_of(plan, [plan.point(number)]))
    with pytest.raises(MigpoolError, match="3 workers ended over the points from 3 on, 1 of them"):
        deaths.note(task_of(plan, [plan.point(3)]))
