"""The C program: built from ``c/`` with the system's compiler when a source is newer than it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.datapath.failure import BenchmarkFailure

__all__ = ["compiler", "program"]

SOURCES = Path(__file__).parent / "c"
BUILD = Path(__file__).parents[2] / "build" / "datapath"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread")
LIMIT = 60.0


def compiler() -> str:
    """The C compiler's command: ``CC`` of the environment, else ``cc`` or ``gcc``.

    Raises:
        BenchmarkFailure: there is none.
    """
    for command in (os.environ.get("CC"), "cc", "gcc"):
        if command and shutil.which(command):
            return command
    raise BenchmarkFailure("the program to compare with is written in C: install gcc, or set CC to a C compiler")


def program() -> Path:
    """Build the program if it is missing or older than its sources, and return where it is.

    Raises:
        BenchmarkFailure: there is no compiler, or it refuses the sources.
    """
    sources = sorted(SOURCES.glob("*.c"))
    newest = max(path.stat().st_mtime for path in SOURCES.iterdir())
    binary = BUILD / "datapath"
    if binary.exists() and binary.stat().st_mtime >= newest:
        return binary
    BUILD.mkdir(parents=True, exist_ok=True)
    # Under another name first: two benchmarks that start together must not run half a program.
    fresh = BUILD / f"datapath.{os.getpid()}"
    made = subprocess.run(
        [compiler(), *FLAGS, "-o", str(fresh), *map(str, sources)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if made.returncode:
        raise BenchmarkFailure(f"the C program cannot be built: {' '.join(made.stderr.split())[:400]}")
    fresh.replace(binary)
    return binary
