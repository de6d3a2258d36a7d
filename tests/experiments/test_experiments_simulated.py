"""Variants in virtual time, beside those that are run, and alone."""

from __future__ import annotations

import sys

import pytest

from migpool.errors import ScenarioError
from migpool.experiments.form import Experiment, load_experiment, parse_experiment
from migpool.experiments.page import page
from migpool.experiments.runner import run_experiment
from migpool.experiments.simulated import in_virtual_time
from migpool.units import MIB
from tests.support.made_experiments import FILE, Made, experiment, never, silent

HOSTS = """
[simulation]
channel_rate = "1GiB/s"
link = {rate = "1GiB/s"}
"""
SLOW = "simulated = {savers = 1, devices = [{count = 2, size = '2MiB', read = 0.2}]}\n"
FAST = "simulated = {devices = [{size = '2MiB', read = 0.1}]}\n"


def both(*, run: bool = True) -> str:
    runs = "" if run else "run = false\n"
    slow = FILE.replace('name = "slow"\n', f'name = "slow"\n{runs}{SLOW}', 1)
    return slow.replace('name = "fast"\n', f'name = "fast"\n{runs}{FAST}', 1) + HOSTS


def test_a_world_is_what_the_file_says() -> None:
    found = parse_experiment(both(), "made up")
    slow, fast = (found.world_of(variant, "made up") for variant in found.variants)
    assert slow is not None
    assert fast is not None
    assert (len(slow.devices), slow.devices[0].size, slow.savers) == (2, 2 * MIB, 1)
    assert (slow.channel_rate, slow.rooms, slow.chunk) == (1 << 30, 32, MIB)
    times = [in_virtual_time(world) for world in (slow, fast)]
    assert [round(one.downtime_ms / 1e3, 1) for one in times if one is not None] == [0.4, 0.1]


def test_reality_and_simulation_stand_side_by_side() -> None:
    made = Made({"inline": [50.0], "per-device": [10.0]})
    found = run_experiment(
        parse_experiment(both(), "made up"), quick=True, stop=never, say=silent, make=made, note="busy"
    )
    (ratio,) = found.comparisons
    assert ratio.median == pytest.approx(5.0)
    assert ratio.simulated == pytest.approx(4.0, rel=0.05)
    told = page(found, "x.svg")
    assert "## Simulated" in told
    assert "| slow against fast | 5.00 (5.00 to 5.00) | 3.9" in told
    assert "-2" in told.split("## Simulated")[1]
    assert told.rstrip().split("## Circumstances")[1].count("busy") == 1


def test_what_is_only_simulated_decides_nothing() -> None:
    found = run_experiment(parse_experiment(both(run=False), "made up"), quick=True, stop=never, say=silent)
    assert (found.verdict, found.preliminary, found.rounds) == ("depends", True, 0)
    assert found.reason.startswith("Nothing was run, so nothing is decided. Simulated: slow against fast (3.9")
    told = page(found, "x.svg")
    assert "everything was simulated" in told
    assert "## Runs" not in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (both().replace("savers = 1", "workers = 1"), "simulated of variant 'slow': .*workers"),
        (both().replace('channel_rate = "1GiB/s"', ""), "channel_rate"),
        (FILE.replace('name = "slow"\n', 'name = "slow"\nrun = false\n', 1), "neither run nor simulated"),
        (
            both().replace('name = "slow"\n', 'name = "slow"\nrun = false\n', 1),
            "'slow against fast' decides, but has a variant that is only simulated",
        ),
    ],
)
def test_what_cannot_be_simulated_is_named(text: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        parse_experiment(text, "made up")


def test_without_simpy_nothing_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "migpool.sim.simulate", raising=False)
    monkeypatch.setitem(sys.modules, "simpy", None)
    made = Made({"inline": [50.0], "per-device": [10.0]})
    found = run_experiment(parse_experiment(both(), "made up"), quick=True, stop=never, say=silent, make=made)
    assert found.comparisons[0].simulated is None
    assert "## Simulated" not in page(found, "x.svg")


@pytest.mark.parametrize("name", ["C15", "C16", "C17", "C18"])
def test_every_variant_of_these_claims_comes_to_its_end_in_virtual_time(name: str) -> None:
    found: Experiment = load_experiment(name)
    for variant in found.variants:
        world = found.world_of(variant, name)
        assert world is not None
        simulated = in_virtual_time(world)
        assert simulated is not None
        assert simulated.downtime_ms > 0
        assert simulated.held <= world.rooms * world.chunk


def test_an_experiment_without_a_simulation_is_as_it_was() -> None:
    found = experiment()
    assert found.runs
    assert found.measured == found.comparisons
    assert [found.world_of(variant, "made up") for variant in found.variants] == [None, None]
