"""Blocks of the pages that take more than a moment, or a library that only their readers need: ``make docs``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.docs.blocks import BLOCKS, block, of_kind
from tests.docs.console import World, typed
from tests.support import ROOT
from tests.support.commandline import migpool
from tests.support.sweeps import rows

pytestmark = [pytest.mark.site, pytest.mark.timeout(300)]

# What a reader has besides: a function of theirs, and something to give to it.
GIVEN: Final = {"README.md": "def work(item: object) -> None: ...\n\nitem = 7\n\n"}
SAME_AS_THE_CODE: Final = "docs/architecture.md"
"""Its Python is that of jobs without their types, as ``tests/core/test_architecture.py`` sees."""


def test_the_types_of_all_python_are_right(tmp_path: Path) -> None:
    shown = [one for one in BLOCKS if one.kind == "python" and one.page != SAME_AS_THE_CODE]
    assert len(shown) >= 9
    for number, one in enumerate(shown):
        name = re.sub(r"\W", "_", one.page)
        (tmp_path / f"block_{number}_{name}.py").write_text(GIVEN.get(one.page, "") + one.text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), str(tmp_path)],
        capture_output=True, text=True, timeout=280, check=False, cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the example of the page about sweeps has run."""
    path = tmp_path_factory.mktemp("swept")
    (path / "sweep.toml").write_text(block("docs/sweeps.md", "toml"))
    results = path / "sweep-devices-and-channels"
    ended = migpool("lab", "sweep", str(path / "sweep.toml"), "--results", str(results))
    assert ended.code == 0, ended.err
    return path


def test_a_sweep_is_read_by_pandas_as_shown(swept: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("docs/sweeps.md", "python")],
        capture_output=True, text=True, timeout=100, check=False, cwd=swept,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(\d+) ", done.stdout, re.MULTILINE) == ["1", "4", "8"]
    assert "pool+receiver" in done.stdout


def test_a_sweep_is_read_by_duckdb_as_shown(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    monkeypatch.chdir(swept)
    (sql,) = (one.text for one in of_kind("sql"))
    with duckdb.connect() as base:
        found = dict(base.execute(sql).fetchall())
    kept = rows(swept / "sweep-devices-and-channels")
    assert set(found) == {row["model"] for row in kept}
    times = sorted(row["downtime_ms"] for row in kept if row["model"] == "inline")
    middle = len(times) // 2
    assert found["inline"] == pytest.approx((times[middle - 1] + times[middle]) / 2)


def test_the_commands_of_contributing_find_their_tests() -> None:
    lines = typed(block("CONTRIBUTING.md", "console", ".venv/bin/pytest"))
    asked = [words[1:] for line in lines for words in line.commands if words[0] == ".venv/bin/pytest"]
    assert asked
    for words in asked:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *words],
            capture_output=True, text=True, timeout=100, check=False, cwd=ROOT,
            env={**os.environ, "PYTEST_ADDOPTS": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with ExitStack() as stack:
        yield World("docs/vfio-user.md", tmp_path, monkeypatch, stack)


def test_devices_that_are_served_as_shown_migrate_as_shown(world: World, tmp_path: Path) -> None:
    for line in typed(block("docs/vfio-user.md", "console", "-n 4")):
        world.type(line.commands[0])
    shown = world.where(block("docs/vfio-user.md", "toml", "count = 4"))
    (tmp_path / "served.toml").write_text(f'name = "served"\n{shown}')
    world.type(["migpool", "run", "served.toml", "--model", "pool"])


def test_a_server_is_checked_as_shown(world: World) -> None:
    for name in ("/run/a", "/run/b"):
        world.type(["migpool", "vfio", "serve", "tiny", "--socket", name])
    (line,) = typed(block("docs/vfio-user.md", "console", "conformance vfio"))
    assert " conforms" in world.type([*line.commands[0], "--models", "pool:1"])
