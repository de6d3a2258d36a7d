"""A recorded stream with VFIO devices in it, as ``receive --store`` writes it: made from one without."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from struct import pack
from typing import Final

from migpool.vmsd.jsonform import stream_description
from migpool.wire.records import config_record, end_payload
from migpool.wire.sections import Kind, SectionHead, section
from migpool.wire.stream import eof, vm_description
from migpool.wire.unread import Buffer
from tests.support.vmsd_captures import stream_path

__all__ = ["MACHINE", "PLACES", "config", "with_vfio"]

MACHINE: Final = "pc-q35-10.0"
PLACES: Final = ("0000:00:03.0/vfio", "0000:00:03.0:00.0/vfio", "0000:40:04.0:00.0:00.0/vfio")
"""What QEMU calls a device on the root bus, behind a root port, and behind a pxb."""


def config(vendor: int = 0x4348, device: int = 0x3253, subsystem: int = 0x3253, space: int = 4096) -> bytes:
    """What QEMU sends of a device as PCI sees it."""
    registers = bytearray(space)
    registers[0:4] = pack("<HH", vendor, device)
    registers[0x2C:0x30] = pack("<HH", vendor, subsystem)
    return pack(">I", 2) + bytes(registers) + bytes(16)


def with_vfio(path: Path, names: Sequence[str] = PLACES[:1], content: bytes | None = None) -> Path:
    """Write the stream of a small q35 with VFIO devices.

    Arguments:
        content: of their sections; ``None``: a config between its marks.
    """
    data = stream_path("q35-min").read_bytes()
    end, described = stream_description(data, "q35-min")
    payload = b"".join(map(bytes, [*config_record(config()), end_payload()])) if content is None else content
    entries = [
        {"name": name, "instance_id": 0, "version": 1, "size": len(payload)}
        | {"fields": [{"name": "data", "size": len(payload), "type": "buffer"}]}
        for name in names
    ]
    devices = described["devices"]
    assert isinstance(devices, list)
    text = json.dumps({**described, "devices": [*devices, *entries]}).encode()
    parts: list[Buffer] = [data[:end]]
    for number, name in enumerate(names):
        parts += section(SectionHead(Kind.FULL, 90 + number, name, 0, 1), [payload])
    path.write_bytes(b"".join(map(bytes, [*parts, eof(), *vm_description(text)])))
    return path
