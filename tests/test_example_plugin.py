"""A third party's package beside migpool: its device migrates, its threading model runs, it uses nothing private."""

from __future__ import annotations

import ast
import json
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from tests.support.commandline import RING_SCENARIO, here

SOURCES = sorted((Path(__file__).parent / "example-plugin" / "src").rglob("*.py"))
PUBLIC = {"migpool.device", "migpool.schedulers"}


def test_it_is_installed() -> None:
    assert version("migpool-ringnic") == "1.2.3"
    assert "ringnic" in entry_points(group="migpool.devices").names


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_it_imports_nothing_but_the_public_interfaces(source: Path) -> None:
    imported = {
        node.module
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("migpool")
    }
    assert imported
    assert imported <= PUBLIC


def test_it_is_listed_with_its_version_and_a_line() -> None:
    listed = here("plugins")
    assert listed.code == 0
    for words in ("ringnic", "1.2.3", "A network card", "one-thread", "All jobs on one thread"):
        assert words in listed.out


@pytest.mark.parametrize("model", ["one-thread", "per-device+one-thread", "pool:1+receiver"])
def test_it_migrates_and_is_verified(tmp_path: Path, model: str) -> None:
    scenario, result = tmp_path / "mine.toml", tmp_path / "result.json"
    scenario.write_text(RING_SCENARIO)
    run = here("run", str(scenario), "--model", model, "--json", str(result))
    assert run.code == 0, run.err
    (made,) = json.loads(result.read_text())["runs"]
    assert made["verified"]
    assert [(device["name"], device["verified"]) for device in made["devices"]] == [
        ("ringnic", True),
        ("ringnic#1", True),
        ("ringnic#2", True),
    ]
    assert made["memory"]["high_water_bytes"] <= 256 * 1024


def test_its_own_words_name_what_is_wrong(tmp_path: Path) -> None:
    scenario = tmp_path / "mine.toml"
    scenario.write_text(RING_SCENARIO.replace("300000", '"much"'))
    run = here("run", str(scenario))
    assert run.code != 0
    assert "ringnic option ring is 'much': use a whole number of bytes" in run.err
    assert "Traceback" not in run.err
