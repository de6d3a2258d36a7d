"""A warning of a device's code comes out of the process of its side: on the terminal, in the JSON, on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from migpool.lab.run.result import LabResult
from tests.support.commandline import announced, migpool, scenario_file, started


@pytest.fixture
def warning(tmp_path: Path) -> tuple[str, dict[str, str]]:
    """A scenario whose device warns, and the environment in which it is installed."""
    path = announced(tmp_path, "warning", "[migpool.devices]\nwarning = tests.support.warning_device:devices\n")
    return scenario_file(tmp_path / "warning.toml", ['plugin = "warning"']), {"PYTHONPATH": path}


def test_what_a_side_warns_of_is_told_once(warning: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    scenario, environment = warning
    result, page = tmp_path / "result.json", tmp_path / "page.html"
    files = ("--json", str(result), "--report", str(page))
    ended = migpool("compare", scenario, "--models", "inline,pool:2", *files, extra=environment)
    assert ended.code == 0, ended.err
    for run in LabResult.model_validate_json(result.read_text("utf-8")).runs:
        old, *others = sorted(run.warnings, key=lambda text: "firmware" not in text)
        assert old.startswith("at the source, ")
        assert old.endswith("UserWarning: the firmware is old")
        assert sorted(others) == ["at both sides, the link trained", "at the destination, a page was slow"]
    shown = " ".join(ended.out.split())
    assert shown.count("the firmware is old") == shown.count("Warning at both sides, the link trained") == 1
    assert page.read_text("utf-8").count("<dt>Warning</dt><dd>at both sides, the link trained</dd>") == 1


def test_a_side_of_ones_own_says_it_on_stderr(warning: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    scenario, environment = warning
    result = tmp_path / "result.json"
    address = f"unix:{tmp_path / 'socket'}"
    with started("receive", scenario, "--listen", address, extra=environment) as receiver:
        receiver.complained_of("listening on")
        sent = migpool("send", scenario, "--to", address, "--json", str(result), extra=environment)
        received = receiver.wait()
    assert (sent.code, received.code) == (0, 0)
    (run,) = LabResult.model_validate_json(result.read_text("utf-8")).runs
    assert run.warnings[1] == "at the source, the link trained"
    assert sent.err.count("migpool: warning: the link trained") == 1
    assert received.err.count("migpool: warning: a page was slow") == 1
