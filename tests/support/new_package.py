"""Packages with plug-ins, made known to Python without a build: what ``migpool new-device`` wrote, or a made one."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.commandline import announced


def announce(package: Path) -> None:
    """What an installer would leave beside the sources, so that the test needs no build."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = package / "src" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((group, points),) = project["entry-points"].items()
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))


@contextlib.contextmanager
def installed(module: ModuleType, name: str, folder: Path, entry_points: str) -> Iterator[None]:
    """A copy of a module as a package of its own, as an installer would leave it; for this process and those it starts.

    Arguments:
        name: the copy's, and the package's.
        entry_points: what it announces, as ``entry_points.txt`` has it.
    """
    assert module.__file__ is not None
    shutil.copy(module.__file__, folder / f"{name.replace('-', '_')}.py")
    announced(folder, name, entry_points)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder))
        yield
    importlib.invalidate_caches()


def run_pytest(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The package's own tests, without what only this project's need of pytest's plug-ins."""
    unneeded = ("cacheprovider", "hypothesispytest", "benchmark", "xdist", "rerunfailures", "timeout")
    without = [word for name in unneeded for word in ("-p", f"no:{name}")]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *without, *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=package,
        env={"PYTHONPATH": str(package / "src")},
    )
