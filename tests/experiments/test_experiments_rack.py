"""A variant in which several machines leave a host at once."""

from __future__ import annotations

import pytest

from migpool.errors import ScenarioError
from migpool.experiments.form import load_experiment, parse_experiment
from migpool.experiments.rack import RackTable
from migpool.lab.run.together import Leaving, leave
from migpool.scenario.schema import parse_scenario
from tests.support.made_experiments import FILE
from tests.support.real_links import need_links, over

DEVICES = {"plugin": "vfio", "count": 2, "options": {"profile": "instant", "size": "256KiB"}}


def test_all_of_them_leave_with_the_threads_that_they_share() -> None:
    scenario = parse_scenario({"name": "small", "devices": [DEVICES]}, "small")
    run = RackTable(machines=3, at_once=2, threads=1).migrate(scenario, "pool:auto", 1, "small", lambda: False)
    assert run is not None
    assert run.succeeded, run.error
    assert (run.downtime_ms or 0) > 0
    assert (run.total_ms or 0) > (run.downtime_ms or 0)
    assert (run.threads.source or 0) >= 3  # of all three


def test_they_share_one_link() -> None:
    need_links()
    pairs = leave(over({"rate": "1Gbit/s"}), "pool:auto", 5, "linked", Leaving(2, 2, 2), lambda: False)
    assert [pair.verified for pair in pairs] == [True, True], [pair.error for pair in pairs]
    assert all(one.least_rtt_ms > 0 for pair in pairs if pair.both for one in pair.both[0].report.connections)


def test_what_stops_one_stops_all() -> None:
    scenario = parse_scenario({"name": "small", "devices": [DEVICES]}, "small")
    assert RackTable(machines=2, at_once=1, threads=1).migrate(scenario, "pool", 1, "small", lambda: True) is None


def test_a_rack_is_simulated_under_its_models_threads() -> None:
    found = load_experiment("C14")
    one = {variant.name: variant for variant in found.variants}
    times = {}
    for name in ("four at once, one pool", "four at once, a thread each"):
        world, rack = found.world_of(one[name], "C14"), one[name].rack
        assert world is not None
        assert rack is not None
        simulated = rack.in_virtual_time(world, one[name].model)
        assert simulated is not None
        times[name] = simulated.downtime_ms
    # Whoever comes first has all four threads, and nobody is later than with one each.
    assert times["four at once, one pool"] < times["four at once, a thread each"]


@pytest.mark.parametrize("rack", ["{machines = 0, at_once = 1, threads = 1}", "{machines = 4}"])
def test_a_rack_that_cannot_be_is_told(rack: str) -> None:
    with pytest.raises(ScenarioError, match="rack"):
        parse_experiment(FILE.replace('name = "slow"\n', f'name = "slow"\nrack = {rack}\n', 1), "made up")
