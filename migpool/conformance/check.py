"""What a check is, whatever it checks, and how it is run within its time."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Generic, Self, TypeVar

from migpool.errors import MigpoolError, UsageError
from migpool.scenario.plugins import Kind, names

AFTER_ABORT = 5.0
"""Seconds for a check to end after what it was about was aborted."""

_COMMANDS: Final[dict[Kind, str]] = {
    "device": "a device plug-in: migpool conformance {name}, or pytest --migpool-plugin {name}, checks it",
    "scheduler": "a threading model: migpool conformance --model {name}, or pytest --migpool-model {name}, checks it",
}


@dataclass(frozen=True, slots=True)
class Checked:
    """What is checked: a plug-in, and how its things are made.

    Arguments:
        living: what ends the waits of what was made, so that a check that hangs can be ended.
    """

    living: list[Callable[[], object]] = field(default_factory=list, repr=False, compare=False, kw_only=True)

    def fresh(self) -> Self:
        """The same, and nothing has been made of it yet: for one check."""
        return replace(self, living=[])

    def abort(self) -> None:
        """End what can be ended of what was made."""
        for end in self.living:
            end()


S = TypeVar("S", bound=Checked)


class Failure(Exception):
    """The plug-in does not do what the check is about; one line that says what it did and what would be right."""


class NotApplicable(Exception):
    """The check has nothing to look at in this plug-in; one line that says why."""


class Outcome(enum.Enum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "does not apply"


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


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of one check.

    Arguments:
        name, under, about: of the check.
        outcome: how it ended.
        text: what was seen, or what is wrong and what to do, in one line.
        seconds: how long it took.
    """

    name: str
    under: str
    about: str
    outcome: Outcome
    text: str
    seconds: float


def run_check(subject: S, check: Check[S], limit: float) -> CheckResult:
    """Run one check on what is made for it alone.

    Arguments:
        limit: seconds that it may take; then what was made is aborted, and the check has failed.
    """
    fresh = subject.fresh()
    verdict: list[tuple[Outcome, str]] = []
    thread = threading.Thread(target=lambda: verdict.append(_verdict(check, fresh)), name=str(check), daemon=True)
    began = time.monotonic()
    thread.start()
    thread.join(limit)
    if thread.is_alive():
        fresh.abort()
        thread.join(AFTER_ABORT)
        ending = "abort() ended it" if not thread.is_alive() else "not even abort() ended it"
        verdict.insert(0, (Outcome.FAILED, f"it did not end within {limit:g} s; {ending}"))
    outcome, text = verdict[0]
    seconds = time.monotonic() - began
    return CheckResult(check.name, check.under, check.about, outcome, " ".join(text.split()), seconds)


def _verdict(check: Check[S], subject: S) -> tuple[Outcome, str]:
    try:
        return Outcome.PASSED, check.run(subject)
    except (Failure, MigpoolError) as failure:
        return Outcome.FAILED, str(failure)
    except NotApplicable as reason:
        return Outcome.SKIPPED, str(reason)
    except Exception as error:  # noqa: BLE001 -- whatever a plug-in raises is a finding
        return Outcome.FAILED, f"{type(error).__name__}: {error}"


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
