"""The points of a sweep, numbered from 0: each is a place of the space, a model, and a repetition.

The numbers are the same whenever the sweep is planned again, so that what has been computed can be told from what has
not. A place's models follow each other: much of what they need is alike.
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterator
from dataclasses import dataclass
from math import prod

from migpool.sweeps.form import Sweep, Value


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to compute.

    Arguments:
        values: of each axis, in the order of the sweep's.
        repeat: which repetition, from 1.
        seed: for made-up state.
    """

    number: int
    values: tuple[Value, ...]
    model: str
    repeat: int
    seed: int


class Plan:
    """All points of a sweep.

    Attributes:
        keys: of the axes.
        count: how many points there are.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        file = sweep.file
        self.keys = tuple(axis.key for axis in file.axes)
        # A simulation has no chance in it: a second one would be the same.
        self.repeats = file.repeats if file.mode == "real" else 1
        self._grid = [axis.grid() for axis in file.axes] if file.sample is None else []
        self._sampled = _latin(sweep, file.sample) if file.sample is not None else []
        self.places = file.sample if file.sample is not None else prod(map(len, self._grid))
        self.count = self.places * len(sweep.models) * self.repeats

    def point(self, number: int) -> Point:
        """The point of a number, from 0 on."""
        place, rest = divmod(number, len(self.sweep.models) * self.repeats)
        repeat, model = divmod(rest, len(self.sweep.models))
        return Point(number, self._values(place), self.sweep.models[model], repeat + 1, self.sweep.seed + repeat + 1)

    def missing(self, done: Container[int]) -> Iterator[Point]:
        """The points that are not done, in order."""
        return (self.point(number) for number in range(self.count) if number not in done)

    def _values(self, place: int) -> tuple[Value, ...]:
        if self._sampled:
            return tuple(axis[place] for axis in self._sampled)
        values: list[Value] = []
        for axis in reversed(self._grid):
            place, at = divmod(place, len(axis))
            values.append(axis[at])
        return tuple(reversed(values))


def _latin(sweep: Sweep, count: int) -> list[list[Value]]:
    """A Latin hypercube: each axis is cut into as many parts as there are places, and each part has one of them."""
    columns = []
    for number, axis in enumerate(sweep.file.axes):
        chance = random.Random(f"{sweep.seed} {number} {axis.key}")
        parts = list(range(count))
        chance.shuffle(parts)
        columns.append([axis.at((part + chance.random()) / count) for part in parts])
    return columns
