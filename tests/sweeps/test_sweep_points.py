"""The file of a sweep, and the points that it means."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from migpool.errors import MigpoolError
from migpool.sweeps.form import load_sweep
from migpool.sweeps.measure import measure
from migpool.sweeps.points import Plan
from migpool.sweeps.run import task_of
from tests.support.sweeps import AXES, made, written

SAMPLE = """
[[axes]]
key = "channels.count"
values = [1, 2, 4, 8]

[[axes]]
key = "memory.chunk"
least = "64KiB"
most = "256KiB"
multiple = "4KiB"
scale = "log"

[[axes]]
key = "devices.0.options.stop_time"
least = "1ms"
most = "9ms"
"""


def test_a_grid_has_every_place_under_every_model_once(tmp_path: Path) -> None:
    plan = Plan(made(tmp_path, 'models = ["pool", "inline"]'))
    points = [plan.point(number) for number in range(plan.count)]
    assert plan.count == 3 * 2 * 2
    assert len({(point.values, point.model) for point in points}) == plan.count
    assert points[0].values == (1, 0.001)
    assert [point.model for point in points[:4]] == ["pool", "inline"] * 2


def test_real_points_are_repeated_and_simulated_ones_are_not(tmp_path: Path) -> None:
    top = 'models = ["pool"]\nrepeats = 3\nseed = 10'
    assert Plan(made(tmp_path, top)).count == 6
    plan = Plan(made(tmp_path, f'{top}\nmode = "real"'))
    assert plan.count == 18
    assert [(point.repeat, point.seed) for point in map(plan.point, range(3))] == [(1, 11), (2, 12), (3, 13)]


def test_a_sample_spreads_over_every_axis_and_is_the_same_again(tmp_path: Path) -> None:
    top = 'models = ["pool"]\nsample = 40'
    plan, again = Plan(made(tmp_path, top, SAMPLE)), Plan(made(tmp_path, top, SAMPLE))
    points = [plan.point(number).values for number in range(40)]
    assert points == [again.point(number).values for number in range(40)]
    assert points != [Plan(made(tmp_path, f"{top}\nseed = 2", SAMPLE)).point(number).values for number in range(40)]
    channels, chunks, stops = zip(*points, strict=True)
    assert Counter(channels) == {1: 10, 2: 10, 4: 10, 8: 10}
    assert all(isinstance(chunk, int) and chunk % 4096 == 0 and 65536 <= chunk <= 262144 for chunk in chunks)
    # A Latin hypercube: each fortieth of the range has one of them.
    assert sorted(int((stop - 0.001) / 0.008 * 40 + 1e-6) for stop in stops) == list(range(40))


def test_the_same_points_have_the_same_numbers_wherever_they_are_simulated(tmp_path: Path) -> None:
    plan = Plan(made(tmp_path, 'models = ["pool", "per-device+receiver"]'))
    points = [plan.point(number) for number in range(plan.count)]
    one, other = measure(task_of(plan, points)), measure(task_of(plan, points[::-1]))
    assert list(one.rows) == list(other.rows)[::-1]
    assert {row["outcome"] for row in one.rows} == {"simulated"}
    assert len({row["downtime_ms"] for row in one.rows}) > 3


def test_a_place_that_cannot_be_is_refused_alone(tmp_path: Path) -> None:
    axes = '[[axes]]\nkey = "memory.budget"\nvalues = ["1MiB", "4KiB", "2MiB"]'
    plan = Plan(made(tmp_path, 'models = ["pool"]', axes))
    found = measure(task_of(plan, [plan.point(number) for number in range(3)])).rows
    assert [row["outcome"] for row in found] == ["simulated", "refused", "simulated"]
    assert "has no room for a page" in str(found[1]["error"])


@pytest.mark.parametrize(
    ("top", "rest", "said"),
    [
        ('models = ["nobody"]', AXES, "sweep.toml: models: model 'nobody': there is no threading model"),
        ('models = ["pool", "pool"]', AXES, "model 'pool' is named twice"),
        ("", "", "sweep.toml: axes: "),
        ("", AXES.replace("channels.count", "channels.number"), "channels.number"),
        ("", AXES.replace("channels.count", "devices.7.count"), "there is no '7' in the scenario"),
        ("", AXES.replace("[1, 2, 4]", "[1, 2, 0]"), "channels.count"),
        ("", AXES.replace("[1, 2, 4]", "[1, 2, 2]"), "has one of its values twice"),
        ("", AXES.replace("[1, 2, 4]", '[1, "two"]'), "of one kind"),
        ("", AXES.replace("values = [1, 2, 4]", "least = 1\nmost = 4"), "give it steps, or the sweep a sample"),
        ("", AXES.replace("values = [1, 2, 4]", "least = 4\nmost = 1\nsteps = 2"), "least must be less than most"),
        ("", AXES.replace("values = [1, 2, 4]", ""), "an axis has values, or least and most"),
        ("", AXES + AXES, "two axes go along channels.count"),
        ("", AXES.replace("channels.count", "seed").replace("key", "key"), "seed is no axis"),
        ('set = {"channels.count" = "many"}', AXES, "channels.count"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_computed(tmp_path: Path, top: str, rest: str, said: str) -> None:
    with pytest.raises(MigpoolError) as raised:
        load_sweep(written(tmp_path, top, rest))
    assert said in str(raised.value)
