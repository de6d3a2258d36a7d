"""``migpool scenario from`` and ``migpool simulate``: from two logs to what other threads would make of the devices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commandline import here
from tests.support.qemu_logs import real

LOGS = tuple(map(str, real("vfio-2-off")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "made.toml"
    ended = here("scenario", "from", *LOGS, "-o", str(path))
    assert (ended.code, ended.out, ended.err) == (0, "", f"{path} is written: migpool simulate {path}\n")
    return path


def test_what_is_written_is_a_scenario_that_can_be_made_and_run(made: Path, tmp_path: Path) -> None:
    assert here("scenario", "from", *LOGS).out == made.read_text()
    checked = here("scenario", "check", str(made))
    assert (checked.code, checked.err) == (0, "")
    assert "3 of them iterable; 4 channels" in checked.out
    ended = here("run", str(made), "--model", "per-device", "--json", str(tmp_path / "result.json"))
    assert ended.code == 0, ended.err
    (run,) = json.loads((tmp_path / "result.json").read_text())["runs"]
    assert run["verified"] is True


def test_every_model_is_simulated_and_qemus_own_among_them(made: Path) -> None:
    text, as_json = here("simulate", str(made)), here("simulate", str(made), "--json")
    assert (text.code, as_json.code) == (0, 0), text.err + as_json.err
    form = json.loads(as_json.out)
    found = {one["model"]: one["downtime_ms"] for one in form["models"]}
    assert list(found) == ["qemu", "qemu:transfer", "inline", "pool", "per-device"]
    assert found["qemu"] > found["qemu:transfer"] > found["inline"] >= found["per-device"]
    for model in found:
        assert f"\n{model} " in text.out
    assert "200 ms as measured" in text.out
    assert "were all that devices take processor time" in text.out


def test_channels_and_models_can_be_others(made: Path) -> None:
    few, many = (
        json.loads(here("simulate", str(made), "--models", "qemu", "--channels", count, "--json").out)
        for count in ("1", "16")
    )
    assert [few["channels"], many["channels"]] == [1, 16]
    assert many["models"][0]["downtime_ms"] > few["models"][0]["downtime_ms"] + 20


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("simulate", "made", "--models", "pool:0"), "pool:0"),
        (("simulate", "made", "--models", "nobody"), "there is no threading model 'nobody'"),
        (("simulate", "nowhere.toml"), "there is no such file"),
        (("scenario", "from", LOGS[0]), "give both sides' logs"),
        (("scenario", "from", *LOGS, "-o", "/nowhere/at/all.toml"), "cannot be written"),
        (("scenario", "from", "/nowhere.log", "/nowhere.log"), "/nowhere.log cannot be read"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(made: Path, command: tuple[str, ...], said: str) -> None:
    ended = here(*(str(made) if one == "made" else one for one in command))
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1


def test_the_default_machine_is_simulated_too() -> None:
    """Its four devices read 64 MiB at 400 MiB/s and load their configs, 70 ms each, under one lock."""
    ended = here("simulate", "default", "--models", "inline,pool", "--json")
    found = json.loads(ended.out)
    inline, pool = (one["downtime_ms"] for one in found["models"])
    assert 160 + 4 * 70 < pool < inline


def test_a_scenario_in_which_nothing_has_a_time_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.toml").write_text('name = "none"\n[[devices]]\nplugin = "guest"\n')
    ended = here("simulate", str(tmp_path / "none.toml"))
    assert (ended.code, ended.out) == (2, "")
    assert "cannot be simulated" in ended.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ('name = ""', "options.name"),
        ("read = 0.1", "use it with a size"),
        ('size = "65GiB"', "at most"),
        ('config_size = "17MiB"', "at most"),
        ("instance = -1", "a whole number from 0"),
    ],
)
def test_a_measured_device_that_cannot_be_is_refused(tmp_path: Path, options: str, said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(f'name = "bad"\n[[devices]]\nplugin = "measured"\noptions = {{{options}}}\n')
    ended = here("scenario", "check", str(path))
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1
