"""JSON for people and programs: indented, but what holds only plain values stands on one line."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import JsonValue

__all__ = ["json_text"]


def json_text(value: JsonValue) -> str:
    """The text, with a line feed at its end."""
    return "".join(_pieces(value, "\n")) + "\n"


def _pieces(value: JsonValue, line: str) -> Iterator[str]:
    inner = line + "  "
    if _flat(value):
        yield json.dumps(value, ensure_ascii=False)
    elif isinstance(value, dict):
        before = "{"
        for key, one in value.items():
            yield f"{before}{inner}{json.dumps(key, ensure_ascii=False)}: "
            yield from _pieces(one, inner)
            before = ","
        yield line + "}"
    elif isinstance(value, list):
        before = "["
        for one in value:
            yield before + inner
            yield from _pieces(one, inner)
            before = ","
        yield line + "]"


def _flat(value: JsonValue) -> bool:
    """Whether it is plain, or holds nothing but what is."""
    if isinstance(value, dict):
        return not any(isinstance(one, dict | list) for one in value.values())
    if isinstance(value, list):
        return not any(isinstance(one, dict | list) for one in value)
    return True
