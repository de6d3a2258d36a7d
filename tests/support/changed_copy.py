"""A copy of the package with some lines changed, and a program that runs with it: it shows what a change must touch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import migpool

TESTS = Path(__file__).parents[1]


def found_with(directory: Path, changes: list[tuple[ModuleType, str, str]], program: str) -> Any:
    """What a program prints as JSON that runs with a changed copy.

    Arguments:
        directory: where the copy is made.
        changes: module, a text that stands in it once, and what stands there instead.
        program: may import the helpers of these tests.
    """
    package = Path(migpool.__file__).parent
    shutil.copytree(package, directory / "migpool", ignore=shutil.ignore_patterns("__pycache__"))
    for module, before, after in changes:
        file = directory / "migpool" / Path(str(module.__file__)).relative_to(package)
        text = file.read_text("utf-8")
        assert text.count(before) == 1
        file.write_text(text.replace(before, after), "utf-8")
    path = os.pathsep.join(map(str, (directory, TESTS.parent)))  # the copy before what it is of
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        cwd=directory,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
