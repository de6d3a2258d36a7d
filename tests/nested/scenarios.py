"""Scenarios for the machines of QEMUs: held as they were captured, and their VFIO devices real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.nested.attached import Way, attached, migrate
from tests.qemu.tool import Tool, migpool

__all__ = ["capture", "scenario"]


def capture(devices: Sequence[str], folder: Path, way: Way) -> tuple[Path, list[str]]:
    """Have a QEMU with these devices migrate into a stream file.

    Returns:
        The file, and what the devices are called in it.
    """
    file, address = folder / "captured.mig", f"unix:{folder}/c"
    with (
        attached(devices, folder / "captured.log", way) as source,
        Tool("receive", "--store", str(file), "--listen", address, "--channels", str(way.channels)) as tool,
    ):
        tool.address()
        migrate(source, address, way)
        assert tool.wait().code == 0
    ended = migpool("inspect", str(file), "--json")
    sections = json.loads(ended.out)["sections"]
    names = [one["idstr"] for one in sections if one["kind"] == "FULL" and one["idstr"].endswith("/vfio")]
    assert len(names) == len(devices)
    return file, names


def scenario(stream: Path, names: Sequence[str], devices: Sequence[str], way: Way, *, precopy: bool = True) -> Path:
    """Write the scenario of a captured machine whose VFIO devices are these.

    Arguments:
        names: what the devices are called in the stream.
        devices: their UUIDs.
    """
    where = f"stream = {_toml(str(stream))}"
    held = f"{where}, memory = true, exclude = {_toml('*/vfio')}"
    names_and_devices = f"idstr = {_toml(names)}, device = {_toml(devices)}"
    real = f'backend = "kernel", {names_and_devices}, {where}, precopy = {_toml(precopy)}'
    path = stream.with_suffix(".toml")
    path.write_text(
        f"""\
name = "captured"
[machine]
name = "pc-q35-10.0"
uuid = "00000000-0000-0000-0000-000000000000"
[[devices]]
plugin = "vmsd"
options = {{{held}}}
[[devices]]
plugin = "vfio"
count = {len(devices)}
options = {{{real}}}
[channels]
count = {way.channels}
[migration]
credits = false
[limits]
peer = 120
connect = 60
"""
    )
    return path


def _toml(value: object) -> str:
    return json.dumps(value if isinstance(value, str | bool) else list(value))  # type: ignore[call-overload]
