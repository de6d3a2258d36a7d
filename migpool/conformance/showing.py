"""The report of a plug-in's checks: for a terminal, as Markdown for a review, as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from migpool.conformance.check import CheckResult, Outcome
from migpool.lab.report.table import markdown_table, plain_table

_MARKS: Final = {
    Outcome.PASSED: ("passed", "green"),
    Outcome.FAILED: ("FAILED", "red"),
    Outcome.SKIPPED: ("n/a", "dim"),
}


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
    def failed(self) -> int:
        return sum(one.outcome is Outcome.FAILED for one in self.findings)

    @property
    def verdict(self) -> str:
        """The whole in a sentence."""
        ran = sum(one.outcome is not Outcome.SKIPPED for one in self.findings)
        what = f"{self.plugin} ({self.package})" if self.package else self.plugin
        if self.failed:
            return f"{what} does not conform: {self.failed} of {ran} checks failed"
        return f"{what} conforms: {ran} checks passed"

    def table(self) -> RenderableType:
        table = plain_table()
        for heading in ("Check", "Model", ""):
            table.add_column(heading, no_wrap=True)
        table.add_column("What was seen", ratio=1)
        for one in self.findings:
            mark, style = _MARKS[one.outcome]
            table.add_row(one.name, one.under, Text(mark, style=style), Text(one.text))
        return Group(table, Text(), Text(self.verdict, style="bold"))

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
