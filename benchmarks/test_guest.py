"""The benchmark of the guest, small: it runs, and says what the guest saw and what the logs cost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 120


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="there is no /dev/kvm")
def test_the_guest_says_what_it_saw_and_the_logs_are_compared() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.guest", "--models", "pool", "--rounds", "1"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "pool, ring, 1 runs:" in ended.stdout
    assert "all 2: apart by" in ended.stdout
    assert "2000 pages/s each, ring: a look" in ended.stdout
    assert "16 GiB, one page written, bitmap: a look" in ended.stdout
