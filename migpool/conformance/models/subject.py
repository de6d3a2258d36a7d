"""The threading model that is looked at, at one end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Self

from migpool.conformance.naming import check_name
from migpool.device import Side
from migpool.errors import UsageError
from migpool.scenario.model_names import SideModel, parse_part
from migpool.scenario.plugins import load_scheduler

PATIENCE: Final = 0.1
"""The part of a check's limit that one call of the model may take."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A threading model at one end.

    Arguments:
        name: as on the command line: ``pool``, ``pool:2:queue``.
        patience: seconds that a call of it may take, and that its jobs may make no headway.
        living: what ends the waits of what was made, so that a check that hangs can be ended.
    """

    name: str
    side: Side
    part: SideModel
    patience: float
    living: list[Callable[[], object]] = field(default_factory=list, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.name} {self.side}"

    def fresh(self) -> Self:
        return replace(self, living=[])

    def abort(self) -> None:
        """End every wait of what was made."""
        for end in self.living:
            end()


def subjects(name: str, limit: float) -> list[Subject]:
    """A model at each end that it is for; with a plain name, also each of its variants.

    Arguments:
        name: as on the command line, for one end.
        limit: seconds that one check may take.

    Raises:
        UsageError: there is no such model, or what follows its name means nothing to it.
        PluginError: it cannot be imported, or is no threading model.
    """
    if "+" in name:
        raise UsageError(f"{name!r} names two models: check one at a time, each is checked at either end")
    check_name("scheduler", name)
    load_scheduler(name.partition(":")[0])  # for its own words, if it is broken
    part, patience = parse_part(name), limit * PATIENCE
    words = [] if ":" in name else [word for group in part.scheduler.choices for word in group]
    names = [name, *(f"{name}:{word}" for word in words)]
    return [Subject(each, side, parse_part(each), patience) for each in names for side in sorted(part.scheduler.sides)]
