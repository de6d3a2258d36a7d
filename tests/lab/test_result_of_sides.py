"""What is told of a run, from what its two sides say."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from migpool.device import StateCosts
from migpool.lab.analysis.declared_costs import device_costs
from migpool.lab.result_of_sides import lab_result, run_result, source_result, with_bound
from migpool.lab.run.result import LabResult, LowerBound
from migpool.lab.run.side import SideResult
from migpool.migration.report import DeviceReport
from migpool.migration.states import State
from migpool.scenario.schema import load_scenario
from tests.support.lab_reports import MIB, freed, pair, report, result


def test_a_result_crosses_between_processes_as_it_is() -> None:
    for side in (result("source"), result("destination", State.FAILED, "no"), SideResult(report("source"), (), "x")):
        assert SideResult.from_json(json.loads(json.dumps(side.to_json()))) == side


def test_a_completed_run_has_every_number() -> None:
    run = run_result("pool", 2, 7, pair(result("source"), result("destination")))
    assert (run.model, run.repeat, run.seed, run.outcome, run.verified) == ("pool", 2, 7, "completed", None)
    assert run.downtime_ms == pytest.approx(20)
    assert run.total_ms == pytest.approx(40)
    assert run.bytes == 3 * MIB
    assert (run.threads_peak, run.threads.source, run.threads.destination) == (10, 4, 6)
    assert run.memory.high_water_bytes == 2 * MIB
    assert sum(run.attribution.values()) == pytest.approx(20)
    assert [device.verified for device in run.devices] == [True, None]
    assert (run.succeeded, run.uncompared) == (True, ["rtc"])


@pytest.mark.parametrize(
    ("ended", "outcome", "error"),
    [
        (pair("it crashed", result("destination", State.FAILED, "gone")), "failed", "source: it crashed"),
        (pair(result("source", State.FAILED, "gone"), "it crashed"), "failed", "destination: it crashed"),
        (
            pair(result("source", State.FAILED, "gpu: no"), result("destination", State.FAILED, "ended early")),
            "failed",
            "source: gpu: no",
        ),
        (
            pair(
                result("source", State.FAILED, "gone", peer_gone=True), result("destination", State.FAILED, "gpu: no")
            ),
            "failed",
            "destination: gpu: no",
        ),
        (
            pair(
                result("source", State.FAILED, "gone", peer_gone=True),
                result("destination", State.FAILED, "ended early", peer_gone=True),
            ),
            "failed",
            "source: gone",
        ),
        (freed(pair("cancelled before it began", "no such plug-in")), "failed", "destination: no such plug-in"),
        (
            pair(result("source", State.UNCONFIRMED, "who knows"), result("destination")),
            "unconfirmed",
            "source: who knows",
        ),
        (
            pair(result("source", State.CANCELLED, "cancelled"), result("destination", State.FAILED), cancelled=True),
            "cancelled",
            "source: cancelled",
        ),
        (pair(result("source"), result("destination"), cancelled=True), "completed", ""),
    ],
)
def test_the_outcome_and_the_error_of_a_run(ended: object, outcome: str, error: str) -> None:
    run = run_result("pool", 1, 1, ended)  # type: ignore[arg-type]
    assert (run.outcome, run.error) == (outcome, error)
    assert run.succeeded is (outcome == "completed")
    assert run.verified is (None if outcome == "completed" else False)


def test_devices_that_cannot_be_closed_fail_the_run() -> None:
    broken = SideResult(report("destination"), (), "closing the devices: stuck")
    run = run_result("pool", 1, 1, pair(result("source"), broken))
    assert (run.outcome, run.verified) == ("failed", False)
    assert run.error == "destination: closing the devices: stuck"


def test_a_source_alone_leaves_out_what_the_destination_knows() -> None:
    run = source_result("pool", 1, 1, result("source"))
    assert run.succeeded
    assert run.threads.destination is None
    assert run.memory.budget_bytes is None
    assert run.attribution == {}


def test_a_shared_lock_counts_only_if_both_ends_have_it() -> None:
    source, destination = result("source"), result("destination")
    assert device_costs(source, destination) == list(source.costs)
    without = SideResult(destination.report, (StateCosts(), None))
    assert device_costs(source, without) == [StateCosts(read=0.5), None]


def test_the_file_is_read_back_as_it_was_written() -> None:
    bound = LowerBound(milliseconds=5.0, limited_by="the link", parts={"the link": 5.0})
    run = with_bound(run_result("pool", 1, 1, pair(result("source"), result("destination"))), bound)
    assert run.lower_bound_ms == 5.0
    assert run.efficiency == pytest.approx(0.25)
    written = lab_result(load_scenario("small"), [run], bound)
    text = written.to_json()
    assert LabResult.model_validate_json(text) == written
    assert json.loads(text)["schema"] == 1


def test_all_that_a_side_reports_of_a_device_is_its_row_in_the_file_and_read_back() -> None:
    run = run_result("pool", 1, 1, pair(result("source"), result("destination")))
    written = lab_result(load_scenario("small"), [run], None)
    (row, _) = json.loads(written.to_json())["runs"][0]["devices"]
    assert row.keys() == {field.name for field in fields(DeviceReport)} | {"bytes_after_stop"}
    assert LabResult.model_validate_json(written.to_json()).runs[0].devices == run.devices
