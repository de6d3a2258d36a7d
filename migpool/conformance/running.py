"""Runs checks, each with a time limit."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from migpool.conformance.check import Check, Failure, NotApplicable, S
from migpool.errors import MigpoolError

AFTER_ABORT = 5.0
"""Seconds for a check to end after what it was about was aborted."""


class Outcome(enum.Enum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "does not apply"


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


def run_checks(
    subject: S, checks: Iterable[Check[S]], limit: float, watch: Callable[[Check[S]], None] | None = None
) -> Iterator[CheckResult]:
    """Run one check after the other; see :func:`run_check`. ``watch``: called before each."""
    for check in checks:
        if watch is not None:
            watch(check)
        yield run_check(subject, check, limit)


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
    except Failure as failure:
        return Outcome.FAILED, str(failure)
    except NotApplicable as reason:
        return Outcome.SKIPPED, str(reason)
    except MigpoolError as error:
        return Outcome.FAILED, str(error)
    except Exception as error:  # noqa: BLE001 -- whatever a plug-in raises is a finding
        return Outcome.FAILED, f"{type(error).__name__}: {error}"
