"""The site as it was built: every page is near, nothing leads nowhere, and nothing comes from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

from tests.docs.test_site_navigation import PAGES
from tests.support import ROOT

pytestmark = pytest.mark.site

SITE = ROOT / "build" / "site"
FIRST = SITE / "docs" / "index.html"
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "use": "href"}


class Page(HTMLParser):
    """What a page links to, what its names for places are, and what a browser fetches for it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.fetched: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.names |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "form" and "action" in found:
            self.links.append(found["action"])  # the search, by the key Return
        if tag in FETCHED and FETCHED[tag] in found:
            self.fetched.append(found[FETCHED[tag]])


@pytest.fixture(scope="module")
def site() -> dict[Path, Page]:
    assert FIRST.exists(), "there is no site here: make docs builds it"
    return {path: Page(path) for path in SITE.rglob("*.html") if "_static" not in path.parts}


def led_to(page: Path, link: str) -> tuple[Path, str] | None:
    """The file and the place that a link of a page leads to; None if it leaves the site."""
    whole, place = urldefrag(urljoin(page.as_uri(), link))
    parts = urlsplit(whole)
    return (Path(unquote(parts.path)), unquote(place)) if parts.scheme == "file" else None


def within(page: Path, site: dict[Path, Page]) -> Iterator[Path]:
    for link in site[page].links:
        if (found := led_to(page, link)) is not None:
            yield found[0]


def clicks(first: Path, site: dict[Path, Page]) -> dict[Path, int]:
    """How many clicks each page is from one; what cannot be reached is not in it."""
    found, edge = {first: 0}, [first]
    while edge:
        led = [(to, found[page] + 1) for page in edge for to in within(page, site)]
        edge = [to for to in dict(led) if to in site and to not in found]
        found |= {to: number for to, number in led if to in edge}
    return found


def test_every_page_is_two_clicks_from_the_first(site: dict[Path, Page]) -> None:
    near = clicks(FIRST, site)
    assert {SITE / f"{name}.html" for name in PAGES} <= set(site)
    # The top sends everybody on to the first page.
    far = {page.relative_to(SITE).as_posix(): near.get(page) for page in site if near.get(page, 9) > 2}
    assert far == {"index.html": None}
    assert FIRST in within(SITE / "index.html", site)


def test_every_page_leads_back(site: dict[Path, Page]) -> None:
    assert [page for page in site if FIRST not in clicks(page, site)] == []


def test_a_page_that_is_far_would_be_found(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d", "alone")
    for name, to in zip(names, ("b", "c", "d", "a", "a"), strict=True):
        (tmp_path / f"{name}.html").write_text(f'<a href="{to}.html">on</a>')
    pages = {path: Page(path) for path in tmp_path.glob("*.html")}
    found = clicks(tmp_path / "a.html", pages)
    assert {path.stem: number for path, number in found.items()} == {"a": 0, "b": 1, "c": 2, "d": 3}


def test_no_link_leads_nowhere(site: dict[Path, Page]) -> None:
    dead = []
    for path, page in site.items():
        for link in page.links:
            if (found := led_to(path, link)) is None:
                continue
            file, place = found
            if not file.is_file() or (place and file in site and place not in site[file].names):
                dead.append(f"{path.relative_to(SITE)}: {link}")
    assert dead == []


def test_nothing_is_fetched_from_elsewhere(site: dict[Path, Page]) -> None:
    for path, page in site.items():
        for address in page.fetched:
            found = led_to(path, address) if not address.startswith("data:") else (path, "")
            assert found is not None, f"{path}: {address}"
            assert found[0].is_file(), f"{path}: {address}"
    sheets = [path.read_text("utf-8") for path in SITE.rglob("*.css")]
    assert sheets
    assert [
        url for sheet in sheets for url in re.findall(r"(?:@import\s+|url\()[\"']?(?:https?:)?//[^)\"']+", sheet)
    ] == []


@pytest.mark.usefixtures("site")
def test_the_search_knows_every_page() -> None:
    index = (SITE / "searchindex.js").read_text("utf-8")
    assert [name for name in PAGES if f'"{name}"' not in index] == []
