"""``migpool lab``: the claims that come with migpool, real quick experiments, and what it says of wrong input."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from migpool.errors import ScenarioError
from migpool.experiments.form import load_experiment, names, parse_experiment
from migpool.experiments.page import index, page
from migpool.experiments.plot import plot
from migpool.experiments.runner import run_experiment
from migpool.scenario.build import build_machine
from migpool.scenario.model_syntax import parse_model
from migpool.scenario.schema import DeviceEntry
from tests.support import LONG
from tests.support.commandline import here, migpool, started
from tests.support.made_experiments import CANCELS, FILE, Made, experiment, never, silent

AGAIN = {5: ["C5-links"], 7: ["C7-links"], 10: ["C10-links", "C10-live"], 16: ["C16-links"]}
"""Claims that are looked at once more, where something else may decide."""
CLAIMS = [name for number in range(1, 19) for name in (f"C{number}", *AGAIN.get(number, []))]


def test_there_is_an_experiment_for_each_claim_in_order() -> None:
    assert names() == CLAIMS


@pytest.mark.parametrize("name", CLAIMS)
def test_every_experiment_is_right(name: str) -> None:
    found = load_experiment(name)
    assert found.id == name
    assert all((found.claim, found.by, found.method.strip()))
    if found.cancels is not None:
        assert all(parse_model(model) for model in found.cancels.models)
        return
    deciding = [one for one in found.comparisons if one.decides]
    assert deciding
    used = {side for one in found.comparisons for side in (one.of, one.to)}
    # Those are compared with whatever is the best: see growing.py.
    used |= {variant.name for variant in found.variants if re.match("elastic|blocking-aware", variant.model)}
    assert used == {variant.name for variant in found.variants}, (
        "a variant that nothing is compared with is run in vain"
    )
    assert len(deciding) == 1 or found.depends or name == "C8", "say what it depends on if they disagree"


def one_of_a_kind(entry: DeviceEntry) -> DeviceEntry:
    copies = {"copies": 1} if "copies" in entry.options else {}
    return entry.model_copy(update={"count": 1, "options": {**entry.options, **copies}})


@pytest.mark.parametrize("name", CLAIMS)
def test_the_machines_of_every_experiment_can_be_made(name: str) -> None:
    found = load_experiment(name)
    if found.qemu is not None:
        return  # a real QEMU's: tests/qemu
    variants = [variant for variant in found.variants if variant.run]
    scenarios = [found.scenario_of(variant, name) for variant in variants] or [found.scenario_of(None, name)]
    made: list[object] = []
    for scenario in scenarios:
        if not LONG:  # one of each kind
            scenario = scenario.model_copy(update={"devices": [*map(one_of_a_kind, scenario.devices)]})
        if scenario.devices not in made:
            made.append(scenario.devices)
            machine = build_machine(scenario, "source", scenario.seed)
            assert len(machine) >= 1
            machine.close()


def test_all_of_them_take_less_than_an_hour_and_a_quarter_and_a_quick_look_ten_minutes() -> None:
    efforts = [load_experiment(name).effort for name in CLAIMS]
    assert sum(effort.seconds for effort in efforts) <= 75 * 60
    assert sum(effort.quick for effort in efforts) <= 10 * 60


def test_the_list_has_every_claim() -> None:
    ended = here("lab", "list")
    assert ended.code == 0
    assert [word for line in ended.out.splitlines() if (word := line[:10].strip()).startswith("C")] == CLAIMS
    as_json = json.loads(here("lab", "list", "--json").out)
    assert [one["id"] for one in as_json] == CLAIMS
    assert as_json[CLAIMS.index("C11")]["claim"].startswith("The memory for buffers that arrive out of order")


def test_an_experiment_is_shown_as_it_is_written() -> None:
    shown = here("lab", "show", "c9")
    assert shown.code == 0
    assert parse_experiment(shown.out, "shown").id == "C9"


def test_an_experiment_of_ones_own_runs_from_end_to_end(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(FILE)
    results = tmp_path / "new" / "results"
    ended = migpool("lab", "run", str(own), "--quick", "--results", str(results), "--note", "Shared by two.")
    assert ended.code == 0, ended.err
    assert "T1, round 1: slow against fast" in ended.err
    found = json.loads((results / "T1.json").read_text())
    assert found["verdict"] in ("supported", "refuted", "depends")
    assert found["rounds"] >= 1
    assert found["note"] == "Shared by two."
    assert len(found["comparisons"][0]["ratios"]) == found["rounds"]
    assert found["variants"][1]["set"] == {"devices.0.count": 1}
    assert all(time > 0 for variant in found["variants"] for time in variant["downtime_ms"])
    assert found["preliminary"] == (found["rounds"] < 6)
    assert f"**{found['verdict'].capitalize()}**" in (results / "T1.md").read_text()
    assert "[T1](T1.md)" in (results / "README.md").read_text()
    ET.fromstring((results / "T1.svg").read_text())
    # Another call adds to what is there; a file that is no finding is left alone.
    own.write_text(FILE.replace('"T1"', '"A10"'))
    (results / "published.json").write_text("{}")
    assert here("lab", "run", str(own), "--quick", "--results", str(results)).code == 0
    listed = [line[3:].partition("]")[0] for line in (results / "README.md").read_text().splitlines() if "| [" in line]
    assert listed == ["A10", "T1"]


def test_ctrl_c_ends_it_in_order_and_leaves_no_process(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(FILE.replace("precision = 0.05", "precision = 0.000001"))
    with started("lab", "run", str(own)) as command:
        command.complained_of("T1, round 1:")
        command.interrupt()
        ended = command.wait()
        assert command.all_gone()
    assert ended.code == 130
    assert "migpool: cancelled in T1; 0 were complete" in ended.err
    assert ended.out == ""


def test_cancels_are_counted_under_every_model(tmp_path: Path) -> None:
    own = tmp_path / "cancels.toml"
    own.write_text(CANCELS)
    ended = here("lab", "run", str(own), "--quick", "--results", str(tmp_path))
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "T2.json").read_text())
    assert (found["verdict"], found["ended"]) == ("supported", "counted")
    left = [one for one in found["counts"] if "left a thread" in one["what"]]
    assert [one["model"] for one in left] == ["inline", "per-device:switchover"]
    assert all(one["total"] >= 1 and one["wrong"] == 0 for one in left)
    assert all(one["wrong"] == 0 for one in found["counts"])
    ET.fromstring((tmp_path / "T2.svg").read_text())


def test_pages_and_pictures_escape_what_a_file_says() -> None:
    odd = FILE.replace('"slow"', '"<slow> & | co"').replace("slow is slower", "a < b | c")
    found = run_experiment(
        experiment(odd), quick=False, stop=never, say=silent, make=Made({"inline": [20.0], "per-device": [10.0]})
    )
    picture = ET.fromstring(plot(found))
    texts = "".join(picture.itertext())
    assert "<slow> & | co" in texts
    told = page(found, "T1.svg")
    assert "<slow> & \\| co" in told
    assert all(row.count(" | ") == 8 for row in told.splitlines() if row.startswith("| slow against fast"))
    assert "a < b \\| c" in index([found])


def test_a_run_that_fails_makes_the_exit_code_1(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        FILE.replace('{profile = "tiny"}', '{profile = "tiny", fault = {side = "source", at = 0, kind = "error"}}')
    )
    ended = migpool("lab", "run", str(own), "--quick")
    assert ended.code == 1
    assert "migpool: T1: slow, round 1: source: " in ended.err
    assert "Traceback" not in ended.err


def test_an_experiment_that_is_not_there_is_named_with_those_that_are() -> None:
    ended = here("lab", "run", "C99")
    assert ended.code == 2
    assert ended.err == (
        f"migpool: there is no experiment 'C99', and no such file; there are {', '.join(CLAIMS)}, and all\n"
    )


def test_naming_one_twice_is_refused() -> None:
    ended = here("lab", "run", "all", "C3")
    assert (ended.code, ended.err) == (2, "migpool: C3 is named twice: name each experiment once\n")


def test_a_directory_that_cannot_be_made_is_found_out_before_the_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = here("lab", "run", "C1", "--results", str(tmp_path / "file" / "below"))
    assert ended.code == 2
    assert ended.err == f"migpool: {tmp_path}/file/below cannot be made: Not a directory: name another directory\n"


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('of = "slow"', 'of = "slower"', "there is no variant 'slower'; there are slow, fast"),
        ("least = 1.2", "", "neither least nor most is there"),
        ("least = 1.2", "least = 1.2\nmost = 1.1", "least must be less"),
        ('model = "inline"', 'model = "none"', "variant 'slow': model 'none'"),
        ('"devices.0.count" = 1', '"devices.3.count" = 1', "set 'devices.3.count': there is no '3' in the scenario"),
        ('"devices.0.count" = 1', '"devices.0.count" = 0', "made up: scenario of variant 'fast': devices"),
        ('name = "fast"', 'name = "slow"', "two variants are named 'slow'"),
        ('by = "a test"', 'by = "a test"\nbye = 1', "bye: there is no such key"),
        ("[effort]", '[cancels]\nmodels = ["pool"]\n\n[effort]', "cancels excludes variants"),
        ('id = "T1"', "id = T1", "this is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_the_remedy(old: str, new: str, error: str) -> None:
    assert old in FILE
    with pytest.raises(ScenarioError) as caught:
        parse_experiment(FILE.replace(old, new, 1), "made up")
    assert error in str(caught.value)
    assert str(caught.value).startswith("made up")
