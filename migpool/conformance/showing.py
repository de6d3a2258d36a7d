"""The report of a plug-in's checks: for a terminal, as Markdown for a review, as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from textwrap import wrap
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from migpool.conformance.check import Check, CheckResult, Outcome
from migpool.conformance.course import Course
from migpool.lab.report.table import markdown_table
from migpool.units import count_of

_MARKS: Final = {
    Outcome.PASSED: ("passed", "green"),
    Outcome.FAILED: ("FAILED", "red"),
    Outcome.SKIPPED: ("n/a", "dim"),
    Outcome.NOT_RUN: ("not run", "yellow"),
}
MARK: Final = max(len(mark) for mark, _ in _MARKS.values())
INDENT: Final = "    "
NARROW: Final = 30
"""Columns below which what was seen stands under the check's name, not beside it."""


def heading(name: str, course: Course) -> Text:
    """What is about to be checked, and how long that takes at most."""
    one = f"none longer than {course.limit:g} s, all of them at most {course.total:g} s"
    return Text(f"{name}: {count_of(len(course.checks), 'check')}, {one}")


def lines(found: CheckResult, checks: Sequence[Check[Any]], width: int, *, debug: bool) -> list[Text]:
    """A finding, as soon as it is there; nothing for a check that was not run, which is told of at the end.

    Arguments:
        checks: all of them, for the columns.
        width: of the terminal, in columns; 0 where there is none, and a finding is one line.
        debug: whether the traceback is shown, too.
    """
    if found.outcome is Outcome.NOT_RUN:
        return []
    names, models = (max(len(getattr(check, part)) for check in checks) for part in ("name", "under"))
    mark, style = _MARKS[found.outcome]
    row = Text.assemble(f"{found.name:<{names}}  {found.under:<{models}}  ", (f"{mark:<{MARK}}", style), "  ")
    beside = width - len(row) if width else len(found.text)
    text = (
        [found.text]
        if beside >= len(found.text)
        else wrap(found.text, beside if beside >= NARROW else max(1, width - len(INDENT)))
    )
    if beside >= NARROW or not width:
        row.append(f"\n{' ' * len(row)}".join(text))
    else:
        row.append(f"\n{INDENT}".join(["", *text]))
    told = [row, *(Text(f"{INDENT}at {frame}") for frame in found.details.stack)]
    if debug and found.outcome is Outcome.FAILED:
        told += [Text(f"{INDENT}{line}") for line in found.details.trace.splitlines()]
    return told


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    Arguments:
        package: the package that brings it, with its version; may be empty.
        options: the options that its devices were made with, as text.
        findings: in the order of the checks.
    """

    plugin: str
    package: str
    options: str
    findings: Sequence[CheckResult]

    @property
    def failed(self) -> bool:
        """Whether it does not conform, or that could not be told."""
        return any(one.outcome in (Outcome.FAILED, Outcome.NOT_RUN) for one in self.findings)

    def count(self, *outcomes: Outcome) -> int:
        return sum(one.outcome in outcomes for one in self.findings)

    @property
    def verdict(self) -> str:
        """The whole in a sentence."""
        ran = self.count(Outcome.PASSED, Outcome.FAILED)
        what = f"{self.plugin} ({self.package})" if self.package else self.plugin
        left = self.count(Outcome.NOT_RUN)
        if self.failed:
            more = f", {left} not run" if left else ""
            return f"{what} does not conform: {self.count(Outcome.FAILED)} of {count_of(ran, 'check')} failed{more}"
        return f"{what} conforms: {count_of(ran, 'check')} passed"

    def closing(self) -> RenderableType:
        """What was not run and why, and the verdict."""
        reasons = dict.fromkeys(one.text for one in self.findings if one.outcome is Outcome.NOT_RUN)
        left = [f"not run since {reason}: {self._names(reason)}" for reason in reasons]
        return Group(*(Text(line, style="yellow") for line in left), Text(), Text(self.verdict, style="bold"))

    def _names(self, reason: str) -> str:
        names = [one.name for one in self.findings if one.outcome is Outcome.NOT_RUN and one.text == reason]
        return ", ".join(dict.fromkeys(names))

    def markdown(self) -> str:
        """To paste into a review."""
        about = {one.name: one.about for one in self.findings}
        rows = [
            (one.name, one.under or "-", _MARKS[one.outcome][0], one.text, f"{one.seconds:.2f}")
            for one in self.findings
        ]
        lines = [
            f"## Conformance of `{self.plugin}`",
            "",
            f"{self.verdict}. migpool {version('migpool')}, CPython {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}; options: `{self.options or 'none'}`.",
            "",
            *markdown_table("| check | model | result | what was seen | seconds |", rows),
            "",
            *(f"* **{name}**: {text}" for name, text in about.items()),
            "",
        ]
        return "\n".join(lines)

    def to_json(self) -> str:
        """``{"schema": 1, "plugin", "package", "options", "conforms", "checks": [{"check", "model", "outcome", "text",
        "seconds"}]}``."""
        return json.dumps(
            {
                "schema": 1,
                "plugin": self.plugin,
                "package": self.package,
                "options": self.options,
                "conforms": not self.failed,
                "checks": [
                    {
                        "check": one.name,
                        "model": one.under,
                        "outcome": one.outcome.value,
                        "text": one.text,
                        "seconds": round(one.seconds, 3),
                    }
                    for one in self.findings
                ],
            },
            indent=2,
        )
