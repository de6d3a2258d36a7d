"""The benchmark of guest memory, small: it runs, and compares what arrived."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ram.qemu import qemu

LIMIT = 120


@pytest.mark.skipif(qemu() is None, reason="qemu-system-x86_64 is not installed")
def test_memory_is_measured_beside_qemu() -> None:
    arguments = ["--size", "64", "--rounds", "1"]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.ram", *arguments],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "round 1: migpool" in ended.stdout
    assert "median ratio" in ended.stdout
    assert "limit 64: pass" in ended.stdout
