"""The names of threading models on the command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migpool.errors import PluginError, ScenarioError, UsageError
from migpool.scenario.model_syntax import all_models, parse_model, parse_models, scenario_models
from migpool.scenario.plugins import load_scheduler, names
from migpool.scenario.schema import parse_scenario
from migpool.schedulers.elastic import ElasticScheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from tests.support.commandline import announced


def test_one_name_stands_for_both_ends() -> None:
    model = parse_model("pool:4")
    assert model.source == model.destination
    assert (model.source.scheduler, model.source.workers) == (PoolScheduler, 4)
    assert parse_model("inline").part("destination").workers is None


def test_two_names_stand_for_source_and_destination() -> None:
    model = parse_model("pool:2+elastic:8")
    assert (model.part("source").scheduler, model.part("source").workers) == (PoolScheduler, 2)
    assert (model.part("destination").scheduler, model.part("destination").workers) == (ElasticScheduler, 8)
    assert parse_model("inline+receiver").destination.scheduler is ReceiverScheduler


def test_words_after_the_name_choose_a_variant() -> None:
    model = parse_model("pool:queue:4+per-device:switchover")
    assert (model.source.workers, model.source.chosen) == (4, frozenset({"queue"}))
    assert (model.destination.workers, model.destination.chosen) == (None, frozenset({"switchover"}))
    assert model.source.make().chosen == {"queue"}
    assert parse_model("pool").source.make().chosen == frozenset()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write NAME, NAME:WORKERS or SOURCE[+]DESTINATION"),
        ("a+b+c", "write NAME"),
        ("pool+", "write NAME"),
        ("swimming", "there are: blocking-aware, elastic, inline, "),
        ("pool:", "stands the number of workers, 1 or more, block, queue, auto, setup, or switchover, not ''"),
        ("pool:0", "1 or more, .*, not '0'"),
        ("pool:-1", "1 or more"),
        ("pool:x", "1 or more"),
        ("pool:٣", "1 or more"),
        ("pool:9999999999", "1 or more, .*, not '9999999999'"),
        ("pool:2:4", "2 and 4 exclude each other: write one of them"),
        ("pool:4:block:queue", "block and queue exclude each other: write one of them"),
        ("pool:queue:queue", "queue and queue exclude each other"),
        ("per-device:lazy", "after per-device: stands setup, or switchover, not 'lazy'"),
        ("inline:setup", "after inline: stands nothing, not 'setup'"),
        ("inline:2", "inline has no number of workers: write inline alone"),
        ("receiver", "name a model to save with before it, such as per-device[+]receiver"),
        ("receiver+pool", "can only load"),
    ],
)
def test_a_wrong_name_is_answered_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_model(text)


def test_a_list_has_each_model_once() -> None:
    assert [model.name for model in parse_models("pool, inline,pool:2")] == ["pool", "inline", "pool:2"]
    with pytest.raises(UsageError, match="named twice"):
        parse_models("pool,inline,pool")
    with pytest.raises(UsageError, match="no model is named"):
        parse_models(" , ")


def test_a_wrong_name_in_a_scenario_is_told_of_with_its_key() -> None:
    table = {"name": "x", "devices": [{"plugin": "vfio"}], "compare": {"models": ["pool", "receiver"]}}
    with pytest.raises(ScenarioError, match=r"^f.toml: compare.models\[1\]: model 'receiver': receiver can only load"):
        scenario_models(parse_scenario(table, "f.toml"), "f.toml")


def test_every_installed_model_has_a_name_that_works_at_both_ends() -> None:
    found = all_models()
    assert {"inline", "pool", "per-device", "elastic", "per-device+receiver"} <= set(found)
    assert "receiver" not in found
    for name in found:
        parse_model(name)


def test_a_scheduler_is_loaded_by_its_entry_point() -> None:
    assert load_scheduler("inline") is InlineScheduler
    with pytest.raises(PluginError, match="there is no threading model 'outline'; there are: "):
        load_scheduler("outline")


def test_a_package_that_comes_to_a_known_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    os.utime(tmp_path, (0, 0))  # whatever changes it from now on, changes its time
    assert "late" not in names("scheduler")
    announced(tmp_path, "late", "[migpool.schedulers]\nlate = migpool.schedulers.pool:PoolScheduler\n")
    assert "late" in names("scheduler")
    assert load_scheduler("late") is PoolScheduler
