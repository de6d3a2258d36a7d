"""Files that a command writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from migpool.errors import MigpoolError, UsageError

REPORT: Final = Path("migpool-report.html")
"""Where ``compare`` writes the report, and ``report`` unless it is told otherwise."""


def check_writable(*paths: Path | None) -> None:
    """Find out before the work begins whether the files can be written, and not after it.

    Raises:
        UsageError: one cannot.
    """
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise UsageError(f"{path} is a directory: name a file")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{path} cannot be written: there is no directory {path.absolute().parent}")
        if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise UsageError(f"{path} cannot be written: no permission")


def write(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        MigpoolError: it cannot be written.
    """
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise MigpoolError(f"{path} cannot be written: {error.strerror or error}") from None


def reported(path: Path) -> str:
    return f"Report       {path} (a page for the browser)"
