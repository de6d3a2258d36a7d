"""The scenario file: its schema, its messages, the machine that is built from it, and the plug-ins it names."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable


def shipped(room: str, folder: str) -> dict[str, Traversable]:
    """The TOML files that come with migpool in a folder of one of its rooms, by name, sorted."""
    found = files("migpool").joinpath(room, folder).iterdir()
    return {file.name[:-5]: file for file in sorted(found, key=lambda file: file.name) if file.name.endswith(".toml")}
