"""How the plug-ins of this package read the ``options`` of a scenario's entry: one way to write and to refuse a value.

Every error is one line that names the option, what it is, and what it may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from migpool.device import DeviceError, OptionValue
from migpool.units import parse_duration, parse_rate, parse_size

_BYTES: Final = 'a whole number of bytes from 0 on, or text with B, KiB, MiB, GiB or TiB such as "64MiB"'
_T = TypeVar("_T")


class Options:
    """One table of options. All of its methods raise :class:`DeviceError` for a value that cannot be used.

    Arguments:
        plugin: whose options they are.
        table: the options as they were given.
        keys: the options that there are.
        to: who does not know a key that is none of them; may be empty.
        where: what stands before a key in a message, for a table within the table.

    Attributes:
        table: the options as they were given.

    Raises:
        DeviceError: an option is unknown.
    """

    def __init__(
        self, plugin: str, table: Mapping[str, OptionValue], keys: Iterable[str], to: str = "", where: str = ""
    ) -> None:
        self.table = table
        self._plugin = plugin
        self._where = where
        known = sorted(keys)
        unknown = sorted(set(table) - set(known))
        if unknown:
            what = f"{where}{unknown[0]} is unknown" + (f" to {to}" if to else "")
            raise DeviceError(f"{plugin} option {what}: use {', '.join(known)}")

    def within(self, key: str, table: object, keys: Iterable[str], like: str) -> Options:
        """Return a table that is a value of this one; ``like`` is an example of it."""
        if not isinstance(table, Mapping):
            raise self.wrong(key, table, f"a table, such as {like}")
        return Options(self._plugin, table, keys, where=f"{self._where}{key}.")

    def wrong(self, key: str, value: object, remedy: str) -> DeviceError:
        """Return the error for a value that cannot be used; ``remedy`` says what can."""
        return DeviceError(f"{self._plugin} option {self._where}{key} is {value!r}: use {remedy}")

    def one_of(self, key: str, choices: Sequence[_T], default: _T | None = None) -> _T:
        """Return one of some words."""
        value = self.table.get(key, default)
        for choice in choices:
            if value == choice:
                return choice
        *most, last = (f'"{choice}"' for choice in choices)
        raise self.wrong(key, value, f"{', '.join(most)} or {last}")

    def flag(self, key: str, default: bool) -> bool:
        """Return a truth value."""
        value = self.table.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def whole(self, key: str, default: int, least: int, most: int, why: str = "") -> int:
        """Return a whole number from ``least`` to ``most``; ``why`` ends the error."""
        value = self.table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(key, value, f"a whole number from {least} to {most}{why}")
        return value

    def number(self, key: str, default: float, least: float) -> float:
        """Return a number that is at least ``least``."""
        value = self.table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
            raise self.wrong(key, value, f"a number from {least} on")
        return float(value)

    def size(self, key: str, default: int = 0) -> int:
        """Return a number of bytes, from a whole number or from text with a unit."""
        return self._read(parse_size, key, self.table.get(key, default), _BYTES)

    def rate(self, key: str, default: float = 0.0) -> float:
        """Return bytes per second: as :meth:`size`, but a fraction is allowed, and ``/s`` at the end of text."""
        value = self.table.get(key, default)
        if isinstance(value, float) and value >= 0:
            return value
        return self._read(parse_rate, key, value, _BYTES)

    def seconds(self, key: str, default: float = 0.0) -> float:
        """Return a time from 0 seconds on, from a number or from text with a unit."""
        value = self.table.get(key, default)
        return self._read(parse_duration, key, value, 'seconds from 0 on, or text with us, ms or s such as "5ms"')

    def _read(self, parse: Callable[[object], _T], key: str, value: object, remedy: str) -> _T:
        try:
            return parse(value)
        except ValueError:
            raise self.wrong(key, value, remedy) from None

    def time_limit(self, key: str, default: float) -> float:
        """Return a time limit: seconds over 0, and an hour at the most."""
        value = self.seconds(key, default)
        if not 0 < value <= 3600:
            raise self.wrong(key, value, "seconds over 0, at most 3600")
        return value
