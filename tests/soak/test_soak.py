"""A thousand migrations in a row in one pair of processes: no thread, descriptor or memory is left of any of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak

COUNT = int(os.environ.get("MIGPOOL_SOAK", "1000"))
LIMIT = 1.0 * COUNT + 60
GROWTH = 4 << 20
"""Bytes of resident memory by which the second half may exceed the first: less than 10 KiB a migration."""


@dataclass(frozen=True)
class Sample:
    """What a process had at one moment."""

    threads: int
    descriptors: int
    resident: int


def sample(pid: int) -> Sample:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    return Sample(
        int(status["Threads"]), len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["VmRSS"].split()[0]) * 1024
    )


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "migpool", "--log-format", "json", "-v", *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait(20)
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize("model", ["per-device+receiver", "pool"])
def test_nothing_grows(start: Callable[..., subprocess.Popen[str]], tmp_path: Path, model: str) -> None:
    address = f"unix:{tmp_path / 'soak'}"
    count = str(COUNT // 2)  # half of them under each model
    destination = start("receive", "small", "--listen", address, "--model", model, "--count", count)
    source = start("send", "small", "--to", address, "--model", model.split("+")[0], "--count", count)
    taken_of: dict[str, list[Sample]] = {}

    def watch(side: str, process: subprocess.Popen[str]) -> None:
        """Sample the process at the same place of every tenth migration; it waits for the other one there."""
        taken = taken_of[side] = []
        assert process.stderr is not None
        begun = 0
        for line in process.stderr:
            if json.loads(line).get("state") == "setup":
                begun += 1
                if begun % 10 == 0:
                    taken.append(sample(process.pid))

    watchers = [threading.Thread(target=watch, args=one) for one in (("source", source), ("destination", destination))]
    for watcher in watchers:
        watcher.start()
    assert source.wait(LIMIT) == 0
    assert destination.wait(60) == 0
    for watcher in watchers:
        watcher.join(20)
    for taken in taken_of.values():
        assert len(taken) == COUNT // 2 // 10
        half = len(taken) // 2
        first, second = taken[half // 2 : half], taken[half:]
        assert max(one.threads for one in second) <= max(one.threads for one in first)
        assert max(one.descriptors for one in second) <= max(one.descriptors for one in first)
        assert max(one.resident for one in second) <= max(one.resident for one in first) + GROWTH
