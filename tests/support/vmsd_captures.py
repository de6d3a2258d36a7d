"""The recorded streams that the tests decode, and what an independent decoder made of them."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

from migpool.device import Side
from migpool.vmsd.codec import Shown
from migpool_plugins.vmsd.capture import CapturedSection, read_stream
from migpool_plugins.vmsd.device import CapturedDevice
from tests.support import DATA

STREAMS = DATA / "qemu-streams"
NAMES = ("none", "microvm-smp2", "q35-min", "q35-rich")


def stream_path(name: str) -> Path:
    return STREAMS / f"{name}.mig"


@cache
def captured(name: str) -> tuple[CapturedSection, ...]:
    return tuple(read_stream(stream_path(name)))


@cache
def decoded_independently(name: str) -> dict[str, dict[str, Shown]]:
    truth: dict[str, dict[str, Shown]] = json.loads(gzip.decompress((STREAMS / f"{name}.state.json.gz").read_bytes()))
    return truth


def section(name: str, idstr: str, instance_id: int = 0) -> CapturedSection:
    """One section of a stream."""
    (found,) = [s for s in captured(name) if s.name == idstr and s.instance_id == instance_id]
    return found


def device(name: str, idstr: str, side: Side, instance_id: int = 0) -> CapturedDevice:
    """One device of a stream."""
    return CapturedDevice(section(name, idstr, instance_id), side)
