"""What is public, as a page: names, signatures, commands, and the keys of every JSON document, each a line.

The page is written for one version. Once that version is released (it is no ``.dev``), what differs needs another one:
by Semantic Versioning, the minor number while the major one is 0.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel

from migpool.lab.qemu.advise import Advised
from migpool.lab.run.result import LabResult
from migpool.scenario.schema import Scenario
from tests.docs.reference import commands, option_words
from tests.support import ROOT
from tests.support.commandline import here

PUBLIC: Final = "reference/public.md"
MODULES: Final = (
    "migpool",
    "migpool.device",
    "migpool.schedulers",
    "migpool.streams",
    "migpool.vmsd.fields",
    "migpool.vmsd.description",
)
"""What programs and plug-ins import."""
STREAM: Final = str(ROOT / "tests" / "data" / "qemu-streams" / "none.mig")
DOCUMENTS: Final = {
    "inspect --json": ("inspect", STREAM, "--json"),
    "vmsd diff --json": ("vmsd", "diff", STREAM, STREAM, "--json"),
    "lab list --json": ("lab", "list", "--json"),
    "plugins --json": ("plugins", "--json"),
    "scenario list --json": ("scenario", "list", "--json"),
}
"""JSON that no pydantic model declares: its keys are read from what is printed."""


def public_page() -> str:
    lines = [line for name in MODULES for line in _names(import_module(name))]
    documents = [line for model in (LabResult, Advised, Scenario) for line in _fields(model.__name__, model)]
    for name, words in DOCUMENTS.items():
        found = here(*words)
        documents += [f"{name}: {path}" for path in sorted(set(_keys(json.loads(found.out), "")))]
    options = [f"migpool {name} {' '.join(sorted(option_words(function)))}".rstrip() for name, function in commands()]
    return "\n".join(
        [
            "# What is public",
            "",
            f"Of version {version('migpool')}. What stands here changes with the version alone; what does not, may "
            "change at any time. This page is made from the code by `python -m tests.docs.reference`.",
            *_block("Names for programs and plug-ins", lines),
            *_block("Commands and their options", options),
            *_block("Keys of scenarios and of JSON documents", documents),
            "",
        ]
    )


def _block(title: str, lines: list[str]) -> list[str]:
    return ["", f"## {title}", "", "```text", *lines, "```"]


def _names(module: ModuleType) -> Iterator[str]:
    listed = getattr(module, "__all__", None)
    names = listed or [
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    ]
    for name in sorted(names):
        if listed or not name.startswith("_"):
            yield from _described(f"{module.__name__}.{name}", getattr(module, name))


def _described(path: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield path if issubclass(value, Exception | Enum) else f"{path}{_signature(value)}"
        for name, member in inspect.getmembers_static(value):
            if not name.startswith("_") and _is_ours(value, name):
                yield f"{path}.{name}{_signature(member)}"
    elif callable(value):
        yield f"{path}{_signature(value)}"
    else:
        yield path


def _is_ours(cls: type, name: str) -> bool:
    owner = next(base for base in cls.__mro__ if name in vars(base) or name in getattr(base, "__annotations__", {}))
    return owner.__module__.startswith("migpool")


def _signature(value: Any) -> str:
    """The parameters, without their types: ``*`` and ``/`` where they stand, ``=`` where one may be left out."""
    value = getattr(value, "__func__", value)
    if not callable(value) or isinstance(value, property):
        return ""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ""
    words: list[str] = []
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not any(word.startswith("*") for word in words):
            words.append("*")
        mark = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        words.append(f"{mark}{one.name}{'=' if one.default is not one.empty else ''}")
    return f"({', '.join(words)})"


def _fields(path: str, model: type[BaseModel]) -> Iterator[str]:
    """The keys of a document that a model declares, and of all that it has in it."""
    for name, field in model.model_fields.items():
        key = f"{path}.{field.alias or name}"
        yield f"{key}{'' if field.is_required() else '='}"
        for within in sorted(_models(field.annotation), key=lambda found: found.__name__):
            yield from _fields(key, within)


def _models(annotation: Any) -> set[type[BaseModel]]:
    found = {annotation} if inspect.isclass(annotation) and issubclass(annotation, BaseModel) else set()
    return found.union(*(_models(one) for one in getattr(annotation, "__args__", ())))


def _keys(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}".lstrip(".")
            yield from _keys(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner, f"{path}[]")


def refused(before: str, now: str) -> str:
    """Why a page may not take the place of another: empty if it may."""
    was, is_now = (re.search(r"^Of version (\S+)\. ", page, re.MULTILINE) for page in (before, now))
    assert was is not None
    assert is_now is not None
    if was[1] != is_now[1] or ".dev" in was[1] or before == now:
        return ""
    changed = sorted(set(before.splitlines()) ^ set(now.splitlines()))
    return f"{was[1]} is released, and what is public has changed: raise the version in pyproject.toml ({changed[0]})"
