"""What pre-copy saved is computed from the run itself, and told where something was pre-copied."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.device import Side, StateCosts
from migpool.lab.analysis.declared_costs import least_costs
from migpool.lab.analysis.precopy_saving import precopy_saving
from migpool.lab.report.table import render
from migpool.lab.result_of_sides import lab_result, run_result, source_result
from migpool.lab.run.side import SideResult
from migpool.migration.report import DeviceReport, SideReport
from migpool.scenario.schema import parse_scenario
from tests.support.lab_reports import MIB, MS, pair, report, result

Piece = tuple[Wait, int, int, int, int]
"""Kind of wait, slot, chunk, begin and end in ms."""


def device(before: int, after: int, *, redone: int = 0, config: int = 0) -> DeviceReport:
    """A device that moved so many MiB before the stop and after it."""
    size = (before + after) * MIB + config
    return DeviceReport(
        "device", "", iterable=True, bytes=size, bytes_before_stop=before * MIB, redone=redone * MIB, config=config
    )


def side(which: Side, devices: Sequence[DeviceReport], *pieces: Piece) -> SideReport:
    spans = [Span(wait, slot, index, begin * MS, end * MS, "x") for wait, slot, index, begin, end in pieces]
    return replace(
        report(which), devices=tuple(devices), spans=tuple(spans), bytes=sum(device.bytes for device in devices)
    )


def moved(slot: int, begin: int, end: int) -> list[Piece]:
    """A device's state moves in one chunk, then the config is read, waited for and sent."""
    return [
        (Wait.READ, slot, 0, begin, begin + 1),
        (Wait.SEND, slot, 0, begin + 1, end),
        (Wait.READ, slot, 1, end, end),
        (Wait.LOCK, slot, 1, end, end + 500),
        (Wait.SEND, slot, 1, end + 500, end + 600),
    ]


def test_what_moved_before_would_have_moved_as_fast_as_the_rest() -> None:
    # 10 MiB in 20 ms after the stop; 30 before it would have taken 60.
    source = side("source", [device(30, 10, config=4000)], *moved(0, 10, 30))
    assert precopy_saving(source) == pytest.approx(60.0)


def test_what_had_to_be_sent_anew_saved_nothing() -> None:
    assert precopy_saving(side("source", [device(30, 10, redone=10)], *moved(0, 10, 30))) == pytest.approx(40.0)
    assert precopy_saving(side("source", [device(30, 10, redone=45)], *moved(0, 10, 30))) == 0.0


def test_the_last_write_ends_it_where_both_ends_have_one_clock() -> None:
    source = side("source", [device(30, 10)], *moved(0, 10, 30))
    destination = side("destination", [device(0, 0)], (Wait.WRITE, 0, 0, 40, 50), (Wait.LOAD_CONFIG, 0, 1, 60, 900))
    assert precopy_saving(source, destination) == pytest.approx(120.0)
    assert precopy_saving(replace(source, clock="return-path"), destination) == pytest.approx(60.0)


def test_devices_save_together_as_far_as_they_moved_together() -> None:
    both = [device(30, 10), device(30, 10)]
    in_turn = side("source", both, *moved(0, 10, 30), *moved(1, 30, 50))
    assert precopy_saving(in_turn) == pytest.approx(120.0)
    at_once = side("source", both, *moved(0, 10, 30), *moved(1, 10, 30))
    assert precopy_saving(at_once) == pytest.approx(60.0)
    half = side("source", both, *moved(0, 10, 30), *moved(1, 20, 40))
    assert precopy_saving(half) == pytest.approx(120.0 * 30 / 40)


@pytest.mark.parametrize(
    ("devices", "pieces"),
    [
        pytest.param([device(0, 10)], moved(0, 10, 30), id="nothing was pre-copied"),
        pytest.param([device(30, 0)], [(Wait.READ, 0, 0, 10, 11)], id="nothing was left to measure by"),
        pytest.param([device(30, 10)], [], id="it did not come to that"),
    ],
)
def test_where_there_is_nothing_to_tell_nothing_is_told(devices: list[DeviceReport], pieces: list[Piece]) -> None:
    source = side("source", devices, *pieces)
    assert precopy_saving(source) is None
    assert source_result("pool", 1, 1, SideResult(source)).precopy_saved_ms is None


def shown(*sources: SideReport) -> str:
    runs = [
        run_result("pool", number + 1, 1, pair(replace(result("source"), report=source), result("destination")))
        for number, source in enumerate(sources)
    ]
    scenario = parse_scenario({"name": "s", "devices": [{"plugin": "vfio"}]}, "s")
    console = Console(file=io.StringIO(), width=100)
    console.print(render(lab_result(scenario, runs, None), 100))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_result_and_the_table_say_what_moved_before_the_stop() -> None:
    source = side("source", [device(30, 10), device(0, 0)], *moved(0, 10, 30))
    run = run_result("pool", 1, 1, pair(replace(result("source"), report=source), result("destination")))
    assert (run.bytes_before_stop, run.bytes_after_stop, run.bytes) == (30 * MIB, 10 * MIB, 40 * MIB)
    assert [(one.bytes_before_stop, one.bytes_after_stop) for one in run.devices] == [(30 * MIB, 10 * MIB), (0, 0)]
    assert run.precopy_saved_ms == pytest.approx(60.0)
    faster = side("source", [device(30, 10), device(0, 0)], *moved(0, 10, 20))
    assert "Pre-copy     30/40 MiB moved before the stop, which saved about 60.0 ms of downtime\n" in shown(source)
    assert "which saved about 45.0 ms of downtime (30.0-60.0)" in shown(source, faster)
    assert "Pre-copy" not in shown(side("source", [device(0, 10), device(0, 0)], *moved(0, 10, 30)))


def test_what_is_left_after_precopy_is_the_least_of_all_runs() -> None:
    one = [StateCosts(stop=0.01, read=0.5, shared_lock="fw"), None]
    other = [StateCosts(stop=0.01, read=0.3, write=0.1, shared_lock="fw"), StateCosts()]
    assert least_costs([one, other]) == [StateCosts(stop=0.01, read=0.3, shared_lock="fw"), None]
