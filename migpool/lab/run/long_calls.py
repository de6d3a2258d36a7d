"""Calls of devices that last for long, as whoever waits for a migration is told of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

from migpool.core.device_calls import LONG, under_way
from migpool.device import Side


@dataclass(frozen=True, slots=True)
class LongCall:
    """A call that has not returned.

    Arguments:
        what: which device is in which of its methods.
        seconds: for how long.
        where: the plug-in and its line, in brackets; may be empty.
    """

    side: Side
    what: str
    seconds: float
    where: str

    def __str__(self) -> str:
        return f"at the {self.side} {self.what} for {self.seconds:.0f} s{self.where}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        return cls(**form)


def long_calls(side: Side) -> list[LongCall]:
    """Those of this process, the longest first."""
    return [LongCall(side, seen.what, seen.seconds, seen.where) for seen in under_way()]


class Told:
    """Which of the calls are worth a line: each once it lasts long, and again when that time has doubled."""

    def __init__(self) -> None:
        self._next: dict[tuple[Side, str], float] = {}

    def due(self, calls: Iterable[LongCall]) -> list[LongCall]:
        """Those that are told of now. ``calls``: all that are under way."""
        under_way = {(call.side, call.what): call for call in calls}
        self._next = {key: self._next.get(key, LONG) for key in under_way}
        due = [call for key, call in under_way.items() if call.seconds >= self._next[key]]
        for call in due:
            self._next[call.side, call.what] = 2 * call.seconds
        return due
