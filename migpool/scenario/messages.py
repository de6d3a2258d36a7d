"""Turns what is wrong with a scenario into lines that name the file, the key and the remedy."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel

from migpool.errors import ScenarioError
from migpool.units import format_size

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MOST_BYTES: Final = 1 << 20
"""Of a file. ``tomllib`` reads as much in a second or two."""

MOST_PARTS: Final = 100
"""Of a dotted key: ``tomllib`` takes a time that grows with the square of them."""

_LONG_KEY: Final = re.compile(rf"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}""")

_KINDS = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list, such as [...]",
    "dict_type": "a table, such as {key = value}",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def file_text(path: str) -> str:
    """The text of a file.

    Raises:
        FileNotFoundError: there is none.
        ScenarioError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            read = file.read(MOST_BYTES + 1)
        if len(read) > MOST_BYTES:
            raise ScenarioError(f"{path}: it is longer than {format_size(MOST_BYTES)}, which no file of this kind is")
        return read.decode("utf-8").replace("\r\n", "\n")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8") from None
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror or error}") from None


def toml_table(text: str, where: str) -> dict[str, Any]:
    """What a text says; ``where``: its name, for errors.

    Raises:
        ScenarioError: it is not TOML.
    """
    try:
        return parse_toml(text)
    except ValueError as error:
        raise ScenarioError(f"{where}: this is not TOML: {error}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """As ``tomllib.loads``, but what would take it an age or all of the stack is an error as well.

    Raises:
        ValueError: it cannot be read; it says where.
    """
    if long := _LONG_KEY.search(text):
        raise ValueError(f"a key of more than {MOST_PARTS} parts (at line {text.count(chr(10), 0, long.start()) + 1})")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its arrays or tables are nested too deeply") from None


def explain(errors: Iterable[ErrorDetails], where: str, model: type[BaseModel]) -> Iterator[str]:
    """One line for each error, in the order of the file's keys.

    Arguments:
        errors: as pydantic gives them.
        where: the file's name.
        model: what was validated; its keys are the known ones.
    """
    told: set[str] = set()
    for error in errors:
        # A path ends with names that pydantic adds for the alternatives of a value; the file has no such keys.
        path = _keys(error["loc"])
        line = f"{where}: {dotted(path)}: {_remedy(error, path, model)}"
        if line not in told:
            told.add(line)
            yield line


def dotted(path: Sequence[str | int]) -> str:
    """A key as a reader finds it: ``devices[2].options.size``, counted from 0."""
    text = ""
    for piece in path:
        text += f"[{piece}]" if isinstance(piece, int) else f".{piece}" if text else piece
    return text or "the file"


def key_in_message(message: str, options: Mapping[str, object]) -> str:
    """The key of ``options`` that a plug-in's error is about, empty if it names none.

    Plug-ins say in their own words which option is wrong; the option's name stands in them as a word.
    """
    found = [(match.start(), key) for key in options if (match := re.search(rf"\b{re.escape(key)}\b", message))]
    return min(found)[1] if found else ""


def _keys(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    if loc[:1] == ("devices",) and len(loc) > 3 and loc[2] == "options":
        return tuple(piece for piece in loc if not isinstance(piece, str) or not piece.startswith(("list[", "dict[")))
    return loc


def _remedy(error: ErrorDetails, path: Sequence[str | int], model: type[BaseModel]) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(str(path[-1]), _known(model, path[:-1]))
    if kind == "missing":
        return 'is missing: add it, for example plugin = "vfio"' if path[-1] == "plugin" else "is missing: add it"
    if kind == "value_error":
        return str(context["error"])
    if kind in _KINDS:
        return f"{_shown(value)} is wrong here: write {_KINDS[kind]}"
    if kind == "literal_error":
        return f"{_shown(value)} is wrong here: write {context['expected']}".replace("'", '"')
    if kind == "too_short":
        return "is empty: add at least one"
    if kind == "invalid-json-value":
        return f"{_shown(value)} is wrong here: write text, a number, true, false, a list or a table"
    message = error["msg"].removeprefix("Input ").removeprefix("should ")
    return f"{_shown(value)} is wrong here: it must {message[0].lower()}{message[1:]}"


def _unknown(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? known" if near else "known"
    return f"there is no such key: {hint} here: {', '.join(known)}"


def _known(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    for piece in path:
        if isinstance(piece, str):
            annotation = model.model_fields[piece].annotation
            inner = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
            model = next(kind for kind in inner if issubclass(kind, BaseModel))
    return list(model.model_fields)


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
