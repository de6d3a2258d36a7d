"""What a check is, whatever it checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeVar


class Checked(Protocol):
    """What is checked: a plug-in, and how its things are made."""

    def fresh(self) -> Self:
        """The same, and nothing has been made of it yet: for one check."""
        ...

    def abort(self) -> None:
        """End what can be ended of what was made."""
        ...


S = TypeVar("S", bound=Checked)


@dataclass(frozen=True, slots=True)
class Check(Generic[S]):
    """One thing to check.

    Arguments:
        name: what it is called in a report.
        under: under which threading model, or at which end; empty if that means nothing to it.
        about: what it does, in a sentence.
        run: does it; returns what was seen, in a few words.
    """

    name: str
    under: str
    about: str
    run: Callable[[S], str]

    def __str__(self) -> str:
        return f"{self.name}[{self.under}]" if self.under else self.name


def check_of(run: Callable[..., str], under: str = "", **given: object) -> Check[Any]:
    """The check that a function does: named like it, told of by the first line of its docstring.

    Arguments:
        under: as in :class:`Check`.
        given: arguments of ``run`` besides what is checked.
    """
    return Check(run.__name__.replace("_", "-"), under, (run.__doc__ or "").partition("\n")[0], partial(run, **given))


class Failure(Exception):
    """The plug-in does not do what the check is about; one line that says what it did and what would be right."""


class NotApplicable(Exception):
    """The check has nothing to look at in this plug-in; one line that says why."""
