"""A page with real runs on it, and a browser to look at it with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from migpool.lab.comparison import Lab, PlainProgress, plan
from migpool.lab.report.page.document import document
from migpool.lab.report.table import console_for
from migpool.lab.run.result import LabResult
from migpool.scenario.schema import load_scenario

if TYPE_CHECKING:
    from tests.browser.browser_look import Look

MODELS = ["pool:1", "per-device"]
NASTY = "<img src=x onerror=\"window.hacked='yes'\"></script><b>&"
"""What a scenario or a plug-in may call its things."""


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> LabResult:
    """A result of real migrations."""
    lab = Lab(load_scenario("small"), "small")
    with (tmp_path_factory.mktemp("runs") / "progress").open("w") as stream:
        planned = plan(MODELS, 1, 1)
        lab.make(planned, PlainProgress(console_for(stream), len(planned)), lambda: False)
    return lab.result()


@pytest.fixture
def page(results: LabResult, tmp_path: Path) -> str:
    """The address of a report of them."""
    return written(results, tmp_path / "report.html")


@pytest.fixture
def nasty_page(results: LabResult, tmp_path: Path) -> str:
    """The same, with names that are markup wherever a name can be."""
    text = results.to_json()
    names = {device.name for run in results.runs for device in run.devices}
    result = LabResult.model_validate_json(text)
    runs = []
    for run in result.runs:
        assert run.analysis is not None
        devices = [replace(device, name=NASTY + device.name, note=NASTY) for device in run.devices]
        path = [
            link.model_copy(update={"device": NASTY + link.device if link.device in names else "", "thread": NASTY})
            for link in run.analysis.path
        ]
        trace = run.analysis.trace
        source = trace.source.model_copy(update={"threads": [NASTY + name for name in trace.source.threads]})
        resources = [one.model_copy(update={"says": NASTY}) for one in run.analysis.resources]
        analysis = run.analysis.model_copy(
            update={
                "path": path,
                "trace": trace.model_copy(update={"source": source}),
                "why": NASTY,
                "resources": resources,
            }
        )
        changes = {"devices": devices, "analysis": analysis, "error": NASTY, "model": NASTY + run.model}
        runs.append(run.model_copy(update=changes))
    changed = result.model_copy(update={"runs": runs, "scenario": NASTY})
    return written(changed, tmp_path / "nasty.html")


def written(result: LabResult, path: Path) -> str:
    """Write a report; its address."""
    path.write_text(document([result], f"migpool: {result.scenario}"), "utf-8")
    return path.as_uri()


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Look]:
    """The browser."""
    # Selenium is there only where these tests run.
    from tests.browser.browser_look import Look

    driver, browser = shutil.which("chromedriver"), shutil.which("chromium")
    assert driver, "there is no chromedriver here: make browser installs it"
    assert browser, "there is no chromium here: make browser installs it"
    looking = Look(driver, browser, tmp_path)
    try:
        yield looking
    finally:
        looking.close()
