"""Sweeps for tests: files of them, and what lies in their directories."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from migpool.sweeps.form import Sweep, load_sweep

AXES = """
[[axes]]
key = "channels.count"
values = [1, 2, 4]

[[axes]]
key = "devices.0.options.load_config_time"
values = ["1ms", "10ms"]
"""
SCENARIO = """
name = "swept"

[[devices]]
plugin = "vfio"
count = 2
options = {profile = "tiny", size = "256KiB", chunk = "64KiB"}

[memory]
budget = "1MiB"
chunk = "64KiB"
"""


def written(folder: Path, top: str = "", rest: str = AXES, scenario: str = SCENARIO) -> Path:
    """The file of a sweep, and beside it that of its scenario."""
    (folder / "scenario.toml").write_text(scenario)
    path = folder / "sweep.toml"
    path.write_text(f'name = "made"\nscenario = "scenario.toml"\n{top}\n{rest}')
    return path


def made(folder: Path, top: str = "", rest: str = AXES, scenario: str = SCENARIO) -> Sweep:
    return load_sweep(written(folder, top, rest, scenario))


def parts(results: Path) -> dict[str, tuple[int, int]]:
    """The files of points, each with what tells whether it was written anew."""
    found = {}
    for path in (results / "points").glob("[0-9]*.parquet"):
        told = path.stat()
        found[path.name] = (told.st_ino, told.st_mtime_ns)
    return found


def numbers(results: Path) -> list[int]:
    """The points in all of them, as often as they are there."""
    return sorted(
        number
        for path in (results / "points").glob("[0-9]*.parquet")
        for number in parquet.read_table(path, columns=["point"]).column("point").to_pylist()
    )


def rows(results: Path) -> list[dict[str, Any]]:
    """The results, once they are complete."""
    return list(parquet.read_table(results / "results.parquet").to_pylist())


def wait_for_parts(results: Path, count: int, limit: float = 60.0) -> None:
    """Until so many files of points are there."""
    deadline = time.monotonic() + limit
    while len(parts(results)) < count:
        assert time.monotonic() < deadline, f"there are {len(parts(results))} files of points, not {count}"
        time.sleep(0.02)
