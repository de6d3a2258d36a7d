"""A directory of results: a page, a picture and the JSON of each experiment, and an index of all that are there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from migpool.errors import UsageError
from migpool.experiments.catalogue import in_order
from migpool.experiments.finding import Finding
from migpool.experiments.page import index, page
from migpool.experiments.plot import plot
from migpool.lab.run.form import read_form


def prepare(folder: Path) -> None:
    """Have the directory before the work begins, and not find out after it.

    Raises:
        UsageError: it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror or error}: name another directory") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be written to: no permission")


def write_finding(folder: Path, finding: Finding, write: Callable[[Path, str], None]) -> None:
    """Write its files, and the index anew: of this one and of all that earlier calls left in the directory."""
    write(folder / f"{finding.id}.json", finding.to_json())
    write(folder / f"{finding.id}.svg", plot(finding))
    write(folder / f"{finding.id}.md", page(finding, f"{finding.id}.svg"))
    write(folder / "README.md", index(sorted(_there(folder), key=_number)))


def findings_in(path: Path) -> list[Finding]:
    """That of a file, or all of a directory, in the order of their numbers.

    Raises:
        UsageError: there is none, or a file is something else.
    """
    # What is simulated, and no finding, stands beside them.
    files = [each for each in path.glob("*.json") if each.stem != "published"] if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path} has no findings: name a directory that migpool lab run --results has written")
    found = [read_form(each, Finding, "finding of an experiment", "migpool lab run --results") for each in files]
    return sorted(found, key=_number)


def _there(folder: Path) -> Iterator[Finding]:
    for path in folder.glob("*.json"):
        try:
            yield Finding.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue  # not a finding, or one of a form that this version does not know


def _number(finding: Finding) -> tuple[str, int]:
    return in_order(finding.id)
