"""The course of a kit's checks: in order, as far as what they find means something, and within a time that is told.

Guarantees:

1. A check that hangs costs its limit once: what comes after it would hang in the same, and is not run.
2. What can only follow from a mistake that was found is not told: no check is run whose first one has failed, none
   under a threading model once one without a model has failed, and one mistake is told once.
3. All checks together end within the total time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from migpool.conformance.check import Check, CheckResult, Outcome, check_name
from migpool.conformance.child import ChildRunner, Task
from migpool.conformance.devices import checks as checks_of_devices
from migpool.conformance.models import checks as checks_of_model
from migpool.conformance.models.bench import subjects
from migpool.errors import PluginError, UsageError
from migpool.scenario.plugins import read_options

TOTAL: Final = 10
"""How many times as long as one check may take all checks may take together, unless the user says otherwise."""

Run = Callable[[Check[Any], float], CheckResult]


class Course:
    """Runs checks, one after the other. Close it.

    Arguments:
        checks: each with what runs it within a number of seconds.
        limit: seconds that one of them may take.
        total: seconds that all may take.
    """

    def __init__(self, checks: Sequence[tuple[Check[Any], Run]], limit: float, total: float | None) -> None:
        self._runs = {str(check): run for check, run in checks}
        self.checks = [check for check, _ in checks]
        self.limit = limit
        self.total = limit * TOTAL if total is None else total
        self._deadline = 0.0
        self._ended: dict[str | None, str] = {}
        self._alone_failed = ""
        self._told: dict[str, str] = {}
        self._undo = ExitStack()

    def on_close(self, call: Callable[[], None]) -> None:
        self._undo.callback(call)

    def close(self) -> None:
        self._undo.close()

    def run(self, check: Check[Any]) -> CheckResult:
        """What comes of a check; those that stand before it in the order have been run.

        Raises:
            UsageError: the plug-in makes nothing with its options.
            PluginError: it cannot be had.
        """
        self._deadline = self._deadline or time.monotonic() + self.total
        if reason := self._reason(check):
            return _not_run(check, reason)
        left = self._deadline - time.monotonic()
        found = self._runs[str(check)](check, left)
        if found.details.refused and (found.details.refused == 2 or check is self.checks[0]):
            raise (UsageError if found.details.refused == 1 else PluginError)(found.text)
        if found.outcome is not Outcome.FAILED:
            return found
        if time.monotonic() > self._deadline:
            self._ended[None] = f"the total time of {self.total:g} s is over: raise it with --total"
            found = replace(found, text=f"{self._ended[None]}; {found.text}")
        if found.details.held:
            self._ended[None] = f"{check} has not ended as a check does"
        elif check.first:
            self._ended[check.under or None] = f"{check} has failed"
        elif not check.under:
            self._alone_failed = self._alone_failed or f"{check} has failed"
        cause = _cause(found)
        if cause in self._told:
            return _not_run(check, f"it is the same as in {self._told[cause]}: {found.text}")
        self._told[cause] = str(check)
        return found

    def _reason(self, check: Check[Any]) -> str:
        """Why a check need not be run; empty if it must be."""
        if None not in self._ended and self._deadline < time.monotonic():
            self._ended[None] = f"the total time of {self.total:g} s is over: raise it with --total"
        return self._ended.get(None) or self._ended.get(check.under) or (self._alone_failed if check.under else "")


def _not_run(check: Check[Any], reason: str) -> CheckResult:
    return CheckResult(check.name, check.under, check.about, Outcome.NOT_RUN, reason, 0.0)


def _cause(found: CheckResult) -> str:
    """What is alike in two findings of one mistake: not how many, at which wait, in which chunk."""
    return found.details.cause or f"{found.name}: {re.sub('[0-9]+', '0', found.text)}"


def device_course(
    name: str,
    options: Sequence[str],
    count: int,
    models: str,
    limit: float,
    total: float | None = None,
    *,
    every_wait: bool = False,
    comparable: bool = True,
) -> Course:
    """Every check of the device plug-in of that name.

    Arguments:
        options: ``KEY=VALUE`` each, the value as in a scenario (TOML); what is no TOML is taken as text.
        count: how many devices it is to make.
        models: names of threading models, as on the command line; empty for all that are installed.
        limit: seconds that one check may take.
        total: seconds that all may take together; ``None`` for ten times the limit.
        every_wait: cancel at every wait, not only at some that are evenly spread.
        comparable: whether a device with state must have a fingerprint, unless it says itself that it can have none.

    Raises:
        UsageError: there is no such plug-in or model, or an option is wrong.
    """
    if count < 1:
        raise UsageError(f"count is {count}: ask for 1 device or more")
    check_name("device", name)
    read_options(options)
    runner = ChildRunner(Task("device", name, limit, "", tuple(options), count, models, every_wait, comparable))
    course = Course([(check, runner.run) for check in checks_of_devices(models, every_wait)], limit, total)
    course.on_close(runner.close)
    return course


def model_course(name: str, limit: float, total: float | None = None) -> Course:
    """Every check of the threading model of that name, at each end that it is for.

    Arguments:
        limit, total: as for :func:`device_course`.

    Raises:
        UsageError, PluginError: as for :func:`~migpool.conformance.models.bench.subjects`.
    """
    runners: list[ChildRunner] = []
    runs: list[tuple[Check[Any], Run]] = []
    for subject in subjects(name, limit):
        runner = ChildRunner(Task("scheduler", subject.name, limit, subject.side))
        runners.append(runner)
        runs += [(check, runner.run) for check in checks_of_model(subject)]
    course = Course(runs, limit, total)
    for runner in runners:
        course.on_close(runner.close)
    return course
