"""The data-path benchmark as tests: ``pytest benchmarks/test_datapath.py``.

Each group is played for real with small devices, so that a test fails if a run fails or moves anything but the state.
pytest-benchmark times one migpool migration of each kind and keeps the rows against C beside it, as extra information.
How fast is fast enough is not decided here: that takes quiet and many rounds, see ``python -m benchmarks.datapath``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.datapath.content import PAGE, Content
from benchmarks.datapath.disturbance import Attempts
from benchmarks.datapath.failure import BenchmarkFailure
from benchmarks.datapath.groups import GROUPS, Group, Row, Run, play, scaled
from benchmarks.datapath.outcome import outcomes
from benchmarks.datapath.runs import run_c, run_python
from benchmarks.datapath.task import MIB, Measure, Task

SIZE = 16 * MIB
SMALL = Task(size=SIZE)


@pytest.fixture(scope="module")
def content() -> Iterator[Content]:
    with Content(SMALL.devices, SIZE) as made:
        yield made


@pytest.mark.benchmark(min_rounds=2, max_time=0.1)
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_a_group_measures_every_row_against_c(group: Group, content: Content, benchmark: BenchmarkFixture) -> None:
    small = scaled(group, size=SIZE, source="per-device", destination="receiver")
    rounds = list(play(small, content, 1, Attempts(0.0, 1, 0.0)))
    for row in outcomes(small, rounds):
        assert row.median > 0
        benchmark.extra_info[row.name] = row.median
    python = next(run for run in small.runs if run.name.startswith("Python"))
    assert benchmark(python.measure, content).bytes == python.task.bytes


@pytest.mark.parametrize("reading", ["pread", "read", "recv", "splice"])
def test_both_programs_move_the_state_however_it_is_read(reading: str, content: Content) -> None:
    task = replace(SMALL, reading=reading)
    assert run_c(task, content).bytes == task.bytes
    assert run_python(task, content).bytes == task.bytes


@pytest.mark.parametrize("source", ["inline", "per-device", "pool", "elastic"])
@pytest.mark.parametrize("destination", ["inline", "per-device", "receiver"])
def test_any_threading_model_can_be_measured(source: str, destination: str, content: Content) -> None:
    assert run_python(replace(SMALL, source=source, destination=destination), content).bytes == SMALL.bytes


@pytest.mark.parametrize("chunk", [PAGE, 3 * PAGE, 5 * MIB])
def test_the_c_program_takes_chunks_that_do_not_divide_the_state(chunk: int, content: Content) -> None:
    for reading in ("pread", "splice"):
        assert run_c(replace(SMALL, reading=reading, chunk=chunk, channels=3), content).bytes == SMALL.bytes


def test_a_page_that_was_not_moved_is_found(content: Content) -> None:
    run_c(SMALL, content)
    content.check()
    content.spoil()
    with pytest.raises(BenchmarkFailure, match="device 0: what arrived after byte 0"):
        content.check()


def test_state_that_ends_early_is_an_error_of_one_line(content: Content) -> None:
    with pytest.raises(BenchmarkFailure, match=r"status 1: the state of a device cannot be read to its end$"):
        run_c(replace(SMALL, size=SIZE + MIB), content)


def test_a_model_that_does_not_exist_is_an_error_that_names_it(content: Content) -> None:
    with pytest.raises(BenchmarkFailure, match="there is no threading model 'none'"):
        run_python(replace(SMALL, source="none"), content)


def test_a_row_is_the_median_of_its_rounds_and_is_held_against_its_target() -> None:
    runs = (Run("C", SMALL), Run("Python", SMALL))
    rows = (
        Row("rate", lambda measures: measures["Python"].rate / measures["C"].rate, 0.5),
        Row("time", lambda measures: measures["Python"].seconds, 2.0, at_most=True),
        Row("only told", lambda measures: measures["C"].cpu),
    )
    rounds = [
        {"C": Measure(1.0, MIB, 0.1, 0.2), "Python": Measure(seconds, MIB, 0.3, 0.4)} for seconds in (1.0, 2.5, 4.0)
    ]
    rate, time, told = outcomes(Group("some", runs, rows), rounds)
    assert (rate.median, rate.least, rate.most, rate.passed) == (0.4, 0.25, 1.0, False)
    assert (time.median, time.passed) == (2.5, False)
    assert told.median == pytest.approx(0.3)
    assert told.passed is None


def test_a_round_has_the_mean_of_its_turns_which_go_forth_and_back(content: Content) -> None:
    order: list[str] = []

    class Told(Run):
        def measure(self, content: Content) -> Measure:
            del content
            order.append(self.name)
            return Measure(float(len(order)), MIB, 0.0, 0.0)

    group = Group("some", (Told("C", SMALL), Told("Python", SMALL)), (), turns=2)
    first, second = play(group, content, 2, Attempts(1e9, 1, 0.0))
    assert order == ["C", "Python", "Python", "C", "C", "Python", "Python", "C", "C", "Python"]
    assert (first["C"].seconds, first["Python"].seconds) == (4.5, 4.5)
    assert (second["C"].seconds, second["Python"].seconds) == (8.5, 8.5)


@pytest.mark.parametrize("chunk", [MIB, 3 * PAGE])
def test_the_system_calls_alone_move_the_state_too(chunk: int, content: Content) -> None:
    task = replace(SMALL, bare="calls", chunk=chunk)
    assert run_python(task, content).bytes == task.bytes


def test_a_disturbed_run_is_repeated_as_often_as_allowed() -> None:
    attempts = Attempts(-1e9, 3, 1e9)  # nothing is quiet enough
    calls: list[int] = []
    attempts.undisturbed(lambda: calls.append(1))
    assert (len(calls), attempts.repeated, attempts.disturbed) == (3, 2, 1)


def test_no_run_is_repeated_when_patience_is_out() -> None:
    attempts = Attempts(-1e9, 3, 0.0)
    attempts.undisturbed(lambda: None)
    assert (attempts.repeated, attempts.disturbed) == (0, 1)


def test_an_undisturbed_run_is_run_once() -> None:
    attempts = Attempts(1e9, 3, 1e9)
    assert attempts.undisturbed(lambda: "result") == "result"
    assert (attempts.repeated, attempts.disturbed) == (0, 0)
