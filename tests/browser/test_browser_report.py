"""The report in a real browser: it loads alone, answers to the mouse, and can be read in the dark and on paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.browser.browser_look import Look  # selenium is there only where these tests run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

SWITCHOVER = "#part-0-switchover"
CHART = f"document.querySelector('{SWITCHOVER}')"
RANGE = f"{CHART}._fullLayout.xaxis.range"
BACK = "getComputedStyle(document.body).backgroundColor"
PAPER = f"{CHART}._fullLayout.paper_bgcolor"
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(13, 17, 23)"


def test_it_loads_without_a_word_and_asks_nobody_for_anything(look: Look, page: str) -> None:
    look.at(page)
    assert look.complaints() == []
    assert look.requests() == []
    assert look.value("return document.querySelectorAll('.chart .main-svg').length") >= 5
    assert look.one(".headline").text.endswith(".")


def test_the_answer_is_there_without_a_script(look: Look, page: str) -> None:
    look.tell("Emulation.setScriptExecutionDisabled", value=True)
    look.driver.get(page)
    assert "of downtime" in look.one(".headline").text
    assert len(look.driver.find_elements("css selector", ".models tbody tr")) == 2


def test_a_span_tells_of_itself_when_the_mouse_is_over_it(look: Look, page: str) -> None:
    look.at(page)
    bar = look.one(f"{SWITCHOVER} .barlayer .point path")
    look.value_of("arguments[0].scrollIntoView({block: 'center'})", bar)
    # The widest bar: a mouse can be over it for sure.
    look.value(
        f"const bars = [...document.querySelectorAll('{SWITCHOVER} .barlayer .point path')];"
        "bars.sort((a, b) => b.getBBox().width * b.getBBox().height - a.getBBox().width * a.getBBox().height);"
        "bars[0].id = 'widest'"
    )
    look.mouse().move_to_element(look.one("#widest")).perform()
    look.until(f"document.querySelector('{SWITCHOVER} .hoverlayer .hovertext') !== null")
    assert " ms" in look.value(f"return document.querySelector('{SWITCHOVER} .hoverlayer .hovertext').textContent")


def test_dragging_zooms_in_and_a_double_click_goes_back(look: Look, page: str) -> None:
    look.at(page)
    whole = look.value(f"return {RANGE}")
    plot = look.one(f"{SWITCHOVER} .nsewdrag")
    look.value_of("arguments[0].scrollIntoView({block: 'center'})", plot)
    look.mouse().move_to_element(plot).click_and_hold().move_by_offset(100, 0).move_by_offset(60, 0).release().perform()
    look.until(f"{RANGE}[1] - {RANGE}[0] < {(whole[1] - whole[0]) / 2}")
    look.mouse().move_to_element(plot).double_click().perform()
    look.until(f"Math.abs({RANGE}[1] - {whole[1]}) < 1e-6")


def test_lanes_are_devices_or_threads(look: Look, page: str) -> None:
    look.at(page)
    labels = f"{CHART}._fullLayout.yaxis.ticktext.join()"
    devices = look.value(f"return {labels}")
    assert "source: 0000:01:00.0/vfio" in devices
    look.click("[data-by=thread]")
    look.until(f"{labels} !== {devices!r}")
    assert "destination: channel-0" in look.value(f"return {labels}")
    assert look.one("[data-by=thread]").get_attribute("aria-pressed") == "true"


def test_the_critical_path_can_be_hidden_and_another_model_be_looked_at(look: Look, page: str) -> None:
    look.at(page)
    lines = f"{CHART}.data.filter(trace => trace.mode === 'lines').length"
    assert look.value(f"return {lines}") == 1
    look.click("#part-0-path")
    look.until(f"{lines} === 0")
    about = "document.querySelector('#part-0-about').textContent"
    before = look.value(f"return {about}")
    look.click("#part-0-model option:not(:checked)")
    look.until(f"{about} !== {before!r}")
    assert look.complaints() == []


def test_the_first_sentence_leads_to_where_the_time_line_shows_it(look: Look, page: str) -> None:
    look.at(page)
    whole = look.value(f"return {RANGE}")
    look.click("#part-0-path")
    look.click("#part-0-proof")
    look.until(f"{RANGE}[1] - {RANGE}[0] < {whole[1] - whole[0]}")
    assert look.value("return document.querySelector('#part-0-path').checked")
    assert look.value("return document.querySelector('#part-0-switchover').getBoundingClientRect().top") < 200
    assert look.complaints() == []


def test_it_is_dark_where_the_reader_is_and_a_click_changes_that(look: Look, page: str) -> None:
    look.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    look.at(page)
    assert look.value(f"return {BACK}") == DARK
    assert look.value(f"return {PAPER}") == "#0d1117"
    look.click("#theme")
    assert look.value(f"return {BACK}") == LIGHT
    assert look.value(f"return {PAPER}") == "#ffffff"
    look.click("#theme")
    assert look.value(f"return {BACK}") == DARK


def test_it_follows_the_reader_s_system(look: Look, page: str) -> None:
    look.at(page)
    assert look.value(f"return {BACK}") == LIGHT
    look.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    look.until(f"{PAPER} === '#0d1117'")


def test_on_paper_it_is_light_fits_and_has_no_buttons(look: Look, page: str) -> None:
    look.at(page)
    look.click("#theme")
    look.value(
        f"window.addEventListener('beforeprint', () => {{ window.onPaper =[{PAPER}, {CHART}._fullLayout.width]; }})"
    )
    pdf = look.printed()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) < 3_000_000
    paper, width = look.value("return window.onPaper")
    assert paper == "#ffffff"
    assert width <= 687  # A4 less its margins, in CSS pixels
    look.until(f"{PAPER} === '#0d1117'")  # and then as before
    look.tell("Emulation.setEmulatedMedia", media="print")
    assert not look.one("#theme").is_displayed()
    assert not look.one(".controls").is_displayed()
    assert look.value(f"return {BACK}") == LIGHT


def test_it_fits_a_narrow_screen(look: Look, page: str) -> None:
    look.tell("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    look.at(page)
    assert look.value("return document.documentElement.scrollWidth") <= 390


def test_names_are_never_markup(look: Look, nasty_page: str) -> None:
    look.at(nasty_page)
    look.click("[data-by=thread]")
    assert look.value("return window.hacked") is None
    assert look.value("return document.querySelectorAll('img').length") == 0
    assert "<img src=x" in look.one(".headline").text
    assert "<img src=x" in look.one(".models tbody").text
    assert "<img src=x" in look.one("#part-0-devices").text
    assert look.value(f"return {CHART}._fullLayout.yaxis.ticktext.join()").count("&lt;") > 0
    assert look.complaints() == []
    assert look.requests() == []
