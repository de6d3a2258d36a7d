"""``migpool send`` saves devices of a real driver into a QEMU, which loads them into others of that driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nested.attached import PLACES, Way, arrived, attached, ends, fill, ready, states_of
from tests.nested.scenarios import capture, scenario
from tests.qemu.tool import migpool

pytestmark = pytest.mark.timeout(500)


@pytest.mark.parametrize(
    ("model", "way"),
    [
        ("pool", Way(devices=3)),
        ("per-device", Way(channels=4, acknowledged=True)),
        ("inline", Way(behind="root-port", acknowledged=True)),
        ("poll", Way(behind="pxb")),
    ],
    ids=str,
)
def test_a_qemu_loads_what_migpool_saves(tmp_path: Path, model: str, way: Way) -> None:
    assert way.behind in PLACES
    address = f"unix:{tmp_path}/d"
    with ends(way.devices) as devices:
        stream, names = capture(devices.here, tmp_path, way)
        fill(devices.here, "later")
        before = states_of(devices.here)
        assert set(states_of(devices.there)).isdisjoint(before)
        # What a device gives at first, a QEMU takes with the capability switchover-ack alone.
        toml = scenario(stream, names, devices.here, way, precopy=way.acknowledged)
        with attached(devices.there, tmp_path / "destination.log", way, incoming="defer") as destination:
            ready(destination, address, way)
            ended = migpool("send", str(toml), "--to", address, "--model", model)
            assert ended.code == 0, ended
            arrived(destination)
        assert states_of(devices.there) == before
