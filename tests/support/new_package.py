"""A package that ``migpool new-device`` or ``new-model`` wrote: made known to Python, and tested by its own tests."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path


def announce(package: Path) -> None:
    """What an installer would leave beside the sources, so that the test needs no build."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = package / "src" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((group, points),) = project["entry-points"].items()
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))


def run_pytest(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The package's own tests."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=package,
        env={"PYTHONPATH": str(package / "src")},
    )
