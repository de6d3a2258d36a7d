"""The order of a kit's checks: what is still run after a finding, what is told, and that the total time is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from migpool.conformance.check import Check, CheckResult, Details, Outcome
from migpool.conformance.course import Course
from migpool.errors import MigpoolError, PluginError, UsageError

FAILED = (Outcome.FAILED, "wrong", Details())
PASSED = (Outcome.PASSED, "", Details())
HELD = (Outcome.FAILED, "it did not end", Details(held=True))
Came = tuple[Outcome, str, Details]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time of day on."""
    now = [100.0]
    monkeypatch.setattr("migpool.conformance.course.time.monotonic", lambda: now[0])

    def later(seconds: float) -> None:
        now[0] += seconds

    return later


def course(came: dict[str, Came], *, total: float | None = None, takes: Callable[[], object] = lambda: None) -> Course:
    """Checks that have these results: first, then two on their own, and two under each of two models."""
    found = [Check("basic", "", "", str, first=True), Check("one", "", "", str), Check("two", "", "", str)]
    for model in ("a", "b"):
        found += [Check("trip", model, "", str, first=True), Check("more", model, "", str)]

    def run(check: Check[Any], within: float) -> CheckResult:
        assert within > 0
        takes()
        outcome, text, details = came.get(str(check), PASSED)
        return CheckResult(check.name, check.under, "", outcome, text, 0.0, details)

    return Course([(check, run) for check in found], 10.0, total)


def outcomes(made: Course) -> str:
    """P, F or N (not run) for each check, in order."""
    return "".join(made.run(check).outcome.name[0] for check in made.checks)


@pytest.mark.parametrize(
    ("came", "expected"),
    [
        ({}, "PPPPPPP"),
        ({"basic": FAILED}, "FNNNNNN"),
        ({"one": FAILED}, "PFPNNNN"),
        ({"one": FAILED, "two": FAILED}, "PFFNNNN"),
        ({"one": HELD}, "PFNNNNN"),
        ({"trip[a]": FAILED}, "PPPFNPP"),
        ({"trip[a]": FAILED, "trip[b]": FAILED}, "PPPFNNN"),
        ({"more[a]": FAILED}, "PPPPFPP"),
        ({"more[a]": FAILED, "more[b]": FAILED}, "PPPPFPN"),
        ({"more[a]": HELD}, "PPPPFNN"),
        ({"trip[a]": (Outcome.SKIPPED, "", Details())}, "PPPSPPP"),
    ],
)
def test_what_can_only_follow_is_not_run(came: dict[str, Came], expected: str) -> None:
    assert outcomes(course(came)) == expected


def test_one_mistake_is_told_once_however_its_numbers_differ() -> None:
    wait = "after a cancel at wait {} of the source: lost"
    came = {name: (Outcome.FAILED, wait.format(at), Details()) for at, name in enumerate(("more[a]", "more[b]"))}
    assert outcomes(course(came)) == "PPPPFPN"
    other = {"more[a]": FAILED, "more[b]": (Outcome.FAILED, "something else", Details())}
    assert outcomes(course(other)) == "PPPPFPF"
    same = {name: (Outcome.FAILED, name, Details(cause="resume fails")) for name in ("one", "two")}
    assert outcomes(course(same)) == "PFNNNNN"


def test_the_total_time_ends_it(clock: Callable[[float], None]) -> None:
    made = course({}, total=25.0, takes=lambda: clock(10.0))
    found = [made.run(check) for check in made.checks]
    assert [one.outcome.name[0] for one in found] == ["P", "P", "P", "N", "N", "N", "N"]
    assert found[-1].text == "the total time of 25 s is over: raise it with --total"


def test_the_total_time_is_ten_times_that_of_a_check() -> None:
    assert course({}).total == 100.0


@pytest.mark.parametrize(("refused", "kind"), [(1, UsageError), (2, PluginError)])
def test_what_cannot_be_had_is_no_finding(refused: int, kind: type[MigpoolError]) -> None:
    made = course({"basic": (Outcome.FAILED, "no such option", Details(refused=refused))})
    with pytest.raises(kind, match="no such option"):
        made.run(made.checks[0])
