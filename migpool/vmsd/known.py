"""Subsections that a release of QEMU knows, so that a destination can be said to know what it did not need to send.

A machine type names the release that it came with, and no older QEMU has it: a machine of type pc-q35-10.0 runs on
QEMU 10.0 or later. ``subsections.json`` has for some releases the subsections that they and all later ones there know,
each under the first of them. It is made by ``make qemu-matrix`` out of what the programs say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final

_RELEASE: Final = re.compile(r"-(\d+)\.(\d+)$")


def release_of(machine_type: str | None) -> tuple[int, int] | None:
    """The release of QEMU that a machine type came with; None if its name does not say it."""
    found = _RELEASE.search(machine_type or "")
    return (int(found[1]), int(found[2])) if found else None


def is_known(subsection: str, machine_type: str | None) -> str | None:
    """Since which release every QEMU that has a machine type knows a subsection.

    Arguments:
        subsection: its name.
        machine_type: the machine type, or None if it is not known.

    Returns:
        That release ("7.2"); None if it cannot be said.
    """
    first, release = _first_releases().get(subsection), release_of(machine_type)
    if first is None or release is None:
        return None
    return first if release >= _parsed(first) else None


def _parsed(release: str) -> tuple[int, int]:
    major, _, minor = release.partition(".")
    return int(major), int(minor)


@cache
def _first_releases() -> Mapping[str, str]:
    text = resources.files("migpool.vmsd").joinpath("subsections.json").read_text("utf-8")
    return {name: release for release, names in json.loads(text).items() for name in names}
