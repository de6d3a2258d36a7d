"""A QEMU with devices of a real driver migrates into ``receive --store``; the file is loaded, and sent, to others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.nested.attached import Way, arrived, attached, ends, fill, migrate, ready, states_of
from tests.qemu.tool import Tool, migpool

pytestmark = pytest.mark.timeout(500)


def test_a_stored_machine_is_loaded_and_sent(tmp_path: Path, way: Way) -> None:
    file, here, there = tmp_path / "vm.mig", f"unix:{tmp_path}/s", f"unix:{tmp_path}/d"
    from_file = replace(way, transfer=False, channels=0, acknowledged=False)
    from_migpool = replace(way, transfer=False)
    with ends(way.devices) as devices:
        before = states_of(devices.here)
        with (
            attached(devices.here, tmp_path / "source.log", way) as source,
            Tool("receive", "--store", str(file), "--listen", here, "--channels", str(way.channels)) as tool,
        ):
            tool.address()
            migrate(source, here, way)
            ended = tool.wait()
            assert ended.code == 0, ended.err
        with attached(devices.there, tmp_path / "loads.log", from_file, incoming="defer") as loads:
            ready(loads, f"file:{file}", from_file)
            arrived(loads)
        assert states_of(devices.there) == before

        fill(devices.there, "else")
        assert set(states_of(devices.there)).isdisjoint(before)
        with attached(devices.there, tmp_path / "third.log", from_migpool, incoming="defer") as third:
            ready(third, there, from_migpool)
            ended = migpool("send", str(file), "--to", there, "--channels", str(way.channels))
            assert (ended.code, ended.err) == (0, "")
            arrived(third)
        assert states_of(devices.there) == before
