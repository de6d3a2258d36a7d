"""Which section of the site a page stands in: said here, once. A page that nothing names stands under Explanation."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

FIRST = "docs/index"
TUTORIALS = ["docs/tutorials/downtime", "docs/tutorials/device", "docs/tutorials/threading-model", "docs/tutorials/*"]
GUIDES = [
    "docs/comparing-models",
    "docs/explain",
    "docs/gallery/README",
    "docs/real-migrations",
    "docs/streams",
    "docs/files-and-recordings",
    "docs/vfio",
    "docs/vfio-user",
    "docs/device-plugins",
    "docs/threading-models",
    "docs/links",
]
REFERENCE = ["docs/reference/*", "docs/api/*", "docs/results", "docs/wire", "docs/vmsd*", "docs/glossary"]
EXPLANATION = ["docs/architecture", "docs/machine", "docs/experiments", "docs/*"]
RESULTS = ["docs/results/*/README", "benchmarks/README"]
DECISIONS = ["docs/decisions/README"]
PROJECT = ["README", "CONTRIBUTING", "SECURITY", "CHANGELOG"]

SECTIONS = {
    "Tutorials": TUTORIALS,
    "How-to guides": GUIDES,
    "Reference": REFERENCE,
    "Explanation": EXPLANATION,
    "Results": RESULTS,
    "Decisions": DECISIONS,
    "The project": PROJECT,
}
"""Patterns of pages by section, as both are shown. What several fit is the first's; ``docs/*`` is tried last."""

PARTS = {"docs/results/*/README": "docs/results/*/*", "docs/decisions/README": "docs/decisions/*"}
"""Pages that lead to the other pages of their directory, which stand under them."""

REST = "docs/*"


def pages(top: Path) -> list[str]:
    """Every page but the first, by its path from the project's top without the ending."""
    found = [*top.glob("*.md"), *(top / "benchmarks").glob("*.md"), *(top / "docs").rglob("*.md")]
    names = sorted(path.relative_to(top).with_suffix("").as_posix() for path in found)
    return [name for name in names if name != FIRST]


def sections(names: list[str]) -> dict[str, list[str]]:
    """The pages of each section; those that stand under another page are left to that."""
    left = [name for name in names if above(name) is None]
    found: dict[str, list[str]] = {section: [] for section in SECTIONS}
    # The pattern for the rest is tried when all others had their turn.
    for last in (False, True):
        for section, patterns in SECTIONS.items():
            for pattern in patterns:
                if (pattern == REST) is last:
                    mine = [name for name in left if fits(name, pattern)]
                    found[section] += mine
                    left = [name for name in left if name not in mine]
    return {section: mine for section, mine in found.items() if mine}


def below(name: str, names: list[str]) -> list[str]:
    """The pages that stand under one, C2 before C10."""
    return sorted((page for page in names if above(page) == name), key=_numbers)


def above(name: str) -> str | None:
    """The page that this one stands under."""
    for whole, part in PARTS.items():
        if fits(name, part) and not fits(name, whole):
            return f"{name.rpartition('/')[0]}/README"
    return None


def fits(name: str, pattern: str) -> bool:
    """Whether a page is what a pattern means; a star is no slash, as on the disk."""
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def _numbers(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
