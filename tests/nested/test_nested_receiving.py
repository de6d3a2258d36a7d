"""A QEMU with devices of a real driver migrates into ``migpool receive``, which loads them into others of its kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from migpool.scenario.model_syntax import all_models
from tests.nested.attached import PLACES, Ends, Way, attached, ends, fill, migrate, states_of
from tests.nested.scenarios import capture, scenario
from tests.qemu.tool import Tool, migpool

pytestmark = pytest.mark.timeout(500)
NAMES = {
    "root-bus": r"0000:00:[0-9a-f]{2}\.0/vfio",
    "root-port": r"0000:00:[0-9a-f]{2}\.0:00\.0/vfio",
    "pxb": r"0000:40:[0-9a-f]{2}\.0:00\.0/vfio|0000:40:[0-9a-f]{2}\.0:00\.0:00\.0/vfio",
}


@dataclass(frozen=True)
class Recorded:
    """What a QEMU said into a ``receive`` once, with the devices for another one, and the state that must arrive."""

    recording: Path
    scenario: Path
    devices: Ends
    states: list[bytes]
    way: Way


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder, way = tmp_path_factory.mktemp("recorded"), Way(channels=4, devices=3)
    here, there = f"unix:{folder}/s", f"unix:{folder}/d"
    with ends(way.devices) as devices:
        stream, names = capture(devices.here, folder, way)
        states = states_of(devices.here)
        toml = scenario(stream, names, devices.there, way)
        with (
            Tool("receive", str(toml), "--listen", there, "--model", "per-device") as tool,
            Tool("record", str(folder / "rec"), "--listen", here, "--to", there) as recorder,
        ):
            tool.address()
            recorder.address()
            with attached(devices.here, folder / "source.log", way) as source:
                migrate(source, here, way)
            ended = tool.wait()
            assert (ended.code, "the machine runs here" in ended.out) == (0, True), ended
            assert recorder.wait().code == 0
        assert states_of(devices.there) == states
        yield Recorded(folder / "rec", toml, devices, states, way)


@pytest.mark.parametrize("model", [*all_models(), "pool:1"])
def test_every_threading_model_loads_it(recorded: Recorded, tmp_path: Path, model: str) -> None:
    fill(recorded.devices.there, "else")
    assert set(states_of(recorded.devices.there)).isdisjoint(recorded.states)
    address = f"unix:{tmp_path}/d"
    with Tool("receive", str(recorded.scenario), "--listen", address, "--model", model) as tool:
        tool.address()
        arguments = ("--channels", str(recorded.way.channels), "--speed", "full", "--order", "seed:3")
        played = migpool("replay", str(recorded.recording), "--to", address, *arguments)
        ended = tool.wait()
    assert (ended.code, "the machine runs here" in ended.out) == (0, True), ended
    assert (played.code, played.err) == (0, "")
    assert states_of(recorded.devices.there) == recorded.states


@pytest.mark.parametrize("place", PLACES)
def test_a_device_is_found_wherever_it_is(tmp_path: Path, place: str) -> None:
    way = Way(behind=place, acknowledged=place == "pxb")
    address = f"unix:{tmp_path}/d"
    with ends(1) as devices:
        stream, names = capture(devices.here, tmp_path, way)
        assert re.fullmatch(NAMES[place], names[0]), names
        before = states_of(devices.here)
        toml = scenario(stream, names, devices.there, way)
        with (
            Tool("receive", str(toml), "--listen", address) as tool,
            attached(devices.here, tmp_path / "source.log", way) as source,
        ):
            tool.address()
            migrate(source, address, way)
            ended = tool.wait()
        assert (ended.code, "the machine runs here" in ended.out) == (0, True), ended
        assert states_of(devices.there) == before
