"""Known samples, known intervals and verdicts; known rounds, known findings."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from migpool.experiments.form import Comparison
from migpool.experiments.repetitions import Measured, make_rounds, ratios
from migpool.experiments.runner import found_in, run_experiment
from migpool.experiments.verdict import Interval, Piece, compared, counted, median_interval, verdict_of
from migpool.lab.run.result import RunResult
from migpool.scenario.schema import Scenario
from tests.support.made_experiments import FILE, Made, a_run, experiment, never, silent


@pytest.mark.parametrize(
    ("count", "rank", "coverage"),
    # The classical table of the sign test: two-sided, 95 %.
    [(6, 1, 0.96875), (8, 1, 0.9921875), (9, 2, 0.9609375), (10, 2, 0.978515625), (20, 6, 0.958610535)],
)
def test_the_interval_is_that_of_the_sign_test(count: int, rank: int, coverage: float) -> None:
    found = median_interval([float(number) for number in range(count, 0, -1)])
    assert (found.low, found.high) == (rank, count + 1 - rank)
    assert found.coverage == pytest.approx(coverage)
    assert found.sure


@pytest.mark.parametrize(("count", "coverage"), [(1, 0.0), (2, 0.5), (3, 0.75), (5, 0.9375)])
def test_few_samples_give_all_of_their_range_and_no_false_certainty(count: int, coverage: float) -> None:
    found = median_interval([1.0 + number for number in range(count)])
    assert (found.low, found.high, found.coverage, found.sure) == (1.0, float(count), coverage, False)


def test_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="no median"):
        median_interval([])


def test_an_outlier_moves_neither_the_median_nor_the_interval() -> None:
    calm = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 1.08, 1.09]
    disturbed = [*calm[:-1], 50.0]
    assert median_interval(calm) == median_interval(disturbed)


def test_the_interval_has_the_median_in_it_as_often_as_it_says() -> None:
    rng = random.Random(7)
    hits = 0
    for _ in range(2000):
        found = median_interval([rng.lognormvariate(0.0, 1.0) for _ in range(15)])  # its median is 1
        hits += found.low <= 1.0 <= found.high
        assert found.low <= found.median <= found.high
    # 96.5 % by the binomial distribution; four standard deviations of 2000 trials to either side.
    assert 0.948 < hits / 2000 < 0.982


def _interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 0.96)


@pytest.mark.parametrize(
    ("least", "most", "low", "high", "outcome"),
    [
        (1.2, None, 1.2, 1.5, "holds"),
        (1.2, None, 1.0, 1.19, "fails"),
        (1.2, None, 1.1, 1.3, "open"),
        (None, 1.05, 0.9, 1.05, "holds"),
        (None, 1.05, 1.06, 1.1, "fails"),
        (0.9, 1.1, 0.95, 1.05, "holds"),
        (0.9, 1.1, 0.8, 1.2, "open"),
        (0.9, 1.1, 0.7, 0.8, "fails"),
    ],
)
def test_a_comparison_is_decided_by_its_whole_interval(
    least: float | None, most: float | None, low: float, high: float, outcome: str
) -> None:
    assert compared(Comparison(name="x", of="a", to="b", least=least, most=most), _interval(low, high)) == outcome


def test_one_round_and_none_decide_nothing() -> None:
    comparison = Comparison(name="x", of="a", to="b", least=1.2)
    assert compared(comparison, None) == "open"
    assert compared(comparison, median_interval([5.0])) == "open"


def test_a_count_of_nothing_decides_nothing() -> None:
    assert [counted(0, 0), counted(9, 0), counted(9, 1)] == ["open", "holds", "fails"]


def test_all_pieces_together_make_the_verdict() -> None:
    yes, no, perhaps = Piece("a", "holds", "1.5"), Piece("b", "fails", "1.0"), Piece("c", "open", "1.2")
    assert verdict_of([yes]).word == "supported"
    assert verdict_of([no]).word == "refuted"
    mixed = verdict_of([yes, no], "the weather")
    assert (mixed.word, mixed.reason) == ("depends", "On the weather. It holds: a (1.5). It does not: b (1.0).")
    assert "These runs do not decide: c (1.2)" in verdict_of([yes, perhaps], "the weather").reason
    assert "On the weather" not in verdict_of([yes, perhaps], "the weather").reason


def test_what_must_never_happen_refutes_whatever_else_holds() -> None:
    found = verdict_of([Piece("a", "holds", "1.5"), Piece("left", "fails", "1 of 900", never=True)])
    assert (found.word, found.reason) == ("refuted", "what must never happen has happened: left (1 of 900).")


def test_every_second_round_goes_the_other_way() -> None:
    made = Made({"inline": [20.0], "per-device": [10.0]})
    measured = make_rounds(experiment(), 60, stop=never, say=silent, make=made, clock=lambda: 0.0)
    assert made.order[:4] == ["inline", "per-device", "per-device", "inline"]
    assert (measured.ended, len(measured.rounds)) == ("narrow", 6)  # six equal ratios are the fewest that reach 95 %


@pytest.mark.parametrize(("seconds", "rounds"), [(1, 2), (45, 4), (75, 7)])
def test_no_round_begins_that_would_probably_end_too_late(seconds: float, rounds: int) -> None:
    now = 0.0

    def make(scenario: Scenario, model: str, repeat: int, where: str, stop: Callable[[], bool]) -> RunResult:
        del scenario, where, stop
        nonlocal now
        now += 5.0  # ten a round
        return a_run(model, 10.0 * repeat if model == "inline" else 10.0)

    measured = make_rounds(experiment(), seconds, stop=never, say=silent, make=make, clock=lambda: now)
    assert (measured.ended, len(measured.rounds), measured.seconds) == ("time", rounds, 10.0 * rounds)


def test_a_ratio_is_taken_within_a_round_and_only_of_runs_that_were_verified() -> None:
    comparison = experiment().comparisons[0]
    rounds = [
        {"slow": a_run("m", 30.0), "fast": a_run("m", 10.0)},
        {"slow": a_run("m", None), "fast": a_run("m", 10.0)},
        {"slow": a_run("m", 80.0), "fast": a_run("m", 20.0)},
        {"slow": a_run("m", 80.0)},
    ]
    assert ratios(comparison, rounds) == [3.0, 4.0]


def test_a_finding_has_the_numbers_the_interval_and_the_verdict() -> None:
    slow = [20.0, 22.0, 21.0, 19.0, 20.5, 21.5, 20.2]
    asked = experiment()
    rounds = [{"slow": a_run("inline", time), "fast": a_run("per-device", 10.0)} for time in slow]
    measured = Measured(rounds, "time", 7.0, [])
    found = found_in(asked, measured, quick=False, load=0.5)
    (ratio,) = found.comparisons
    assert ratio.ratios == [time / 10 for time in slow]
    assert (ratio.median, ratio.low, ratio.high) == (2.05, 1.9, 2.2)
    assert (found.verdict, found.ended, found.load, found.preliminary) == ("supported", "time", 0.5, False)
    assert "slow against fast (2.050, 1.900 to 2.200; expected at least 1.2)" in found.reason
    assert found.variants[0].threads.destination == 4
    assert found.variants[0].where == {"device read": pytest.approx(sum(slow) / 7)}


def test_runs_that_fail_are_told_and_end_the_experiment_when_there_are_many() -> None:
    made = Made({"inline": [None], "per-device": [10.0]})
    found = run_experiment(experiment(), quick=False, stop=never, say=silent, make=made)
    assert (found.ended, found.rounds, found.verdict) == ("failures", 4, "depends")
    assert found.failures[0] == "slow, round 1: the device broke"
    assert found.comparisons[0].median is None


def test_memory_over_the_budget_refutes_whatever_the_times_say() -> None:
    limit = '\n[[limits]]\nname = "memory in use, as a share of the budget,"\nmost = 1.0\n'
    times = {"inline": [20.0], "per-device": [10.0]}
    kept = run_experiment(experiment(FILE + limit), quick=False, stop=never, say=silent, make=Made(times, used=4))
    assert (kept.verdict, kept.counts[0].total, kept.counts[0].wrong) == ("supported", 12, 0)
    broken = run_experiment(experiment(FILE + limit), quick=False, stop=never, say=silent, make=Made(times, used=5))
    assert (broken.verdict, broken.counts[0].wrong) == ("refuted", 12)
    assert broken.counts[0].examples[0] == "slow, round 1: 1.25"


def test_a_cancel_ends_the_rounds() -> None:
    made = Made({"inline": [20.0], "per-device": [10.0]})
    measured = make_rounds(experiment(), 60, stop=lambda: len(made.order) > 4, say=silent, make=made)
    assert (measured.ended, len(made.order)) == ("cancelled", 5)
