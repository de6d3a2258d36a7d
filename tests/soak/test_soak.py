"""Thousands of migrations, in a row in a few pairs of processes: no thread, descriptor or memory of them is left.

A thousand have their devices' state in sections, as QEMU's; a thousand more have all of it that can be over multifd.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import pytest

from migpool.lab.run.side import Footprint

pytestmark = pytest.mark.soak

COUNT = int(os.environ.get("MIGPOOL_SOAK", "1000"))
EVERY = ("inline", "per-device+receiver", "per-device", "pool", "elastic+receiver", "elastic", "blocking-aware", "poll")
LIMIT = 1.0 * COUNT + 60
GROWTH = 4 << 20
"""Bytes of resident memory by which the last quarter may exceed the second: some 16 KiB a migration."""


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


@pytest.fixture
def over_multifd(tmp_path: Path) -> str:
    """The scenario ``small`` with all that can cross over the multifd channels there, and jobs that share a device.

    One more device has a state of parts with tags, of which it serves three at once.
    """
    text = resources.files("migpool.scenario").joinpath("shipped", "small.toml").read_text("utf-8")
    text = text.replace('{profile = "tiny"}', '{profile = "tiny", precopy = true, initial_size = "100KiB"}')
    assert "precopy" in text
    scenario = tmp_path / "over-multifd.toml"
    tagged = '[[devices]]\nplugin = "vfio"\noptions = {profile = "tiny", engines = 3, bus = 9}\n'
    scenario.write_text(f'{text}\n{tagged}\n[migration]\nvmsd = "multifd"\nlive = "multifd"\nin_flight = 2\n')
    return str(scenario)


@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize(
    ("wire", "model", "share"),
    [
        *(("main-channel", model, 1 / 2) for model in ("per-device+receiver", "pool")),
        *(("multifd", model, 1 / len(EVERY)) for model in EVERY),
    ],
)
def test_nothing_grows(
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    over_multifd: str,
    wire: str,
    model: str,
    share: float,
) -> None:
    address = f"unix:{tmp_path / 'soak'}"
    count = max(8, round(COUNT * share))
    scenario = over_multifd if wire == "multifd" else "small"
    destination = start("receive", scenario, "--listen", address, "--model", model, "--count", str(count))
    source = start("send", scenario, "--to", address, "--model", model.split("+")[0], "--count", str(count))
    left: dict[str, list[Footprint]] = {"source": [], "destination": []}

    def listen(process: subprocess.Popen[str]) -> None:
        """Hear what is left after each migration; the process says so, for only it knows when one is over."""
        assert process.stderr is not None
        for line in process.stderr:
            said = json.loads(line)
            if said["event"] == "left behind":
                left[said["side"]].append(Footprint(said["threads"], said["descriptors"], said["resident_bytes"]))

    listeners = [threading.Thread(target=listen, args=[process]) for process in (source, destination)]
    for listener in listeners:
        listener.start()
    assert source.wait(LIMIT) == 0
    assert destination.wait(60) == 0
    for listener in listeners:
        listener.join(20)
    for after in left.values():
        assert len(after) == count
        # The first ones load what is loaded once.
        early, late = after[count // 4 : count // 2], after[-count // 4 :]
        # The kernel may still count a thread for a moment that has been joined; one that is left is in all that follow.
        assert min(one.threads for one in late) <= min(one.threads for one in early)
        assert max(one.descriptors for one in late) <= min(one.descriptors for one in early)
        assert max(one.resident_bytes for one in late) <= max(one.resident_bytes for one in early) + GROWTH
