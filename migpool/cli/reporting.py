"""Reads results and writes the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from migpool.cli.files import check_writable, write
from migpool.errors import UsageError
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
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no result: give a file that --json wrote") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        form = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON ({error}): give a file that --json wrote") from None
    if isinstance(form, dict) and form.get("schema", 1) != 1:
        raise UsageError(f"{path} has schema {form['schema']!r}: this version reads schema 1, a newer one wrote it")
    try:
        return LabResult.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "at its top"
        raise UsageError(f"{path} is no result: {where}: {first['msg']}; give a file that --json wrote") from None
