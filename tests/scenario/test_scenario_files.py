"""Scenario files: what they give, and what is said when they are wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from migpool.errors import ScenarioError
from migpool.scenario.messages import parse_toml
from migpool.scenario.model_syntax import parse_model
from migpool.scenario.schema import builtin_names, load_scenario, parse_scenario, scenario_text

DEVICE = '[[devices]]\nplugin = "vfio"\n'
GOOD = f'name = "x"\n{DEVICE}'


def complaint(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(str(path))
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        (f'nam = "x"\n{DEVICE}', "name", "is missing: add it"),
        (f"{GOOD}[chanels]\ncount = 1", "chanels", "did you mean channels?"),
        (f"{GOOD}[channels]\ncoun = 1", "channels.coun", "did you mean count?"),
        (f'{GOOD}[memory]\nbudget = "64 elephants"', "memory.budget", 'or text such as "64MiB"'),
        (f"{GOOD}[memory]\nbudget = -1", "memory.budget", 'or text such as "64MiB"'),
        (f'{GOOD}[memory]\nbudget = "1.3B"', "memory.budget", "no whole number of bytes"),
        (f"{GOOD}[memory]\nbudget = 1.5", "memory.budget", "write a whole number of bytes"),
        (f"{GOOD}[memory]\nbudget = 0", "memory.budget", "greater than or equal to 1"),
        (f'{GOOD}[memory]\nchunk = "3000B"', "memory.chunk", "4096"),
        (f'{GOOD}[channels]\ncount = "4"', "channels.count", "write a whole number"),
        (f"{GOOD}[channels]\ncount = true", "channels.count", "write a whole number"),
        (f"{GOOD}[channels]\ncount = 256", "channels.count", "less than or equal to 255"),
        (f'{GOOD}[channels]\ntransport = "rdma"', "channels.transport", '"tcp" or "unix"'),
        (f'{GOOD}[limits]\npeer = "30"', "limits.peer", "write a number"),
        (f"{GOOD}[limits]\npeer = 0", "limits.peer", "greater than 0"),
        (f"{GOOD}[limits]\npeer = inf", "limits.peer", "must be"),
        (f'{GOOD}[link]\nrate = "fast"', "link.rate", 'or text such as "64MiB"'),
        (f'{GOOD}[link]\nrate = "40Gbit/s"', "link", "leave it out"),
        (f'{GOOD}[link]\ndelay = "1ms"\njitter = 0.002', "link", "set delay too"),
        (f'{GOOD}[link]\ndelay = "soon"', "link.delay", 'or text such as "5ms"'),
        (f"{GOOD}[link]\nloss = 1", "link.loss", "less than 1"),
        (f'{GOOD}[link]\nmtu = 9000\n[channels]\ntransport = "unix"', "the file", "link.impose = false"),
        (f"{GOOD}[migration]\nsplice = 1", "migration.splice", "write true or false"),
        (f'{GOOD}[migration]\nconfig_load = "last"', "migration.config_load", '"as-loaded" or "after-iterables"'),
        (f'{GOOD}[compare]\nmodels = "pool"', "compare.models", "write a list"),
        (f'{GOOD}[compare]\nmodels = ["pool", "pool"]', "compare.models", "name each model once"),
        (f'{GOOD}[compare]\nmodels = ["pool", 1]', "compare.models[1]", "write text in quotes"),
        (f'{GOOD}count = "2"', "devices[0].count", "write a whole number"),
        (f"{GOOD}options = 5", "devices[0].options", "write a table"),
        (f"{GOOD}options = {{at = 2024-01-01}}", "devices[0].options.at", "write text, a number, true, false"),
        (f"{GOOD}{DEVICE}option = {{}}", "devices[1].option", "did you mean options?"),
        (f"{GOOD}[[devices]]\ncount = 2", "devices[1].plugin", 'plugin = "vfio"'),
        ('name = "x"\ndevices = []', "devices", "add at least one"),
        (f'name = "x"\nseed = -1\n{DEVICE}', "seed", "greater than or equal to 0"),
        (f'{GOOD}[machine]\nname = "a machine"', "machine.name", "pattern"),
    ],
)
def test_a_wrong_key_is_named_with_its_remedy(text: str, key: str, remedy: str, tmp_path: Path) -> None:
    lines = complaint(tmp_path, text)
    named = [line for line in lines if line.startswith(f"{key}: ")]
    assert len(named) == 1, lines
    assert remedy in named[0]


def test_every_wrong_key_is_told_at_once(tmp_path: Path) -> None:
    lines = complaint(tmp_path, f'{GOOD}[channels]\ncount = "4"\ntransport = "x"\n[limits]\npeers = 1')
    assert [line.split(":")[0] for line in lines] == ["channels.count", "channels.transport", "limits.peers"]


def test_what_is_no_toml_is_said_with_the_line(tmp_path: Path) -> None:
    (line,) = complaint(tmp_path, 'name = "x"\n[[devices]\n')
    assert line.startswith("this is not TOML: ")
    assert "line 2" in line


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="there is no such file, and no built-in scenario"):
        load_scenario(str(tmp_path / "absent.toml"))
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(str(tmp_path))
    path = tmp_path / "latin.toml"
    path.write_bytes(b'name = "\xe9"')
    with pytest.raises(ScenarioError, match="byte 8 is not UTF-8"):
        load_scenario(str(path))


def test_sizes_and_rates_are_numbers_or_text(tmp_path: Path) -> None:
    path = tmp_path / "right.toml"
    path.write_text(
        f'{GOOD}[memory]\nbudget = "1.5MiB"\nchunk = 65536\n[link]\nrate = "1.25GiB/s"\n[limits]\npeer = 5\n'
    )
    found = load_scenario(str(path))
    assert (found.memory.budget, found.memory.chunk) == (1536 * 1024, 65536)
    assert found.link.rate == 1280 << 20
    assert found.limits.peer == 5.0


def test_the_settings_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "right.toml"
    path.write_text(
        f'{GOOD}[channels]\ncount = 7\ncongestion = "reno"\n[memory]\nbudget = "2MiB"\nchunk = "64KiB"\n'
        "[limits]\npeer = 1.5\nconnect = 2\naccept = 3\n"
        "[migration]\ndowntime_limit = 0.1\nrounds = 4\nsplice = true\ncredits = false\n"
        'config_load = "after-iterables"\n'
    )
    settings = load_scenario(str(path)).settings()
    assert (settings.channels, settings.congestion) == (7, "reno")
    assert (settings.budget, settings.chunk) == (2 << 20, 64 << 10)
    assert (settings.peer_limit, settings.connect_limit, settings.accept_limit) == (1.5, 2.0, 3.0)
    assert (settings.downtime_limit, settings.rounds, settings.splice, settings.credits) == (0.1, 4, True, False)
    assert settings.config_load == "after-iterables"


def test_a_scenario_crosses_to_another_process_as_it_is() -> None:
    for name in builtin_names():
        found = load_scenario(name)
        assert parse_scenario(found.model_dump(mode="json"), "again") == found


@pytest.mark.parametrize("name", builtin_names())
def test_the_built_in_scenarios_are_right(name: str) -> None:
    found = load_scenario(name)
    assert found.name == name
    assert found.description
    for model in found.compare.models:
        parse_model(model)
    assert scenario_text(name).startswith(f'name = "{name}"')


def test_the_default_scenario_has_less_memory_than_one_device_has_state() -> None:
    found = load_scenario("default")
    assert [(entry.plugin, entry.count) for entry in found.devices] == [("vcpu", 2), ("vmsd", 1), ("vfio", 4)]
    assert found.memory.budget < 64 << 20
    assert found.channels.count == 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = " + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        (".".join(["a"] * 200_000) + " = 1", "a key of more than 100 parts (at line 1)"),
        ("x = 1\n[" + " . ".join(['"a"'] * 5000) + "]", "a key of more than 100 parts (at line 2)"),
        ("x" * 2_000_000, "longer than 1.0 MiB"),
    ],
    ids=["deep", "dots", "table", "long"],
)
def test_what_would_take_an_age_to_read_is_refused_at_once(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=re.escape(why)):
        load_scenario(str(path))


def test_numbers_and_texts_with_many_dots_are_none_of_that() -> None:
    numbers = ", ".join(["1.5"] * 500)
    assert parse_toml(f"a = [{numbers}]\nb = {'.' * 500!r}\nc = {'x' * 300_000!r}")["a"] == [1.5] * 500
