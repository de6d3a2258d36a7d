"""Guarantee 1, in CPython's own words: its tests of ThreadPoolExecutor, with a WorkerPool in that one's place.

They are part of ``test``, which many installations of Python leave out.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

RUNNER = ROOT / "tests" / "support" / "cpython_runner.py"
CLASSES = [
    "FutureTests",
    "ThreadPoolAsCompletedTest",
    "ThreadPoolExecutorTest",
    "ThreadPoolFailingInitializerTest",
    "ThreadPoolInitializerTest",
    "ThreadPoolShutdownTest",
    "ThreadPoolWaitTests",
]


def runner(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, RUNNER, *arguments], capture_output=True, text=True, timeout=110, check=False, env=environment
    )


@pytest.fixture(scope="module")
def available() -> list[str]:
    listed = runner("list")
    assert listed.returncode == 0, listed.stderr
    return listed.stdout.split()


@pytest.mark.parametrize("name", CLASSES)
def test_cpythons_own_tests_pass(available: list[str], name: str) -> None:
    if not available:
        pytest.skip("this Python comes without test.test_concurrent_futures")
    assert name in available
    done = runner("run", name)
    assert done.returncode == 0, done.stderr


def test_no_class_of_cpythons_tests_is_left_out(available: list[str]) -> None:
    if not available:
        pytest.skip("this Python comes without test.test_concurrent_futures")
    assert sorted(available) == CLASSES
