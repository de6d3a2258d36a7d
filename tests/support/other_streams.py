"""The streams of other machines, and a schema-free way to make small ones."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

from tests.support import DATA

RICH = DATA / "qemu-streams" / "q35-rich.mig"
OTHERS: tuple[str, ...] = tuple(json.loads((DATA / "other-streams" / "commands.json").read_text()))
BARE = ("none-bare", "microvm-bare", "i440fx-2.4-bare")
UNDESCRIBED = ("none-no-configuration", "i440fx-no-configuration", "none-no-description", "microvm-no-description")
MAPPED = "microvm-mapped-ram"
OTHER_PAGES = {"avr": 256, "arm-1k": 1024, "openrisc": 8192, "tricore": 16384}
"""Machines whose pages have another size than 4 KiB, which nothing before the description says."""
MISDESCRIBED = "s390-by-7.2"
DESCRIBED = tuple(name for name in OTHERS if name not in (*BARE, *UNDESCRIBED, MISDESCRIBED))


def other_path(name: str) -> Path:
    return DATA / "other-streams" / f"{name}.mig.gz"


@cache
def other(name: str) -> bytes:
    return gzip.decompress(other_path(name).read_bytes())
