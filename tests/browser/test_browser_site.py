"""The built site in a real browser, off the disk: fetches nothing, is searched, and read in the dark and on a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.test_site_navigation import PAGES
from tests.support import ROOT

if TYPE_CHECKING:
    from tests.browser.browser_look import Look  # selenium is there only where these tests run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

SITE = ROOT / "build" / "site"
FIRST = "docs/index"
BACK = "getComputedStyle(document.body).backgroundColor"
LIGHT, PHONE = "rgb(255, 255, 255)", 390


def open_page(look: Look, name: str) -> None:
    page = SITE / f"{name}.html"
    assert page.exists(), "there is no site here: make docs builds it"
    look.driver.get(page.as_uri())
    look.until("document.readyState === 'complete'")


@pytest.fixture
def light(look: Look) -> Look:
    look.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    return look


def test_no_page_complains_asks_anybody_or_is_wider_than_a_phone(light: Look) -> None:
    light.tell("Emulation.setDeviceMetricsOverride", width=PHONE, height=844, deviceScaleFactor=1, mobile=True)
    for name in [FIRST, *PAGES]:
        open_page(light, name)
        assert light.complaints() == [], name
        assert light.requests() == [], name
        assert light.value("return document.documentElement.scrollWidth") <= PHONE, name
        assert light.value("return [...document.images].every(one => one.naturalWidth > 0)"), name


def test_the_top_leads_to_the_first_page(light: Look) -> None:
    open_page(light, "index")
    light.until("location.pathname.endsWith('/docs/index.html')")
    assert "Which thread" in light.one("article").text


def test_it_is_searched_without_a_network(light: Look) -> None:
    open_page(light, FIRST)
    box = light.one(".sidebar-search")
    box.send_keys("try_submit\n")
    light.until("document.querySelectorAll('#search-results li a').length > 0")
    found = light.value("return [...document.querySelectorAll('#search-results li a')].map(one => one.textContent)")
    assert "Use the pool" in found
    light.one("#search-results li a").click()
    light.until("document.querySelector('article h1') !== null")
    assert light.complaints() == []
    assert light.requests() == []


def test_it_is_dark_where_the_reader_is_and_a_click_changes_that(look: Look) -> None:
    look.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    open_page(look, "docs/architecture")
    red, green, blue = map(int, look.value(f"return {BACK}").removeprefix("rgb(").rstrip(")").split(","))
    assert max(red, green, blue) < 64
    look.click(".content-icon-container .theme-toggle")
    look.until(f"{BACK} === '{LIGHT}'")


def test_the_drawings_are_there_without_a_script(light: Look) -> None:
    light.tell("Emulation.setScriptExecutionDisabled", value=True)
    light.driver.get((SITE / "docs" / "architecture.html").as_uri())
    drawings = light.driver.find_elements("css selector", ".drawing svg")
    assert len(drawings) >= 3
    assert all(one.size["height"] > 100 for one in drawings)
    assert "SWITCHOVER_ACK" in light.one("article").text
