"""What a group's rounds come to: a figure a row, with its spread, held against its target."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.datapath.groups import Group
from benchmarks.datapath.task import Measure

__all__ = ["Contender", "Outcome", "contenders", "outcomes"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row.

    Attributes:
        name: what it is about.
        median: over the rounds.
        least: of any round.
        most: of any round.
        rounds: how many.
        target: what the median must reach; ``None`` if it has none.
        at_most: whether it must stay under the target.
    """

    name: str
    median: float
    least: float
    most: float
    rounds: int
    target: float | None
    at_most: bool

    @property
    def passed(self) -> bool | None:
        """Whether the median reaches the target; ``None`` without one."""
        if self.target is None:
            return None
        return self.median <= self.target if self.at_most else self.median >= self.target


@dataclass(frozen=True, slots=True)
class Contender:
    """One run's medians over the rounds.

    Attributes:
        group: the group that it belongs to.
        name: its name there.
        seconds: from the first read to the last write.
        rate: GiB a second.
        user: CPU seconds in user mode a GiB, both processes.
        system: the same, in the kernel.
        switchover: seconds from stop to start; 0 for C.
    """

    group: str
    name: str
    seconds: float
    rate: float
    user: float
    system: float
    switchover: float


def outcomes(group: Group, rounds: Sequence[Mapping[str, Measure]]) -> list[Outcome]:
    """The rows of ``group``."""
    found = []
    for row in group.rows:
        figures = [row.figure(measures) for measures in rounds]
        found.append(
            Outcome(
                row.name,
                statistics.median(figures),
                min(figures),
                max(figures),
                len(figures),
                row.target,
                row.at_most,
            )
        )
    return found


def contenders(group: Group, rounds: Sequence[Mapping[str, Measure]]) -> list[Contender]:
    """The runs of ``group``."""
    found = []
    for run in group.runs:
        measures = [each[run.name] for each in rounds]
        gib = measures[0].bytes / (1 << 30)
        found.append(
            Contender(
                group.name,
                run.name,
                statistics.median(measure.seconds for measure in measures),
                statistics.median(measure.rate for measure in measures) / (1 << 30),
                statistics.median(measure.user for measure in measures) / gib,
                statistics.median(measure.system for measure in measures) / gib,
                statistics.median(measure.switchover for measure in measures),
            )
        )
    return found
