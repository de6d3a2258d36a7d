"""What a check is, whatever it checks, and how it is run within its time."""

from __future__ import annotations

import enum
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Generic, Self, TypeVar

from migpool.core.device_calls import stack_of, under_way
from migpool.core.plugin_errors import traceback_of
from migpool.errors import MigpoolError, UsageError
from migpool.scenario.plugins import Kind, names

AFTER_ABORT: Final = 2.0
"""Seconds that a check is given to end once what it is about was aborted."""
STANDING: Final = 0.5
"""The part of a check's time that one call must have lasted to be what the check hangs in."""

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
    """The plug-in does not do what the check is about; one line that says what it did and what would be right.

    Arguments:
        cause: what is the same in all that follows from this one mistake; empty for the whole text.
        trace: the traceback of what a plug-in raised, where it did that elsewhere.
        stack: where a call stands that went on for too long.
    """

    def __init__(self, text: str, cause: str = "", trace: str = "", stack: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.cause = cause
        self.stack = stack
        self.trace = trace


class Refused(UsageError):
    """The plug-in makes nothing with the options that it was given; one line that says why."""


class NotApplicable(Exception):
    """The check has nothing to look at in this plug-in; one line that says why."""


class Outcome(enum.Enum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "does not apply"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Check(Generic[S]):
    """One thing to check.

    Arguments:
        name: what it is called in a report.
        under: under which threading model, or at which end; empty if that means nothing to it.
        about: what it does, in a sentence.
        run: does it; returns what was seen, in a few words.
        first: whether the others under the same mean nothing once it has failed.
    """

    name: str
    under: str
    about: str
    run: Callable[[S], str]
    first: bool = False

    def __str__(self) -> str:
        return f"{self.name}[{self.under}]" if self.under else self.name


def check_of(run: Callable[..., str], under: str = "", *, first: bool = False, **given: object) -> Check[Any]:
    """The check that a function does: named like it, told of by the first line of its docstring.

    Arguments:
        under, first: as in :class:`Check`.
        given: arguments of ``run`` besides what is checked.
    """
    about = (run.__doc__ or "").partition("\n")[0]
    return Check(run.__name__.replace("_", "-"), under, about, partial(run, **given), first)


@dataclass(frozen=True, slots=True)
class Details:
    """What a finding says besides its line.

    Attributes:
        stack: where a call stands that does not return, the plug-in's outermost frame first.
        trace: the traceback of what a plug-in raised; empty without one.
        cause: what tells findings of one mistake; empty for the finding's text.
        held: whether the check has not ended, or has ended the process.
        refused: 1 if the plug-in refused its options, 2 if it cannot be had at all.
    """

    stack: tuple[str, ...] = ()
    trace: str = ""
    cause: str = ""
    held: bool = False
    refused: int = 0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of one check.

    Arguments:
        name, under, about: of the check.
        outcome: how it ended.
        text: what was seen, or what is wrong and what to do, in one line.
        seconds: how long it took.
        details: what there is to say beyond the line.
    """

    name: str
    under: str
    about: str
    outcome: Outcome
    text: str
    seconds: float
    details: Details = Details()


def run_check(subject: S, check: Check[S], limit: float) -> CheckResult:
    """Run one check on what is made for it alone.

    Arguments:
        limit: seconds that it may take. Then it has failed and what was made is aborted, which must end it soon: how
            soon is no share of the limit, since a busy machine needs the same time for it whatever the limit.
    """
    fresh = subject.fresh()
    verdict: list[tuple[Outcome, str, Details]] = []
    thread = threading.Thread(target=lambda: verdict.append(_verdict(check, fresh)), name=str(check), daemon=True)
    began = time.monotonic()
    thread.start()
    thread.join(limit)
    if thread.is_alive():
        held, stack = _held(thread, limit)
        threading.Thread(target=fresh.abort, name="abort", daemon=True).start()  # which may hang, too
        thread.join(AFTER_ABORT)
        ending = "abort() ended it" if not thread.is_alive() else "not even abort() ended it"
        text = f"it did not end within {limit:g} s{held}; {ending}"
        verdict.insert(0, (Outcome.FAILED, text, Details(stack, held=True)))
    outcome, text, details = verdict[0]
    seconds = time.monotonic() - began
    return CheckResult(check.name, check.under, check.about, outcome, " ".join(text.split()), seconds, details)


def _held(thread: threading.Thread, limit: float) -> tuple[str, tuple[str, ...]]:
    """What a check hangs in, in words, and the stack."""
    calls = under_way(0)
    if calls and calls[0].seconds >= limit * STANDING:
        return f": {calls[0]}", calls[0].stack
    what = f": just now {calls[0]}" if calls else ""
    return f"{what}; raise --limit if it is only slow", calls[0].stack if calls else stack_of(
        sys._current_frames().get(thread.ident or 0)
    )


def _verdict(check: Check[S], subject: S) -> tuple[Outcome, str, Details]:
    try:
        return Outcome.PASSED, check.run(subject), Details()
    except Refused as error:
        return Outcome.FAILED, str(error), Details(trace=_trace(error), refused=1)
    except Failure as failure:
        trace = failure.trace or _trace(failure)
        return Outcome.FAILED, str(failure), Details(failure.stack, trace, failure.cause)
    except MigpoolError as error:
        return Outcome.FAILED, str(error), Details(trace=_trace(error))
    except NotApplicable as reason:
        return Outcome.SKIPPED, str(reason), Details()
    except BaseException as error:  # noqa: BLE001 -- whatever a plug-in raises is a finding
        return Outcome.FAILED, f"{type(error).__name__}: {error}", Details(trace=_trace(error))


def _trace(error: BaseException) -> str:
    return traceback_of(error) or "".join(traceback.format_exception(error))


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
