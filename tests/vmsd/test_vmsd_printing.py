"""A decoded state as text."""

from __future__ import annotations

from types import SimpleNamespace

from migpool_plugins.vmsd.description import Description
from migpool_plugins.vmsd.fields import boolean, buffer, queue, u8
from migpool_plugins.vmsd.printing import lines
from tests.support.vmsd_captures import device


def test_every_value_has_a_line_with_its_whole_path() -> None:
    item = Description("item", fields=[u8("x"), boolean("on")])
    description = Description("d", fields=[buffer("raw", 100), queue("items", item)])
    state = SimpleNamespace(raw=bytes(100), items=[SimpleNamespace(x=1, on=True), SimpleNamespace(x=2, on=False)])
    shown = description.show(state)
    assert list(lines(shown)) == [
        f"raw = {bytes(32).hex(' ')} ... (100 bytes)",
        "items[0].x = 0x01",
        "items[0].on = true",
        "items[1].x = 0x02",
        "items[1].on = false",
    ]
    assert next(lines(shown, full=True)) == f"raw = {bytes(100).hex(' ')}"


def test_a_real_device_is_printed_with_its_subsections() -> None:
    text = list(lines(device("q35-rich", "fw_cfg", "source").show()))
    assert "fw_cfg/dma.dma_addr = 0x0000000000000000" in text
