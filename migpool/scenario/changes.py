"""A key of a scenario by its path: what a variant of an experiment sets, and what an axis of a sweep goes along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from migpool.errors import ScenarioError


def change(table: dict[str, Any], path: str, value: JsonValue, where: str) -> None:
    """Set ``a.0.b`` in nested tables and lists; a table that is not there is made.

    Arguments:
        where: the file, for errors.

    Raises:
        ScenarioError: there is no such place.
    """
    *parents, last = path.split(".")
    inside: Any = table
    for piece in parents:
        inside = _step(inside, piece, path, where)
    if isinstance(inside, list):
        _step(inside, last, path, where)
        inside[int(last)] = value
    elif isinstance(inside, Mapping):
        inside[last] = value  # type: ignore[index]
    else:
        raise ScenarioError(f"{where}: set {path!r}: there is no table before {last!r}")


def _step(inside: Any, piece: str, path: str, where: str) -> Any:
    if isinstance(inside, dict):
        return inside.setdefault(piece, {})
    if isinstance(inside, list) and piece.isdecimal() and int(piece) < len(inside):
        return inside[int(piece)]
    raise ScenarioError(f"{where}: set {path!r}: there is no {piece!r} in the scenario")
