"""Devices that are pre-copied beside others that cannot be, with switchover-ack: from a QEMU to migpool, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from migpool_plugins.vfio.migration import Flags
from tests.kernel.mtty import Uart, other_driver
from tests.nested.attached import Ends, Way, arrived, attached, ends, fill, migrate, ready, states_of
from tests.nested.scenarios import capture, scenario
from tests.qemu.tool import Tool, migpool

pytestmark = pytest.mark.timeout(500)
WAY = Way(devices=2, acknowledged=True)


@pytest.fixture
def mixed() -> Iterator[Ends]:
    """At either end a device that can be pre-copied, and one that cannot."""
    if Path("/sys/module/mtty/parameters/more").exists():
        pytest.skip("the driver has been exchanged for the whole run")
    with other_driver("mtty-large", "mixed=1"), ends(WAY.devices) as devices:
        for names in (devices.here, devices.there):
            assert [Flags.PRE_COPY in flags_of(name) for name in names] == [True, False]
        yield devices


def flags_of(name: str) -> Flags:
    with Uart(name) as uart:
        return uart.backend.flags


def test_a_qemu_migrates_into_migpool_and_takes_what_it_saves(tmp_path: Path, mixed: Ends) -> None:
    here, there = f"unix:{tmp_path}/s", f"unix:{tmp_path}/d"
    stream, names = capture(mixed.here, tmp_path, WAY)
    before = states_of(mixed.here)
    with (
        Tool("receive", str(scenario(stream, names, mixed.there, WAY)), "--listen", here) as tool,
        attached(mixed.here, tmp_path / "source.log", WAY) as source,
    ):
        tool.address()
        migrate(source, here, WAY)
        ended = tool.wait()
    assert (ended.code, "the machine runs here" in ended.out) == (0, True), ended
    assert states_of(mixed.there) == before

    fill(mixed.here, "else")
    assert set(states_of(mixed.here)).isdisjoint(before)
    toml = scenario(stream, names, mixed.there, WAY)
    with attached(mixed.here, tmp_path / "destination.log", WAY, incoming="defer") as destination:
        ready(destination, there, WAY)
        ended = migpool("send", str(toml), "--to", there)
        assert ended.code == 0, ended
        arrived(destination)
    assert states_of(mixed.here) == before
