"""Chromium without a screen, and what the tests want to know of a page in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

LIMIT = 60
AXE = resources.files("axe_core_python") / "axe.min.js"
ALLOWED = ("file:", "data:", "blob:", "chrome:", "about:")


class Look:
    """A browser with one page."""

    def __init__(self, driver: str, browser: str, where: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for argument in (
            "--headless=new",
            "--no-sandbox",  # a container's root may not make one
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={where / 'profile'}",
            "--window-size=1280,900",
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.driver.set_page_load_timeout(2 * LIMIT)
        self.driver.set_script_timeout(4 * LIMIT)  # axe-core looks at every bar of a time line

    def at(self, address: str) -> None:
        """Open a page and wait until its script has drawn it."""
        self.driver.get(address)
        self.until("document.documentElement.dataset.ready === 'yes'")

    def until(self, condition: str) -> None:
        """Wait until a condition of the page's script is true."""
        WebDriverWait(self.driver, LIMIT).until(lambda _: self.value(f"return {condition}"), condition)

    def value(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        element = self.one(selector)
        self.value_of("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def value_of(self, script: str, element: WebElement) -> Any:
        return self.driver.execute_script(script, element)

    def mouse(self) -> ActionChains:
        return ActionChains(self.driver, duration=50)

    def complaints(self) -> list[str]:
        """What the console says."""
        return [entry["message"] for entry in self._log("browser")]

    def _log(self, name: str) -> list[dict[str, Any]]:
        driver: Any = self.driver  # of this call the library says no types
        entries: list[dict[str, Any]] = driver.get_log(name)
        return entries

    def requests(self) -> list[str]:
        """Every address that was asked for, but for the page's own and what is within it."""
        found = []
        for entry in self._log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return [address for address in found if not address.startswith(ALLOWED)]

    def tell(self, command: str, **what: object) -> Mapping[str, Any]:
        """A command of the browser's own protocol."""
        answer: Mapping[str, Any] = self.driver.execute_cdp_cmd(command, what)
        return answer

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.tell("Page.printToPDF", preferCSSPageSize=True)["data"])

    def faults(self, *rules: str) -> list[str]:
        """What axe-core finds that keeps people off the page: serious and critical faults, and where.

        Arguments:
            rules: the only ones to look at; all, if none is named.
        """
        if self.value("return typeof axe === 'undefined'"):
            self.driver.execute_script(AXE.read_text("utf-8"))
        options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
        said: list[list[str]] = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run(arguments[0]).then(found => done(found.violations.map("
            "one => [one.impact, one.id, one.nodes[0].html])))",
            options,
        )
        return [f"{rule}: {html}" for impact, rule, html in said if impact in ("serious", "critical")]

    def close(self) -> None:
        self.driver.quit()
