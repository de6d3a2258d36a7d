"""``migpool plugins``, ``scenario``, ``--version``, ``--help`` and completion."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.commandline import announced, here, migpool, scenario_file

ENTRY_POINTS = """\
[migpool.devices]
broken-import = broken_plugin_nowhere:devices
broken-kind = broken_plugin:number
[migpool.schedulers]
broken-class = broken_plugin:NoScheduler
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A package announces plug-ins that do not work, here and for processes with this environment."""
    (tmp_path / "broken_plugin.py").write_text("number = 1\nclass NoScheduler: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_plugin", raising=False)
    return {"PYTHONPATH": announced(tmp_path, "broken-plugin", ENTRY_POINTS)}


@pytest.mark.usefixtures("broken")
def test_a_broken_plugin_is_named_with_its_error_and_the_rest_is_listed() -> None:
    ended = here("plugins", "--json")
    assert ended.code == 0
    found = {plugin["name"]: plugin for plugin in json.loads(ended.out)}
    assert "No module named 'broken_plugin_nowhere'" in found["broken-import"]["error"]
    assert "cannot be called" in found["broken-kind"]["error"]
    assert "no subclass of migpool.schedulers.base.Scheduler" in found["broken-class"]["error"]
    assert found["broken-class"]["distribution"] == "broken-plugin"
    assert found["broken-class"]["version"] == "1.0"
    for name in ("vfio", "vmsd", "vcpu", "pool", "per-device", "inline", "elastic", "receiver"):
        assert found[name]["error"] == ""
        assert found[name]["summary"]
        assert found[name]["version"] == version("migpool")


def test_the_table_of_plugins_shows_what_is_broken(broken: dict[str, str]) -> None:
    ended = migpool("plugins", extra=broken)
    assert ended.code == 0
    assert ended.out.count("BROKEN") == 3
    assert "vfio" in ended.out


def test_a_broken_plugin_does_not_keep_others_from_migrating(broken: dict[str, str]) -> None:
    assert here("run", "small", extra=broken).code == 0


def test_who_uses_a_broken_plugin_reads_its_error(broken: dict[str, str], tmp_path: Path) -> None:
    ended = here("run", "small", "-m", "broken-class")
    assert ended.code == 2
    assert "no subclass of migpool.schedulers.base.Scheduler" in ended.err
    scenario = scenario_file(tmp_path / "broken.toml", ['plugin = "broken-import"'])
    ended = here("run", scenario, extra=broken)
    assert ended.code == 1
    assert "devices[0].plugin" in ended.err
    assert "broken_plugin_nowhere" in ended.err


def test_built_in_scenarios_are_listed_shown_and_right() -> None:
    listed = here("scenario", "list")
    assert listed.code == 0
    for name in ("default", "small", "many"):
        assert name in listed.out
    shown = here("scenario", "show", "small")
    assert shown.out.startswith('name = "small"')
    assert migpool("scenario", "check", "small").out.startswith("small: right: machine pc-q35-10.0 with 7 devices")


def test_a_scenario_that_was_shown_can_be_changed_and_run(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(here("scenario", "show", "small").out.replace('transport = "unix"', 'transport = "tcp"'))
    assert here("run", str(mine)).code == 0


def test_a_wrong_option_of_a_device_is_found_by_check_with_its_key(tmp_path: Path) -> None:
    devices = ['plugin = "vfio"\noptions = {profile = "tiny"}', 'plugin = "vfio"\noptions = {size = "64 elephants"}']
    path = scenario_file(tmp_path / "wrong.toml", devices)
    for command in ("check", "run"):
        ended = here(*(("scenario", "check") if command == "check" else ("run",)), path)
        assert ended.code == 2
        assert ended.err.startswith(f"migpool: {path}: devices[1].options.size: ")
        assert "64MiB" in ended.err


def test_version_and_help() -> None:
    assert here("--version").out.strip() == f"migpool {version('migpool')}"
    shown = here("--help")
    assert shown.code == 0
    for command in ("run", "compare", "send", "receive", "plugins", "scenario"):
        assert command in shown.out
    assert "migpool compare" in shown.out
    assert here().out == shown.out


def test_help_tells_of_every_command_and_imports_none(tmp_path: Path) -> None:
    path = announced(tmp_path, "more", "[migpool.commands]\nmore = more.commands:app\nbroken = nothing.there:app\n")
    package = tmp_path / "more"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('it was imported')\n")
    (package / "commands.py").write_text('"""Do more than that."""\n')
    code = (
        "import sys; from migpool.cli.app import app; app(['--help'], standalone_mode=False, prog_name='migpool');"
        "print([name for name in ('pydantic', 'structlog', 'migpool_plugins', 'more') if name in sys.modules],"
        "[name for name in sys.modules if name.startswith('migpool.cli.commands')])"
    )
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[] []"
    words = " ".join(re.sub("[│─╭╮╰╯]", " ", done.stdout).split())
    for command, about in (
        ("compare", "Migrate a machine under one threading model after the other"),
        ("vfio", "VFIO devices: which of this host's can migrate"),
        ("lab", "Experiments: claims about threading models"),
        ("more", "Do more than that."),
    ):
        assert f"{command} {about}" in words
    assert "broken" in words
    ended = migpool("broken", extra={"PYTHONPATH": path})
    assert ended.code == 1
    assert ended.err.startswith("migpool: the command broken (nothing.there:app) cannot be imported: ")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("migpool run sm", "small"),
        ("migpool run small --model pool+re", "pool+receiver"),
        ("migpool compare small --models pool,per", "pool,per-device"),
        ("migpool scenario show de", "default"),
        ("migpool sen", "send"),
        ("migpool plugins vf", "vfio"),
        ("migpool conformance --model one-th", "one-thread"),
        ("migpool lab run C1", "C12"),
        ("migpool vfio serve ti", "tiny"),
        ("migpool run mine.to", "mine.toml"),
    ],
)
def test_the_shell_completes_scenarios_models_and_commands(
    words: str, offered: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").touch()
    assert offered in completed(words, monkeypatch)


@pytest.mark.parametrize(
    "words", ["report re", "run small --json re", "inspect re", "send re", "vmsd diff re", "run /tmp/x", "replay re"]
)
def test_files_are_left_to_the_shell(words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It completes them itself where nothing is offered (``complete -o default``)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result.json").touch()
    assert completed(f"migpool {words}", monkeypatch) == []
    monkeypatch.setenv("_MIGPOOL_COMPLETE", "source_bash")
    assert "complete -o default" in here().out


def completed(words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bash is offered for the last of some words."""
    monkeypatch.setenv("_MIGPOOL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    return here().out.split()


@pytest.mark.parametrize("words", [["conformance"], ["snapshot", "save"]])
def test_help_fits_any_width_since_a_paragraph_is_one_line(words: list[str]) -> None:
    wide = here(*words, "--help", extra={"COLUMNS": "1000"}).out
    about = wide.partition("Usage: ")[2].partition("\u256d")[0]
    paragraphs = [line.strip() for line in about.splitlines() if line.strip()]
    assert max(map(len, paragraphs)) > 90
    narrow = here(*words, "--help", extra={"COLUMNS": "60"}).out
    assert max(map(len, narrow.splitlines())) <= 60
