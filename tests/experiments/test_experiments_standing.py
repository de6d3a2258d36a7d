"""``migpool lab compare``: what has become of earlier verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migpool.experiments.finding import Finding
from migpool.experiments.recheck import compared_with
from migpool.experiments.runner import run_experiment
from migpool.experiments.verdict import Outcome
from tests.support.commandline import here
from tests.support.made_experiments import FILE, Made, experiment, never, silent


def found(slow: list[float], file: str = FILE, used: int = 1) -> Finding:
    """What an experiment with these downtimes finds; it expects ``slow`` to be at least 1.2 times 10."""
    made = Made({"inline": slow, "per-device": [10.0]}, used=used)
    return run_experiment(experiment(file), quick=False, stop=never, say=silent, make=made)


HOLDS = [20.0]
FAILS = [11.0]


def with_interval(low: float, high: float, outcome: Outcome) -> Finding:
    finding = found(HOLDS)
    ratio = finding.comparisons[0].model_copy(update={"low": low, "high": high, "outcome": outcome})
    return finding.model_copy(update={"comparisons": [ratio]})


OPEN = with_interval(1.1, 1.9, "open")


@pytest.mark.parametrize(
    ("before", "now", "fate", "stands"),
    [
        (found(HOLDS), found([18.0]), "stands", True),
        (OPEN, found(HOLDS), "decided", True),
        (found(HOLDS), OPEN, "open again", True),
        (found(HOLDS), found(FAILS), "contradicted", False),
        (found(FAILS), found(HOLDS), "contradicted", False),
    ],
)
def test_only_the_other_answer_takes_a_verdict_back(before: Finding, now: Finding, fate: str, stands: bool) -> None:
    standing = compared_with(before, now)
    assert [one.fate for one in standing.moved] == [fate]
    assert standing.stands is stands
    assert standing.missing == ()
    assert not standing.elsewhere


def test_intervals_without_anything_in_common_are_told_where_the_verdict_stands() -> None:
    assert [one.apart for one in compared_with(found([20.0]), found([30.0])).moved] == [True]
    assert [one.apart for one in compared_with(OPEN, found([18.0])).moved] == [False]


def test_too_few_rounds_contradict_nothing() -> None:
    ratio = found(HOLDS).comparisons[0].model_copy(update={"coverage": 0.5})
    few = found(HOLDS).model_copy(update={"comparisons": [ratio]})
    (moved,) = compared_with(few, found(FAILS)).moved
    assert (moved.fate, moved.before) == ("decided", "2.000 (2.000 to 2.000), holds, preliminary")


def test_a_count_that_was_clean_and_is_not_contradicts() -> None:
    limit = FILE + '\n[[limits]]\nname = "memory in use, as a share of the budget,"\nmost = 1.0\n'
    standing = compared_with(found(HOLDS, limit, used=4), found(HOLDS, limit, used=5))
    assert [(one.decides, one.fate) for one in standing.moved] == [(True, "stands"), (True, "contradicted")]
    assert not standing.stands


def test_another_threshold_is_another_question() -> None:
    standing = compared_with(found(HOLDS), found(HOLDS, FILE.replace("least = 1.2", "least = 2.5")))
    assert standing.moved == ()
    assert standing.missing == ("slow against fast",)


def test_different_experiments_are_not_compared() -> None:
    with pytest.raises(ValueError, match="T1 and T3 are different"):
        compared_with(found(HOLDS), found(HOLDS, FILE.replace('"T1"', '"T3"')))


def written(folder: Path, name: str, finding: Finding) -> Path:
    path = folder / name
    path.mkdir()
    (path / f"{finding.id}.json").write_text(finding.to_json())
    return path


def test_the_command_says_what_stands_and_what_does_not(tmp_path: Path) -> None:
    before = written(tmp_path, "before", found(HOLDS))
    same = here("lab", "compare", str(before), str(written(tmp_path, "same", found([21.0]))))
    assert same.code == 0
    assert "1 of 1 verdict stands" in same.out
    other = here("lab", "compare", str(before), str(written(tmp_path, "other", found(FAILS)) / "T1.json"))
    assert other.code == 1
    assert "T1: slow against fast is contradicted: 2.000 (2.000 to 2.000), holds before, 1.100" in other.out
    assert "0 of 1 verdict stands; contradicted: T1" in other.out


def test_what_stands_as_json(tmp_path: Path) -> None:
    before, now = written(tmp_path, "before", found(HOLDS)), written(tmp_path, "now", found(FAILS))
    ended = here("lab", "compare", str(before), str(now), "--json")
    assert ended.code == 1
    (told,) = json.loads(ended.out)
    assert (told["id"], told["stands"], told["moved"][0]["fate"]) == ("T1", False, "contradicted")


def test_another_machine_is_told(tmp_path: Path) -> None:
    one = found(HOLDS)
    other = one.model_copy(update={"machine": one.machine.model_copy(update={"cpus": 64})})
    ended = here("lab", "compare", str(written(tmp_path, "one", one)), str(written(tmp_path, "other", other)))
    assert ended.code == 0
    assert "not the same machine or versions" in ended.out
    assert "64 CPUs" in ended.out


def test_what_cannot_be_compared_is_one_line(tmp_path: Path) -> None:
    right = written(tmp_path, "right", found(HOLDS))
    empty = tmp_path / "empty"
    empty.mkdir()
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"schema": 1}')
    third = written(tmp_path, "third", found(HOLDS, FILE.replace('"T1"', '"T3"')))
    for path, said in (
        (empty, "has no findings: name a directory that migpool lab run --results has written"),
        (wrong, "is no finding of an experiment: id: Field required"),
        (tmp_path / "absent.json", "cannot be read: No such file"),
        (third, "have no experiment in common"),
    ):
        ended = here("lab", "compare", str(right), str(path))
        assert ended.code == 2
        assert said in ended.err
        assert len(ended.err.strip().splitlines()) == 1
