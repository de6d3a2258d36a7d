"""What is kept as a file of JSON: its form, how it is written, and how it is read back or refused.

The text is for people and programs: indented, but what holds only plain values stands on one line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from migpool.errors import UsageError
from migpool.units import MIB
from migpool.untrusted.files import read_bounded
from migpool.untrusted.text import printable_values

LIMIT: Final = 64 * MIB
"""Bytes that such a file may have."""

F = TypeVar("F", bound="Form")


class Form(BaseModel):
    """A part of such a file, or all of it: its fields are the file's keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def to_json(self) -> str:
        return json_text(self.model_dump(mode="json", by_alias=True))


def read_form(path: Path, form: type[F], name: str, writer: str) -> F:
    """Read a file of schema 1.

    Arguments:
        form: what it must be.
        name: says in errors what that is.
        writer: says in errors what writes such a file.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    remedy = f"give a file that {writer} wrote"
    try:
        text = read_bounded(path, LIMIT).decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no {name}: {remedy}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        found = printable_values(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON ({error}): {remedy}") from None
    if isinstance(found, dict) and found.get("schema", 1) != 1:
        raise UsageError(f"{path} has schema {found['schema']!r}: this version reads schema 1, a newer one wrote it")
    try:
        return form.model_validate_json(json.dumps(found))  # in JSON a list may be a tuple
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "at its top"
        raise UsageError(f"{path} is no {name}: {where}: {first['msg']}; {remedy}") from None


def json_text(value: JsonValue) -> str:
    """The text, with a line feed at its end."""
    return _text(value, "\n") + "\n"


def _text(value: JsonValue, line: str) -> str:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not any(isinstance(one, dict | list) for one in inside):
        return json.dumps(value, ensure_ascii=False)
    inner = line + "  "
    if isinstance(value, dict):
        pieces = [f"{json.dumps(key, ensure_ascii=False)}: {_text(one, inner)}" for key, one in value.items()]
        return f"{{{inner}{f',{inner}'.join(pieces)}{line}}}"
    return f"[{inner}{f',{inner}'.join(_text(one, inner) for one in inside)}{line}]"
