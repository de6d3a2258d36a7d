"""What a plug-in's options are: declared once, for who reads them, who lists them, and who is told that one is wrong.

::

    SIZE = Option.size("size", 64 << 10, "state of each device")
    OPTIONS = Options("my-device", SIZE)

    def devices(context: DeviceContext) -> list[Device]:
        size = OPTIONS.read(context.options)[SIZE]     # a number of bytes, whether 65536 or "64KiB" was written

``migpool plugins NAME`` lists what is called ``OPTIONS`` in the module that the entry point names: one such table, or
several, if what there is depends on an option. Every error is one line that names the option, what it is, and what it
may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

from migpool.device.plugin import OptionValue
from migpool.errors import DeviceError
from migpool.units import parse_duration, parse_rate, parse_size, written_size

_BYTES: Final = 'a whole number of bytes from 0 on, or text with B, KiB, MiB, GiB or TiB such as "64MiB"'
_SECONDS: Final = 'seconds from 0 on, or text with us, ms or s such as "5ms"'
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Option(Generic[_T]):
    """One key of ``options``. The methods below make the usual ones.

    Arguments:
        name: the key.
        type: what is written, in a word or two.
        default: what it is where it is not given.
        meaning: what it is for, in a line.
        values: what it may be, as it stands behind "use" in an error.
        unit: what a plain number is in; empty for none.
        parse: makes the value of what was written; a ``ValueError`` refuses it.
    """

    name: str
    type: str
    default: _T
    meaning: str
    values: str = ""
    unit: str = ""
    parse: Callable[[object], _T] = lambda value: cast("_T", value)

    @property
    def shown_default(self) -> str:
        """The default as a scenario would have it; empty for none."""
        if self.default is None:
            return ""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, int | float):
            size = written_size(int(self.default)) if self.unit.startswith("bytes") else f"{self.default:g}"
            return f'"{size}"' if size[-1].isalpha() else size
        return f'"{self.default}"'

    @property
    def shown_values(self) -> str:
        """What it may be, where that is not just all of its type."""
        return "" if self.values in (self.type, _BYTES, _SECONDS) else self.values

    @staticmethod
    def one_of(name: str, default: _T, meaning: str, choices: Sequence[_T]) -> Option[_T]:
        """One of some words."""

        def parse(value: object) -> _T:
            return choices[choices.index(cast("_T", value))]

        *most, last = (f'"{choice}"' for choice in choices)
        return Option(name, "one of", default, meaning, f"{', '.join(most)} or {last}", parse=parse)

    @staticmethod
    def flag(name: str, default: bool, meaning: str) -> Option[bool]:
        """A truth value."""

        def parse(value: object) -> bool:
            if isinstance(value, bool):
                return value
            raise ValueError

        return Option(name, "true or false", default, meaning, "true or false", parse=parse)

    @staticmethod
    def whole(name: str, default: int, meaning: str, least: int, most: int, why: str = "") -> Option[int]:
        """A whole number from ``least`` to ``most``; ``why`` ends the error."""

        def parse(value: object) -> int:
            if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
                return value
            raise ValueError

        values = f"a whole number from {least} to {most}{why}"
        return Option(name, "whole number", default, meaning, values, parse=parse)

    @staticmethod
    def number(name: str, default: float, meaning: str, least: float, unit: str = "") -> Option[float]:
        """A number that is at least ``least``."""

        def parse(value: object) -> float:
            if isinstance(value, int | float) and not isinstance(value, bool) and least <= value < math.inf:
                return float(value)
            raise ValueError

        return Option(name, "number", default, meaning, f"a number from {least} on", unit, parse)

    @staticmethod
    def size(name: str, default: int, meaning: str) -> Option[int]:
        """A number of bytes, from a whole number or from text with a unit."""
        return Option(name, "size", default, meaning, _BYTES, "bytes", parse_size)

    @staticmethod
    def rate(name: str, default: float, meaning: str) -> Option[float]:
        """Bytes per second: as :meth:`size`, but a fraction is allowed, and ``/s`` at the end of text."""

        def parse(value: object) -> float:
            return value if isinstance(value, float) and value >= 0 else parse_rate(value)

        return Option(name, "rate", default, meaning, _BYTES, "bytes per second", parse)

    @staticmethod
    def seconds(name: str, default: float, meaning: str) -> Option[float]:
        """A time from 0 seconds on, from a number or from text with a unit."""
        return Option(name, "duration", default, meaning, _SECONDS, "seconds", parse_duration)

    @staticmethod
    def time_limit(name: str, default: float, meaning: str) -> Option[float]:
        """A time limit: seconds over 0, and an hour at the most."""

        def parse(value: object) -> float:
            if 0 < (seconds := parse_duration(value)) <= 3600:
                return seconds
            raise ValueError

        values = 'seconds over 0, at most 3600, or text with us, ms or s such as "5s"'
        return Option(name, "duration", default, meaning, values, "seconds", parse)


class Options:
    """The options that a plug-in has.

    Arguments:
        plugin: its name, for errors.
        declared: all that there are.
        to: who does not know a key that is none of them, for errors and lists: ``backend "kernel"``; may be empty.
    """

    def __init__(self, plugin: str, *declared: Option[Any], to: str = "") -> None:
        self.plugin = plugin
        self.declared = declared
        self.to = to

    def read(self, table: Mapping[str, OptionValue], where: str = "") -> GivenOptions:
        """Take what a scenario's entry gives.

        Arguments:
            table: the options as they were given.
            where: what stands before a key in a message, for a table within the table.

        Raises:
            DeviceError: an option is unknown.
        """
        known = sorted(option.name for option in self.declared)
        unknown = sorted(set(table) - set(known))
        if unknown:
            what = f"{where}{unknown[0]} is unknown" + (f" to {self.to}" if self.to else "")
            raise DeviceError(f"{self.plugin} option {what}: use {', '.join(known)}")
        return GivenOptions(self.plugin, table, where)

    def values(self, table: Mapping[str, OptionValue]) -> dict[str, Any]:
        """Every option's value by its name, or its default.

        Raises:
            DeviceError: an option is unknown, or what was given for it cannot be used.
        """
        given = self.read(table)
        return {option.name: given[option] for option in self.declared}


class GivenOptions:
    """One table of options; see :meth:`Options.read`.

    Attributes:
        table: the options as they were given.
    """

    def __init__(self, plugin: str, table: Mapping[str, OptionValue], where: str) -> None:
        self.table = table
        self._plugin = plugin
        self._where = where

    def __contains__(self, option: Option[Any]) -> bool:
        return option.name in self.table

    def __getitem__(self, option: Option[_T]) -> _T:
        """The option's value, or its default.

        Raises:
            DeviceError: what was given cannot be used.
        """
        if option.name not in self.table:
            return option.default
        value = self.table[option.name]
        try:
            return option.parse(value)
        except ValueError:
            raise self.wrong(option.name, value, option.values) from None

    def within(self, key: str, table: object, options: Options, like: str) -> GivenOptions:
        """Return a table that is a value of this one; ``like`` is an example of it."""
        if not isinstance(table, Mapping):
            raise self.wrong(key, table, f"a table, such as {like}")
        return options.read(table, f"{self._where}{key}.")

    def wrong(self, key: str, value: object, remedy: str) -> DeviceError:
        """Return the error for a value that cannot be used; ``remedy`` says what can."""
        return DeviceError(f"{self._plugin} option {self._where}{key} is {value!r}: use {remedy}")
