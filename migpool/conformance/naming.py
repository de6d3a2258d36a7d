"""A plug-in to check is named by its kind: the other kind is told apart from a name that is unknown."""

from __future__ import annotations

from typing import Final

from migpool.errors import UsageError
from migpool.scenario.plugins import Kind, names

_COMMANDS: Final[dict[Kind, str]] = {
    "device": "a device plug-in: migpool conformance {name}, or pytest --migpool-plugin {name}, checks it",
    "scheduler": "a threading model: migpool conformance --model {name}, or pytest --migpool-model {name}, checks it",
}


def check_name(kind: Kind, name: str) -> None:
    """Return if there is a plug-in of that kind and name; for a model, what follows its name may stand there too.

    Raises:
        UsageError: there is none; it says what there is, or how to check what it is.
    """
    plain = name.partition(":")[0]
    if plain in names(kind):
        return
    for other, command in _COMMANDS.items():
        if other != kind and plain in names(other):
            raise UsageError(f"{name} is {command.format(name=name)}")
    word = "device plug-in" if kind == "device" else "threading model"
    raise UsageError(f"there is no {word} {plain!r}; there are: {', '.join(names(kind)) or 'none'}")
