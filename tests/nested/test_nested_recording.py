"""Two QEMUs migrate devices of a real driver through ``migpool record``: explained, and played into a third one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.nested.attached import Way, arrived, attached, ends, fill, migrate, ready, states_of
from tests.qemu.tool import Tool, migpool

pytestmark = pytest.mark.timeout(500)


def test_what_two_qemus_say_is_understood_and_can_be_said_again(tmp_path: Path, way: Way) -> None:
    recording, here, there = tmp_path / "rec", f"unix:{tmp_path}/s", f"unix:{tmp_path}/d"
    with ends(way.devices) as devices:
        before = states_of(devices.here)
        with (
            attached(devices.here, tmp_path / "source.log", way) as source,
            attached(devices.there, tmp_path / "destination.log", way, incoming="defer") as destination,
            Tool("record", str(recording), "--listen", here, "--to", there) as tool,
        ):
            ready(destination, there, way)
            tool.address()
            migrate(source, here, way)
            arrived(destination)
            ended = tool.wait()
            assert ended.code == 0, ended.err
        assert states_of(devices.there) == before

        check_every_byte(recording)
        check_packets(recording, way)

        fill(devices.there, "else")
        assert set(states_of(devices.there)).isdisjoint(before)
        with attached(devices.there, tmp_path / "third.log", way, incoming="defer") as third:
            ready(third, there, way)
            arguments = ("--channels", str(way.channels), "--speed", "full", "--order", "seed:5")
            ended = migpool("replay", str(recording), "--to", there, *arguments)
            assert (ended.code, ended.err) == (0, "")
            arrived(third)
        assert states_of(devices.there) == before


def check_every_byte(recording: Path) -> None:
    """Nothing in the stream is passed over: every section is measured by what it says, and every field is shown."""
    ended = migpool("inspect", str(recording), "--device", "*", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert (found["complete"], found["walked"], found["problem"], found["notes"]) == (True, found["size"], None, [])
    assert {section["framing"] for section in found["sections"]} == {"described", "self-delimiting"}
    assert [one["idstr"] for one in found["devices"] if not one["exact"] or one["fault"] or one["bytes"]] == []


def check_packets(recording: Path, way: Way) -> None:
    """The devices' states crossed where they were to, each in order and with its config at the end."""
    ended = migpool("inspect", str(recording), "--json")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert [channel["trouble"] for channel in found["channels"]] == [""] * (way.channels + 1)
    devices = {device["idstr"]: device for device in found["devices"]}
    names = [f"0000:00:{number + 1:02x}.0/vfio" for number in range(way.devices)] if way.transfer else []
    assert sorted(devices) == names
    assert all((device["kind"], device["count"]) == ("state", device["packets"] - 1) for device in devices.values())
