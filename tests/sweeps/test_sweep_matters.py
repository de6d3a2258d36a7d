"""What is said of a sweep's points, on points whose answer is known; and that the page says it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from migpool.sweeps.matters import Findings, findings
from migpool.sweeps.page import page
from migpool.sweeps.points import Plan, Point
from tests.support.sweeps import made

AXES = """
[[axes]]
key = "channels.count"
values = [1, 2, 4, 8]

[[axes]]
key = "devices.0.options.load_config_time"
least = "1ms"
most = "100ms"
"""
MODELS = 'models = ["pool", "inline", "per-device"]'


def found(folder: Path, downtime: Callable[[Point], float | None]) -> tuple[Plan, Findings]:
    plan = Plan(made(folder, f"{MODELS}\nsample = 64", AXES))
    points = [plan.point(number) for number in range(plan.count)]
    columns: dict[str, list[Any]] = {
        "point": [point.number for point in points],
        "model": [point.model for point in points],
        "downtime_ms": [downtime(point) for point in points],
        "error": [None if downtime(point) else "it <broke>" for point in points],
        "outcome": ["simulated" for _ in points],
        **{key: [point.values[at] for point in points] for at, key in enumerate(plan.keys)},
    }
    return plan, findings(plan, columns)


def crossing(point: Point) -> float:
    """With few channels pool is a quarter better than per-device, with many it is the other way round."""
    few = float(point.values[0]) < 3
    factor = {"pool": 1.0 if few else 1.25, "per-device": 1.25 if few else 1.0, "inline": 2.0}[point.model]
    return factor * 100.0 / float(point.values[0])


def test_who_wins_where_and_by_how_much(tmp_path: Path) -> None:
    _, told = found(tmp_path, crossing)
    channels, time = told.axes
    assert [cell.told for cell in channels.cells.values()] == ["pool by 25 %"] * 2 + ["per-device by 25 %"] * 2
    assert channels.cells[0].slower["inline"] == pytest.approx(1.0)
    assert (told.wins["pool"], told.wins["per-device"], told.wins.get("inline")) == (32, 32, None)
    # All of the downtime goes with the channels, none with the time of the configs.
    assert channels.share == pytest.approx(1.0)
    assert channels.factor == pytest.approx(8.0)
    assert time.share < 0.2
    assert "channels.count: 100 % of the downtime's variance, a factor of 8.00" in "\n".join(told.told)


def test_a_range_of_many_values_is_told_in_stretches_that_have_all_places(tmp_path: Path) -> None:
    _, told = found(tmp_path, crossing)
    time = told.axes[1]
    assert len(time.stretches) == 8
    assert [cell.places for cell in time.cells.values()] == [8] * 8
    assert time.stretches[0].label.startswith("1.")
    assert time.stretches[-1].label.endswith(" ms")
    (cells,) = told.maps.values()
    assert sum(cell.places for cell in cells.values()) == 64
    assert {cell.told for (channels, _), cell in cells.items() if channels < 2} == {"pool by 25 %"}


def test_models_within_a_hundredth_of_each_other_tie(tmp_path: Path) -> None:
    _, told = found(tmp_path, lambda point: {"pool": 100.0, "inline": 100.5, "per-device": 103.0}[point.model])
    assert told.all is not None
    assert told.all.told == "pool = inline by 3 %"
    _, told = found(tmp_path, lambda _: 7.0)
    assert told.all is not None
    assert told.all.told == "all alike"
    assert all(axis.share == 0.0 for axis in told.axes)


def test_models_are_compared_only_where_all_have_a_downtime(tmp_path: Path) -> None:
    # Where per-device fails, pool would look better than it is: those places are left out.
    _, told = found(
        tmp_path,
        lambda point: None if point.model == "per-device" and point.values[0] == 1 else crossing(point),
    )
    assert told.failed == 16
    assert told.first_error == "it <broke>"
    assert told.all is not None
    assert told.all.places == 48
    assert sorted(told.axes[0].cells) == [1, 2, 3]


def test_the_page_says_all_of_it_without_a_request(tmp_path: Path) -> None:
    plan, told = found(tmp_path, lambda point: None if point.number == 0 else crossing(point))
    text = page(plan, told)
    assert "it &lt;broke&gt;" in text
    assert "it <broke>" not in text
    assert "default-src 'none'" in text
    values = json.loads(re.findall(r'<script type="application/json" id="values">(.*?)</script>', text, re.DOTALL)[0])
    assert [axis["key"] for axis in values["axes"]] == list(plan.keys)
    cells = [cell for one in values["maps"] for _, _, cell in one["cells"]]
    assert sum(cell["places"] for cell in cells) == 63
    for model in plan.sweep.models:
        assert f"<td>{model}</td>" in text


def test_a_sweep_of_which_nothing_could_be_computed_has_a_page_too(tmp_path: Path) -> None:
    plan, told = found(tmp_path, lambda _: None)
    assert told.all is None
    assert "there is nothing to compare" in page(plan, told)
