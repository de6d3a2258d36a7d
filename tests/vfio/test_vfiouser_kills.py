"""One of three device servers, a process each, is killed at any instant of a migration: both ends name it, the others'
devices run again at once, and with a new server in its place the machine migrates."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from migpool.device import Device, DeviceContext, OptionValue, Side
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool_plugins.vfio import devices
from tests.support import LONG
from tests.support.rig import KIB, MODELS, Models, Pair
from tests.support.vfio.vfiouser_rig import LIMIT, RawClient

COUNT = 3
FEW, MANY = (12 if LONG else 3), 100
SIZE, CHUNK = 256 * KIB, 4 * KIB
ALL = COUNT * SIZE


class Servers:
    """A server of one device for each device of both ends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self.restart()

    def restart(self) -> None:
        self.close()
        begun = [self.begin(self.path(side, at)) for side in ("source", "destination") for at in range(COUNT)]
        for path in begun:
            self.await_one(path)

    def path(self, side: str, at: int) -> str:
        return f"{self.directory}/{side}.{at}"

    def begin(self, path: str) -> str:
        options = ["-o", f"size={SIZE}", "-o", f"chunk={CHUNK}"]
        command = [sys.executable, "-m", "migpool", "vfio", "serve", "tiny", "--socket", path, *options]
        self._processes[path] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return path

    def await_one(self, path: str) -> None:
        output = self._processes[path].stdout
        assert output is not None
        assert path in output.readline()

    def serves(self, path: str) -> bool:
        return path in self._processes

    def kill(self, path: str) -> None:
        process = self._processes.pop(path)
        process.kill()
        process.communicate(timeout=LIMIT)

    def close(self) -> None:
        for path in list(self._processes):
            self.kill(path)


@pytest.fixture
def servers() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory() as made, closing(Servers(Path(made))) as started:
        yield started


def prepared(servers: Servers, models: Models) -> tuple[Pair, list[Device]]:
    def opened(side: Side) -> list[Device]:
        options: dict[str, OptionValue] = {"backend": "vfio-user", "socket": f"{servers.directory}/{side}"}
        return list(devices(DeviceContext(side, options, COUNT)))

    source, destination = opened("source"), opened("destination")
    settings = Settings(channels=2, chunk=CHUNK, budget=1024 * KIB, peer_limit=LIMIT)
    pair = Pair(source, destination, settings=settings, models=models)
    pair.prepare(servers.directory)
    return pair, [*source, *destination]


def killed_at(servers: Servers, models: Models, victim: str, sent_bytes: int) -> float | None:
    """Kill a server once so much was sent; returns after how many seconds the last healthy device of the source ran."""
    pair, opened = prepared(servers, models)
    over = threading.Event()
    took = 0.0

    def kill() -> None:
        nonlocal took
        while pair.sender.bytes < sent_bytes and not over.is_set():
            time.sleep(0.0005)
        servers.kill(victim)
        begin = time.monotonic()
        for path in [servers.path("source", at) for at in range(COUNT)]:
            if path != victim:
                client = RawClient(path)
                while client.state != "RUNNING" and time.monotonic() - begin < LIMIT:
                    time.sleep(0.001)
                client.close()
        took = time.monotonic() - begin

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        sent, got = pair.go()
        over.set()
        killer.join(2 * LIMIT)
    finally:
        for device in opened:
            device.close()
    if sent.outcome is got.outcome is State.COMPLETED and victim.startswith(servers.path("source", 0)[:-1]):
        servers.restart()  # all had been read of it: nobody asks it any more, and the machine has left the source
        return None
    assert (sent.outcome, got.outcome) == (State.FAILED, State.FAILED)
    for report in (sent, got):
        assert f"the vfio-user server {victim} " in report.error, report
    for side in ("source", "destination"):
        for path in [servers.path(side, at) for at in range(COUNT)]:
            if path != victim:
                client = RawClient(path)
                assert client.state == "RUNNING"
                client.close()
    return took


def states(servers: Servers, side: str) -> list[str]:
    """A hash of each device's state, by a stop-copy; the devices run afterwards."""
    found = []
    for path in [servers.path(side, at) for at in range(COUNT)]:
        client = RawClient(path)
        assert not client.go("STOP_COPY")
        state = b""
        while data := client.read(SIZE)[1]:
            state += data
        assert len(state) >= SIZE
        assert not client.go("RUNNING")
        client.close()
        found.append(hashlib.sha256(state).hexdigest())
    return found


def sweep(servers: Servers, count: int, seed: int) -> list[float]:
    numbers = random.Random(seed)
    took: list[float] = []
    for turn in range(count):
        models = numbers.choice(MODELS).values[0]
        victim = servers.path(("source", "destination")[turn % 2], numbers.randrange(COUNT))
        at = numbers.randrange(1, ALL // 2)
        try:
            if (seconds := killed_at(servers, models, victim, at)) is not None:  # type: ignore[arg-type]
                took.append(seconds)
        except AssertionError as error:
            raise AssertionError(f"turn {turn}, seed {seed}: {victim} killed after {at} bytes: {error}") from error
        if not servers.serves(victim):
            servers.await_one(servers.begin(victim))
    return took


def arrives(servers: Servers) -> None:
    before = states(servers, "source")
    pair, opened = prepared(servers, MODELS[1].values[0])  # type: ignore[arg-type]
    try:
        sent, got = pair.go()
    finally:
        for device in opened:
            device.close()
    assert (sent.error, got.error) == ("", "")
    assert states(servers, "destination") == before


def test_a_server_is_killed_at_some_instants(servers: Servers) -> None:
    sweep(servers, FEW, seed=1)
    arrives(servers)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_server_is_killed_at_many_instants(servers: Servers) -> None:
    """The figures are of the machine that runs it; pytest -s shows them."""
    took = sorted(sweep(servers, MANY, seed=2))
    arrives(servers)
    told = f"the others ran after {took[len(took) // 2] * 1e3:.0f} ms (median), {took[-1] * 1e3:.0f} ms at most"
    sys.stdout.write(f"\n{len(took)} of {MANY} kills in time: {told}\n")
