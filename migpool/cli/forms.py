"""Files of JSON that one command wrote and another reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from migpool.errors import UsageError

__all__ = ["read_form"]

F = TypeVar("F", bound=BaseModel)


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
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no {name}: {remedy}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON ({error}): {remedy}") from None
    if isinstance(found, dict) and found.get("schema", 1) != 1:
        raise UsageError(f"{path} has schema {found['schema']!r}: this version reads schema 1, a newer one wrote it")
    try:
        return form.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "at its top"
        raise UsageError(f"{path} is no {name}: {where}: {first['msg']}; {remedy}") from None
