"""Reads results and writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from migpool.cli.files import check_writable, write
from migpool.lab.form import read_form
from migpool.lab.page.document import document
from migpool.lab.result import LabResult

__all__ = ["REPORT", "read_result", "reported", "write_report"]

REPORT: Final = Path("migpool-report.html")
"""Where ``compare`` writes it, and ``report`` unless it is told otherwise."""


def reported(path: Path) -> str:
    """The line that says where the report is."""
    return f"Report       {path} (a page for the browser)"


def write_report(results: Sequence[Path], output: Path) -> None:
    """Write one report of some results.

    Raises:
        UsageError: a file cannot be read or written, or is no result.
    """
    check_writable(output)
    read = [read_result(path) for path in results]
    names = list(dict.fromkeys(result.scenario for result in read))
    write(output, document(read, f"migpool: {', '.join(names)}"))


def read_result(path: Path) -> LabResult:
    """Read what ``--json`` wrote.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    return read_form(path, LabResult, "result", "--json")
