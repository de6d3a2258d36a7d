"""Nobody is kept off a page: axe-core, the keyboard, a phone, the dark, and paper; for every kind of page there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

from migpool.lab.run.result import LabResult
from tests.browser.pages import KINDS
from tests.docs.test_site_navigation import NAVIGATION, PAGES
from tests.support import ROOT

if TYPE_CHECKING:
    from tests.browser.browser_look import Look  # selenium is there only where these tests run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

SITE: Final = ROOT / "build" / "site"
OURS: Final = [
    *KINDS,
    *sorted(f"gallery {path.stem}" for path in (SITE / "docs" / "gallery").glob("*.html") if path.stem != "README"),
]
PAPER: Final = 687  # A4 less its margins, in CSS pixels
WIDTHS: Final = {"desktop": 1280, "phone": 390}

CONTROLS: Final = """
return [...document.querySelectorAll('a[href], button, select, input, summary, [tabindex="0"]')].filter(one =>
  !one.disabled && one.checkVisibility({visibilityProperty: true}) && one.getClientRects().length > 0 &&
  !one.closest('[inert]')).map((one, at) => { one.dataset.control = at; return at; })
"""
FOCUSED: Final = """
const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
return {control: one.dataset.control ?? null, tag: one.tagName, html: one.outerHTML.slice(0, 90),
        shown: (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== 'none'}
"""
CUT: Final = """
const wide = [...document.querySelectorAll('main *, article *')].filter(one =>
  one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0 && getComputedStyle(one).display !== 'inline' &&
  getComputedStyle(one).overflowX !== 'visible' && !one.closest('svg, .js-plotly-plot'));
return wide.map(one => `${one.tagName}.${one.className}: ${one.scrollWidth} in ${one.clientWidth}: ` +
  one.textContent.trim().slice(0, 60))
"""


@pytest.fixture(scope="session")
def addresses(results: LabResult, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A page of each kind, and those of the gallery, each made once."""
    found = {}
    for kind, make in KINDS.items():
        folder = tmp_path_factory.mktemp(kind)
        (folder / "page.html").write_text(make(results, folder), "utf-8")
        found[kind] = (folder / "page.html").as_uri()
    for name in OURS:
        if name not in KINDS:
            found[name] = (SITE / "docs" / "gallery" / f"{name.removeprefix('gallery ')}.html").as_uri()
    return found


def opened(look: Look, address: str) -> None:
    look.driver.get(address)
    look.until("document.readyState === 'complete'")
    look.until("!document.querySelector('#theme') || document.documentElement.dataset.ready === 'yes'")


def seen(look: Look, width: str, scheme: str) -> None:
    look.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    look.tell(
        "Emulation.setDeviceMetricsOverride",
        width=WIDTHS[width], height=850, deviceScaleFactor=1, mobile=width == "phone",
    )  # fmt: skip


def ways() -> Iterator[tuple[str, str]]:
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            yield width, scheme


def test_there_are_pages_to_look_at() -> None:
    assert len(OURS) >= len(KINDS) + 5, "there is no gallery here: make docs builds it"


@pytest.mark.parametrize("name", OURS)
def test_axe_finds_no_serious_fault_on_a_page_of_ours(look: Look, addresses: dict[str, str], name: str) -> None:
    found = []
    for width, scheme in ways():
        seen(look, width, scheme)
        opened(look, addresses[name])
        found += [f"{width}, {scheme}: {one}" for one in look.faults()]
        assert look.value("return document.documentElement.scrollWidth") <= WIDTHS[width], f"{width}: wider than that"
    assert found == []


SECTIONS: Final[dict[str, list[str]]] = NAVIGATION.sections(PAGES)


@pytest.mark.parametrize("section", [*SECTIONS, "others"])
def test_axe_finds_no_serious_fault_on_any_page_of_the_site(look: Look, section: str) -> None:
    mine = [name for page in SECTIONS.get(section, ()) for name in (page, *NAVIGATION.below(page, PAGES))]
    found = []
    for name in mine or ["docs/index", "search"]:
        look.driver.get("about:blank")
        for width, scheme in ways():
            seen(look, width, scheme)
            if (width, scheme) == ("desktop", "light"):
                opened(look, (SITE / f"{name}.html").as_uri())
            # What is dark differs from what is light by its colours alone.
            rules = () if scheme == "light" else ("color-contrast", "link-in-text-block")
            found += [f"{name}, {width}, {scheme}: {one}" for one in look.faults(*rules)]
    assert found == []


def unreached(look: Look) -> list[str]:
    """Controls that the key Tab does not come to, and those at which nobody sees that it has."""
    from selenium.webdriver.common.keys import Keys

    wanted = set(map(str, look.value(CONTROLS)))
    reached, unseen = set(), []
    look.value("document.activeElement.blur()")
    for _ in range(len(wanted) + 20):
        look.mouse().send_keys(Keys.TAB).perform()
        now = look.value(FOCUSED)
        if now["control"] is None or now["control"] in reached:
            if now["tag"] == "BODY" or now["control"] in reached:
                break
            continue
        reached.add(now["control"])
        if not now["shown"]:
            unseen.append(now["html"])
    left = [
        look.value(f"return document.querySelector('[data-control=\"{one}\"]').outerHTML.slice(0, 90)")
        for one in wanted - reached
    ]
    return [*(f"not reached: {one}" for one in left), *(f"not seen: {one}" for one in unseen)]


@pytest.mark.parametrize("name", OURS)
def test_the_keyboard_reaches_every_control_and_is_seen_there(look: Look, addresses: dict[str, str], name: str) -> None:
    opened(look, addresses[name])
    assert unreached(look) == []


@pytest.mark.parametrize("name", ["docs/index", "docs/sweeps", "search"])
def test_the_keyboard_reaches_every_control_of_the_site(look: Look, name: str) -> None:
    opened(look, (SITE / f"{name}.html").as_uri())
    assert unreached(look) == []


@pytest.mark.parametrize("name", [*OURS, "docs/sweeps", "docs/explain", "docs/results/2026-11-30/C16"])
def test_nothing_is_cut_off_on_paper(look: Look, addresses: dict[str, str], name: str) -> None:
    look.tell("Emulation.setDeviceMetricsOverride", width=PAPER, height=970, deviceScaleFactor=1, mobile=False)
    look.tell("Emulation.setEmulatedMedia", media="print")
    opened(look, addresses.get(name, (SITE / f"{name}.html").as_uri()))
    assert look.value("return document.documentElement.scrollWidth") <= PAPER
    assert look.value(CUT) == []
