"""Every page stands in the site's navigation, without a list of pages that one would have to keep."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT


def loaded() -> Any:
    """The site's navigation, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("navigation", ROOT / "docs" / "site" / "navigation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAVIGATION = loaded()
PAGES: list[str] = NAVIGATION.pages(ROOT)


def in_sections(names: list[str]) -> list[str]:
    found: dict[str, list[str]] = NAVIGATION.sections(names)
    return [name for mine in found.values() for name in mine]


def test_a_page_stands_in_one_section_or_under_a_page_that_does() -> None:
    shown = in_sections(PAGES)
    assert len(shown) == len(set(shown))
    under = {name: NAVIGATION.above(name) for name in PAGES if name not in shown}
    assert under, "decisions and results stand under their first page"
    assert [name for name, page in under.items() if page not in shown] == []


def test_no_pattern_is_left_that_names_nothing() -> None:
    mine = [pattern for patterns in NAVIGATION.SECTIONS.values() for pattern in patterns]
    assert [one for one in mine if not any(NAVIGATION.fits(name, one) for name in PAGES)] == []


@pytest.mark.parametrize(
    ("page", "section"),
    [
        ("docs/a-new-thought", "Explanation"),
        ("docs/tutorials/another", "Tutorials"),
        ("docs/reference/another", "Reference"),
        ("docs/results/2027-01-01/README", "Results"),
    ],
)
def test_a_new_page_needs_no_change(page: str, section: str) -> None:
    found: dict[str, list[str]] = NAVIGATION.sections([*PAGES, page])
    assert [name for name, mine in found.items() if page in mine] == [section]


def test_parts_stand_in_the_order_of_their_numbers() -> None:
    names = [f"docs/results/2027-01-01/{name}" for name in ("C10", "README", "C2")]
    assert [Path(name).name for name in NAVIGATION.below(names[1], names)] == ["C2", "C10"]
