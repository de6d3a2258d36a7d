"""The experiment of real QEMUs' config loads, small: what is counted, and no time."""

from __future__ import annotations

import json
from pathlib import Path

from tests.qemu.tool import migpool

SMALL = """
id = "small"
title = "Loads"
claim = "loads grow"
by = "a test"
method = "Machines of three kinds of device are migrated."

[qemu]
arguments = ["-accel", "tcg", "-machine", "q35", "-m", "64", "-nodefaults", "-display", "none"]

[effort]
seconds = 1
quick = 1

[[variants]]
name = "cards"
qemu = {kind = "e1000e", each = "-device e1000e,romfile=", count = 3, tracepoints = ["flatview_new"]}

[[variants]]
name = "cards without BARs"
qemu = {kind = "e1000e", each = "-device e1000e,romfile=", count = 3, starts = false, tracepoints = ["flatview_new"]}

[[variants]]
name = "virtio"
qemu = {kind = "virtio-net", each = "-device virtio-net-pci,romfile=", count = 2, tracepoints = ["flatview_new"]}

[[variants]]
name = "usb"
[variants.qemu]
kind = "usb-ccid"
each = "-device usb-ccid,id=c{n}"
count = 4
first = "-device qemu-xhci"
tracepoints = ["flatview_new"]

[[comparisons]]
name = "cards against usb"
of = "cards"
to = "usb"
measure = "load"
least = 0.01

[[comparisons]]
name = "cards without BARs against virtio"
of = "cards without BARs"
to = "virtio"
measure = "load"
least = 0.01
"""


def test_loads_are_measured_and_who_maps_memory_builds_flat_views(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    ended = migpool("lab", "run", str(tmp_path / "small.toml"), "--quick", "--results", str(tmp_path / "results"))
    assert ended.code == 0, ended.err
    finding = json.loads((tmp_path / "results" / "small.json").read_text())
    assert finding["rounds"] == 2
    variants = {one["name"]: one for one in finding["variants"]}
    assert {name: len(one["loads_ms"]) for name, one in variants.items()} == {
        "cards": 3,
        "cards without BARs": 3,
        "virtio": 2,
        "usb": 4,
    }
    said = {name: " ".join(one["remarks"]) for name, one in variants.items()}
    assert "for 3 e1000e" in said["cards"]
    assert "for 2 virtio-net" in said["virtio"]
    assert "e1000e" not in said["cards without BARs"]
    assert "usb-ccid" not in said["usb"]
    assert "flat views" in said["usb"]
