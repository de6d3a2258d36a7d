"""One recording of a QEMU's into QEMU's own loading and into that of each threading model, on the same driver.

With ``--rounds=N`` and ``--state=BYTES`` this is a measurement: each round all contenders in another order, and a line
of JSON for each, of which ``python -m tests.nested.table LOG`` makes a table. Without them it sees to it that both do
the same to the driver.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from migpool.scenario.model_syntax import all_models
from tests.nested.attached import Ends, Way, arrived, attached, ends, fill, migrate, ready, states_of
from tests.nested.driver_calls import Call, calls, probed
from tests.nested.scenarios import capture, scenario
from tests.qemu.tool import Tool, migpool

pytestmark = pytest.mark.timeout(2000)
QEMU = "QEMU"
RUNNING, RESUMING = "2", "4"


@dataclass(frozen=True)
class Loaded:
    """How one contender loaded the devices; milliseconds from the driver's first write of state.

    Arguments:
        written: until its last write had returned.
        busy: in which at least one write was within the driver.
        together: the most writes that were within it at once.
        running: until the last device was told to run.
        threads: how many wrote.
        writes: how many writes there were.
        size: bytes of all of them.
    """

    contender: str
    devices: int
    round: int
    written: float
    busy: float
    together: int
    running: float
    threads: int
    writes: int
    size: int


def judged(contender: str, devices: int, number: int, seen: list[Call]) -> Loaded:
    """Make sense of the driver's calls."""
    edges = [(call.time, 1 if call.what == "write" else -1) for call in seen if call.what in ("write", "written")]
    writes = [call for call in seen if call.what == "write"]
    ran = [call.time for call in seen if call.what == "set_state" and call.said["state"] == RUNNING]
    begin, depth, most, busy, since = edges[0][0], 0, 0, 0.0, 0.0
    for time, step in edges:
        if not depth:
            since = time
        depth += step
        most = max(most, depth)
        if not depth:
            busy += time - since
    assert depth == 0, "a write has not returned"
    return Loaded(
        contender,
        devices,
        number,
        written=round((edges[-1][0] - begin) * 1000, 3),
        busy=round(busy * 1000, 3),
        together=most,
        running=round((max(ran) - begin) * 1000, 3),
        threads=len({call.thread for call in writes}),
        writes=len(writes),
        size=sum(int(call.said["size"]) for call in seen if call.what == "written"),
    )


def load(contender: str, recording: Path, toml: Path, devices: Ends, way: Way, folder: Path) -> list[Call]:
    """Have a contender load the recording, and return what it did to the driver."""
    address = f"unix:{folder}/d"
    replay = ("replay", str(recording), "--to", address, "--channels", str(way.channels), "--speed", "full")
    with probed():
        if contender == QEMU:
            with attached(devices.there, folder / "qemu.log", way, incoming="defer") as qemu:
                ready(qemu, address, way)
                played = migpool(*replay)
                assert (played.code, played.err) == (0, "")
                arrived(qemu)
        else:
            with Tool("receive", str(toml), "--listen", address, "--model", contender) as tool:
                tool.address()
                played = migpool(*replay)
                assert (played.code, played.err) == (0, "")
                assert tool.wait().code == 0
        seen = calls()
    # Closed, a device is reset, which is nobody's loading.
    begin = next(number for number, call in enumerate(seen) if call.what == "write")
    return seen[begin:]


def test_both_load_the_same_bytes_into_the_same_driver(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = request.config.getoption("--rounds", default=0)
    contenders = [QEMU, *(all_models() if rounds else ("per-device", "pool"))]
    order = random.Random(1)
    # From a stopped machine, so that all state crosses after the switchover.
    way = Way(channels=4, devices=3, running=False)
    with ends(way.devices) as devices:
        stream, names = capture(devices.here, tmp_path, way)
        states = states_of(devices.here)
        toml = scenario(stream, names, devices.there, way)
        record(tmp_path, devices, way)
        for number in range(1, (rounds or 1) + 1):
            for contender in order.sample(contenders, len(contenders)):
                fill(devices.there, "else")
                seen = load(contender, tmp_path / "rec", toml, devices, way, tmp_path)
                assert states_of(devices.there) == states
                loaded = judged(contender, way.devices, number, seen)
                assert loaded.size == sum(map(len, states))
                with capsys.disabled():
                    sys.stdout.write(f"\nmeasured: {json.dumps(asdict(loaded))}\n")


def record(folder: Path, devices: Ends, way: Way) -> None:
    """Have a QEMU's migration recorded, into another one."""
    here, there = f"unix:{folder}/s", f"unix:{folder}/d"
    with (
        attached(devices.here, folder / "source.log", way) as source,
        attached(devices.there, folder / "destination.log", way, incoming="defer") as destination,
        Tool("record", str(folder / "rec"), "--listen", here, "--to", there) as tool,
    ):
        ready(destination, there, way)
        tool.address()
        migrate(source, here, way)
        arrived(destination)
        assert tool.wait().code == 0
