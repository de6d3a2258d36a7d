"""A plug-in's options as they are written on a command line: ``KEY=VALUE`` each."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import cast

from migpool.device import OptionValue
from migpool.errors import UsageError


def read_options(texts: Sequence[str]) -> dict[str, OptionValue]:
    """The options, as a scenario would have them.

    Arguments:
        texts: ``KEY=VALUE`` each, the value as in a scenario file (TOML); what is no TOML is taken as text.

    Raises:
        UsageError: one is not of that form.
    """
    options: dict[str, OptionValue] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"option {text!r} is no KEY=VALUE: write for example -o size=65536")
        try:
            read = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            read = value.strip()
        options[key.strip()] = cast("OptionValue", read)
    return options
