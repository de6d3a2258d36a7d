"""Pools that grow against the best model, where a fixed pool is worse: known rounds, known words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from migpool.experiments.finding import FieldFinding, Finding
from migpool.experiments.form import Variant, load_experiment
from migpool.experiments.growing_pools import fields, told
from migpool.experiments.page import index, page
from migpool.experiments.repetitions import Measured, Round
from migpool.experiments.runner import found_in
from tests.support.made_experiments import FILE, a_run, experiment

MODELS = {"one": "pool:1", "four": "pool:4", "grows": "elastic", "looks": "blocking-aware"}
VARIANTS = [Variant(name=name, model=model) for name, model in MODELS.items()]


def rounds_of(times: Mapping[str, Sequence[float | None]]) -> list[Round]:
    count = max(len(column) for column in times.values())
    return [
        {name: a_run(name, column[number]) for name, column in times.items() if number < len(column)}
        for number in range(count)
    ]


def one_field(times: Mapping[str, Sequence[float | None]]) -> FieldFinding:
    (field,) = fields(VARIANTS, rounds_of(times))
    return field


def test_each_is_compared_with_the_best_whichever_that_is() -> None:
    times = {"one": [200.0] * 7, "four": [102.0] * 7, "grows": [100.0] * 7, "looks": [103.0] * 7}
    field = one_field(times)
    assert (field.best, field.model) == ("grows", "elastic")
    assert [(one.of, one.median) for one in field.worse] == [("one", 2.0)]
    assert [(one.model, one.ratio.median, one.ratio.outcome) for one in field.grown] == [
        ("elastic", 1.0, "holds"),
        ("blocking-aware", 1.03, "holds"),
    ]
    assert told(field) == (
        "Best is grows; fixed pools that take over 3 % longer: one (2.000, 2.000 to 2.000). "
        "elastic is the best, within 3 %. "
        "blocking-aware: 1.030, 1.030 to 1.030, within 3 %."
    )


def test_the_whole_interval_decides_as_everywhere() -> None:
    best = [100.0] * 7
    unsure = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0, 106.0]
    field = one_field({"one": unsure, "four": best, "grows": unsure, "looks": [104.0] * 7})
    assert field.worse == []  # perhaps it is: nobody knows
    assert [one.ratio.outcome for one in field.grown] == ["open", "fails"]
    assert (
        told(field) == "Fixed pools: none is shown by these rounds to take over 3 % longer than the best of all, four."
    )


def test_a_model_over_three_percent_comes_with_the_waits_that_make_it_slower() -> None:
    rounds = rounds_of({"one": [200.0] * 7, "four": [100.0] * 7, "grows": [110.0] * 7, "looks": [102.0] * 7})
    where = {
        "four": {"device read": 60.0, "send": 30.0, "credit": 10.0},
        "grows": {"device read": 60.0, "send": 24.0, "credit": 12.0, "queued": 14.0},
    }
    for runs in rounds:
        for name, kinds in where.items():
            runs[name] = runs[name].model_copy(update={"attribution": kinds})
    (field,) = fields(VARIANTS, rounds)
    assert [bool(one.reason) for one in field.grown] == [True, False]
    assert (
        "elastic: 1.100, 1.100 to 1.100, over 3 %; its critical path is 10.0 ms longer: 14.0 ms more of 'queued', "
        "2.0 ms more of 'credit', 6.0 ms less of all else."
    ) in told(field)


def test_a_slower_run_without_a_longer_path_is_said_to_have_none() -> None:
    rounds = rounds_of({"one": [200.0] * 7, "four": [100.0] * 7, "grows": [110.0] * 7, "looks": [100.0] * 7})
    rounds = [{name: run.model_copy(update={"attribution": {}}) for name, run in runs.items()} for runs in rounds]
    (field,) = fields(VARIANTS, rounds)
    assert field.grown[0].reason == "why, its critical path does not show"


def test_variants_of_another_machine_and_without_a_rival_are_no_field() -> None:
    apart = [Variant(name=one.name, model=one.model, set={"devices.0.count": at}) for at, one in enumerate(VARIANTS)]
    times = {name: [100.0] * 7 for name in MODELS}
    assert fields(apart, rounds_of(times)) == []
    assert fields([one for one in VARIANTS if one.name != "one" and one.name != "four"], rounds_of(times)) == []
    assert fields([one for one in VARIANTS if one.name in ("one", "four")], rounds_of(times)) == []


def test_runs_that_failed_take_no_part_and_without_any_there_is_nothing_to_say() -> None:
    times: dict[str, list[float | None]] = {
        "one": [200.0] * 7,
        "four": [100.0, None, *[100.0] * 5],
        "grows": [101.0] * 7,
        "looks": [None] * 7,
    }
    field = one_field(times)
    assert (field.best, field.worse[0].median) == ("four", 2.0)
    assert [one.ratio.outcome for one in field.grown] == ["holds", "open"]
    assert "blocking-aware: no round came to its end, not decided by these rounds." in told(field)
    assert fields(VARIANTS, rounds_of({name: [None] for name in MODELS})) == []


def test_a_model_counts_at_either_end() -> None:
    variants = [Variant(name="fixed", model="per-device+pool:2:queue"), Variant(name="grown", model="inline+elastic:4")]
    (field,) = fields(variants, rounds_of({"fixed": [20.0] * 6, "grown": [10.0] * 6}))
    assert [one.of for one in field.worse] == ["fixed"]
    assert [one.model for one in field.grown] == ["inline+elastic:4"]


def _finding(fast: float) -> Finding:
    text = FILE.replace('model = "inline"', 'model = "pool:1"').replace('model = "per-device"', 'model = "elastic"')
    asked = experiment(text.replace('set = {"devices.0.count" = 1}', ""))
    rounds = [{"slow": a_run("pool:1", 20.0), "fast": a_run("elastic", fast)} for _ in range(6)]
    return found_in(asked, Measured(rounds, "narrow", 7.0, []), quick=False, load=0.5)


def test_the_page_and_the_index_have_the_line() -> None:
    found = _finding(10.0)
    line = (
        "Best is fast; fixed pools that take over 3 % longer: slow (2.000, 2.000 to 2.000). "
        "elastic is the best, within 3 %."
    )
    assert f"## Pools that grow\n\n* {line}\n" in page(found, "T1.svg")
    assert f"* T1: {line}\n" in index([found])
    assert Finding.model_validate_json(found.to_json()) == found
    even = _finding(20.0)
    line = "Fixed pools: none is shown by these rounds to take over 3 % longer than the best of all, slow."
    assert f"* {line}\n" in page(even, "T1.svg")
    assert "fixed size is worse" not in index([even])


@pytest.mark.parametrize(("name", "count"), [("C1", 2), ("C2", 1), ("C4", 2)])
def test_every_claim_about_the_number_of_workers_asks_it(name: str, count: int) -> None:
    found = load_experiment(name)
    runs = {one.name: a_run(one.model, 10.0) for one in found.variants}
    shown = fields(found.variants, [runs, runs])
    assert [{one.model.partition("+")[0] for one in field.grown} for field in shown] == [
        {"elastic", "blocking-aware"}
    ] * count
