"""Packages to begin a device plug-in or a threading model with; their templates are in the directories beside it."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from migpool.errors import MigpoolError, UsageError
from migpool.scenario.plugins import Kind, names

__all__ = ["write_package"]

NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST: Final = 64
FILES: Final[dict[Kind, dict[str, str]]] = {
    "device": {
        "device/pyproject.toml.in": "pyproject.toml",
        "device/README.md.in": "README.md",
        "device/scenario.toml.in": "scenario.toml",
        "device/device.py.in": "src/$module/__init__.py",
    },
    "scheduler": {
        "model/pyproject.toml.in": "pyproject.toml",
        "model/README.md.in": "README.md",
        "model/model.py.in": "src/$module/__init__.py",
    },
}


def write_package(kind: Kind, name: str, into: Path) -> Path:
    """Write the package's directory.

    Arguments:
        name: the plug-in's, and the package's: lower-case words joined by hyphens.
        into: where its directory is made; it must not be there yet.

    Returns:
        The package's directory.

    Raises:
        UsageError: the name cannot be used, or there is something already.
        MigpoolError: the files cannot be written.
    """
    if NAME.fullmatch(name) is None or len(name) > LONGEST:
        raise UsageError(
            f"{name!r} is no name for a plug-in: use lower-case words joined by hyphens, such as my-{kind}"
        )
    if name in names(kind):
        raise UsageError(f"a plug-in {name!r} is installed already: choose another name")
    root = into / name
    if root.exists():
        raise UsageError(f"{root} is there already: choose another name, or --into another directory")
    words = {"name": name, "module": name.replace("-", "_"), "cls": "".join(map(str.capitalize, name.split("-")))}
    try:
        for template, target in FILES[kind].items():
            path = root / Template(target).substitute(words)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = files(__name__).joinpath(template).read_text("utf-8")
            path.write_text(Template(text).substitute(words), "utf-8")
    except OSError as error:
        raise MigpoolError(f"{error.filename} cannot be written: {error.strerror}") from None
    return root
