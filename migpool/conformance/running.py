"""Runs checks, each with a time limit."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from migpool.conformance.checks import Check
from migpool.conformance.subject import Subject
from migpool.conformance.verdict import Failure, NotApplicable
from migpool.errors import MigpoolError

__all__ = ["Finding", "Outcome", "run_check", "run_checks"]

AFTER_ABORT = 5.0
"""Seconds for a check to end after its devices were aborted."""


class Outcome(enum.Enum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "does not apply"


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check.

    Arguments:
        check: which.
        outcome: how it ended.
        text: what was seen, or what is wrong and what to do, in one line.
        seconds: how long it took.
    """

    check: Check
    outcome: Outcome
    text: str
    seconds: float


def run_checks(
    subject: Subject, checks: Iterable[Check], limit: float, watch: Callable[[Check], None] | None = None
) -> Iterator[Finding]:
    """Run one check after the other; see :func:`run_check`.

    Arguments:
        watch: called before each.
    """
    for check in checks:
        if watch is not None:
            watch(check)
        yield run_check(subject, check, limit)


def run_check(subject: Subject, check: Check, limit: float) -> Finding:
    """Run one check on devices of its own.

    Arguments:
        subject: the plug-in.
        check: which.
        limit: seconds that it may take; then its devices are aborted, and it has failed.
    """
    fresh = replace(subject, living=[])
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
    return Finding(check, outcome, " ".join(text.split()), time.monotonic() - began)


def _verdict(check: Check, subject: Subject) -> tuple[Outcome, str]:
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
