"""For every test: no thread, process, descriptor or file in the temporary directory outlives it."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

LIMIT = 5.0

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("migpool", deadline=None)
settings.load_profile("migpool")


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread is not threading.main_thread()}


def descriptors() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except OSError:
            continue  # the descriptor that the listing itself used
    return found


def children() -> set[str]:
    """Processes below this one, zombies among them."""
    found: set[str] = set()
    waiting = [str(os.getpid())]
    while waiting:
        pid = waiting.pop()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                below = task.read_text().split()
            except OSError:
                continue
            found.update(below)
            waiting.extend(below)
    return found


def _left(before: tuple[set[str], dict[str, str], set[str]]) -> str:
    new_threads = threads() - before[0]
    new_descriptors = {fd: what for fd, what in descriptors().items() if before[1].get(fd) != what}
    new_children = children() - before[2]
    left = []
    if new_threads:
        left.append(f"threads {sorted(new_threads)}")
    if new_descriptors:
        left.append(f"descriptors {new_descriptors}")
    if new_children:
        left.append(f"processes {sorted(new_children)}")
    return ", ".join(left)


@pytest.fixture(autouse=True)
def nothing_outlives_the_test(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fail a test that leaves something behind. What ends by itself is given a moment to do so."""
    tmp_path_factory.getbasetemp()  # made before the first look, so that it is nobody's leftover
    before = (threads(), descriptors(), children())
    yield
    deadline = time.monotonic() + LIMIT
    while (left := _left(before)) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert not left, f"{request.node.name} left behind: {left}"
