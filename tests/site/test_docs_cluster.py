"""What the page about sweeps types on a Dask cluster, typed on one of this host: ``make docs``."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import block
from tests.docs.console import TINY, typed
from tests.support.commandline import migpool, scenario_file

pytestmark = [pytest.mark.site, pytest.mark.timeout(300)]

LIMIT = 100.0


class Cluster:
    """Dask as its own commands start it, each as it is printed but for the host and the port."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._folder, self._stack = folder, stack
        self._started = 0

    def here(self, word: str) -> str:
        return word.replace("HOST:8786", f"127.0.0.1:{self._port}")

    def dask(self, words: list[str], *more: str) -> None:
        """Start a scheduler or a worker, and wait until it is there."""
        assert words[0] == "dask"
        self._started += 1
        log = self._folder / f"{self._started}.log"
        where = ["--host", "127.0.0.1", *(["--port", str(self._port)] if words[1] == "scheduler" else [])]
        program = Path(sys.executable).parent / "dask"
        with log.open("wb") as said:
            process = subprocess.Popen(
                [program, *map(self.here, words[1:]), *where, "--no-dashboard", *more],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=self._folder,
                env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(self._folder)},
            )  # fmt: skip
        self._stack.callback(self._end, process)
        there = "Scheduler at:" if words[1] == "scheduler" else "Registered to"
        deadline = time.monotonic() + LIMIT
        while there not in log.read_text(errors="replace"):
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            assert process.poll() is None, log.read_text(errors="replace")
            time.sleep(0.1)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Let it end by itself: a worker's nanny ends the worker."""
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(LIMIT)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.toml").write_text(block("docs/sweeps.md", "toml"))
    scenario_file(
        tmp_path / "many", [f"{TINY}\ncount = 2"], '[channels]\ncount = 2\n[compare]\nmodels = ["pool"]\nrepeats = 1'
    )
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path, stack)


def test_a_sweep_on_a_cluster_as_printed(cluster: Cluster) -> None:
    *started, sweep = [line.commands[0] for line in typed(block("docs/sweeps.md", "console", "dask scheduler"))]
    assert [words[1] for words in started] == ["scheduler", "worker", "worker"]
    for words in started:
        cluster.dask(words)
    ended = migpool(*map(cluster.here, sweep[1:]))
    assert ended.code == 0, ended.err
    assert Path("sweep-devices-and-channels/index.html").exists()


def test_two_workers_in_one_comparison_as_printed(cluster: Cluster) -> None:
    assert shutil.which("dask", path=str(Path(sys.executable).parent))
    (line,) = typed(block("docs/sweeps.md", "console", "--hosts A B"))
    scheduler, *_, real, _ = [one.commands[0] for one in typed(block("docs/sweeps.md", "console", "dask scheduler"))]
    cluster.dask(scheduler)
    for name in ("A", "B"):
        cluster.dask(real, "--name", name)
    assert migpool("tls", "new", "pki", "--name", "127.0.0.1").code == 0
    ended = migpool(*map(cluster.here, line.commands[0][1:]))
    assert ended.code == 0, ended.err
    assert ended.err.count("state verified") == ended.err.count("completed") > 0
