"""The trace-event file: every span once, on tracks a viewer can draw, with arrows and the critical path."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, cast

import pytest

from migpool.core.effects import Wait
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.report.chrome_trace import TracedRun, chrome_trace
from migpool.migration.report import SideReport
from migpool.migration.states import State
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from tests.support.attribution.attribution_machine import Slow, migrate
from tests.support.attribution.attribution_spans import MS, Row, side_report


class Event(TypedDict, total=False):
    ph: str
    name: str
    pid: int
    tid: int
    ts: float
    dur: float
    cat: str
    id: int
    bp: str
    s: str
    args: dict[str, object]


def drawn(*runs: TracedRun) -> list[Event]:
    """The events, as a viewer reads them from the file."""
    read = json.loads(json.dumps(chrome_trace(runs)))
    assert read["displayTimeUnit"] == "ms"
    return cast("list[Event]", read["traceEvents"])


def of_phase(events: list[Event], phase: str) -> list[Event]:
    return [event for event in events if event["ph"] == phase]


def tracks(events: list[Event]) -> dict[tuple[int, int], list[Event]]:
    found = defaultdict(list)
    for event in of_phase(events, "X"):
        found[event["pid"], event["tid"]].append(event)
    return found


def names(events: list[Event], kind: str) -> dict[tuple[int, int], object]:
    return {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["name"] == kind}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[SideReport, SideReport]:
    def machine() -> list[Slow]:
        calls = {"load_state": 0.002, "load_config": 0.004}
        return [*(Slow(f"large-{n}", 5, calls) for n in range(3)), Slow("small", 0, calls)]

    where: Path = tmp_path_factory.mktemp("run")
    return migrate(machine(), machine(), PoolScheduler(), ReceiverScheduler(), where, workers=2)


def test_every_span_is_drawn_once(run: tuple[SideReport, SideReport]) -> None:
    source, destination = run
    events = drawn(TracedRun(source, destination, "a run"))
    processes = {name: pid for (pid, _), name in names(events, "process_name").items()}
    assert processes.keys() == {"a run: source", "a run: destination", "a run: critical path"}
    spans = of_phase(events, "X")
    for name, report in (("a run: source", source), ("a run: destination", destination)):
        drawn_here = [event for event in spans if event["pid"] == processes[name]]
        assert len(drawn_here) == len(report.spans)
        assert sum(event["dur"] for event in drawn_here) == pytest.approx(
            sum(span.duration for span in report.spans) / 1e3
        )
    threads = {str(name) for name in names(events, "thread_name").values()}
    assert {"source-worker_0", "channel-0", "destination", "large-0 (no thread)", "critical path"} <= threads
    assert all(key in names(events, "thread_name") for key in tracks(events))


def test_an_event_has_what_the_format_asks_for(run: tuple[SideReport, SideReport]) -> None:
    events = drawn(TracedRun(*run))
    assert {event["ph"] for event in events} == {"M", "X", "i", "s", "f"}
    for event in events:
        assert event["ts"] >= 0
        assert event["name"]
        assert event["pid"] > 0
        assert event["tid"] >= 0
    assert all(event["dur"] >= 0 for event in of_phase(events, "X"))
    assert [(event["name"], event["s"]) for event in of_phase(events, "i")] == [("stopped", "p"), ("running", "p")]
    write = next(event for event in of_phase(events, "X") if event["name"] == "device write")
    assert write["args"].keys() == {"device", "chunk"}


def test_spans_of_a_track_follow_or_contain_each_other(run: tuple[SideReport, SideReport]) -> None:
    for events in tracks(drawn(TracedRun(*run))).values():
        open_until: list[float] = []
        for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
            while open_until and open_until[-1] <= event["ts"] + 1e-6:
                open_until.pop()
            end = event["ts"] + event["dur"]
            assert not open_until or end <= open_until[-1] + 1e-6
            open_until.append(end)


def test_spans_of_one_thread_that_overlap_get_a_second_track() -> None:
    rows: list[Row] = [
        (Wait.READ, 0, 0, 10, 20, "x"),
        (Wait.READ, 1, 0, 15, 25, "x"),
        (Wait.SEND, 0, 0, 20, 30, "x"),
        (Wait.CHANNEL, 0, 0, 21, 24, "x"),
    ]
    events = drawn(TracedRun(side_report("source", rows, stopped=5), side_report("destination", running=40)))
    by_name = {name: tracks(events)[key] for key, name in names(events, "thread_name").items()}
    assert [event["name"] for event in by_name["x"]] == ["device read", "send", "channel"]
    assert [event["args"] for event in by_name["x (2)"]] == [{"device": "b", "chunk": 0}]


def test_what_a_job_waits_for_without_a_thread_stands_on_its_devices_own_track() -> None:
    rows: list[Row] = [
        (Wait.RECEIVE, 1, 0, 10, 20, "channel-0"),
        (Wait.STARVED, 0, 0, 15, 30, "channel-0"),
        (Wait.QUEUED, 1, -1, 5, 12, "channel-0"),
        (Wait.STARVED, 1, 0, 12, 20, "w"),
    ]
    events = drawn(TracedRun(side_report("source", stopped=5), side_report("destination", rows, running=40)))
    by_name = {name: tracks(events)[key] for key, name in names(events, "thread_name").items()}
    told = {name: [event["name"] for event in found] for name, found in by_name.items() if name != "critical path"}
    assert told == {
        "channel-0": ["receive"],
        "a (no thread)": ["starved"],
        "b (no thread)": ["queued"],
        "w": ["starved"],
    }


def test_an_arrow_leads_from_each_sending_to_what_was_done_with_the_chunk(run: tuple[SideReport, SideReport]) -> None:
    events = drawn(TracedRun(*run))
    begins = {event["id"]: event for event in of_phase(events, "s")}
    ends = {event["id"]: event for event in of_phase(events, "f")}
    assert begins.keys() == ends.keys()
    assert len(begins) == 3 * (5 + 1)  # five chunks and a config of each device
    at: dict[tuple[int, int, float], Event] = {
        (event["pid"], event["tid"], event["ts"]): event
        for event in of_phase(events, "X")
        if event["name"] in ("send", "device write", "load config")
    }
    for number, begin in begins.items():
        end = ends[number]
        assert end["bp"] == "e"
        sent = at[begin["pid"], begin["tid"], begin["ts"]]
        taken = at[end["pid"], end["tid"], end["ts"]]
        assert sent["name"] == "send"
        assert sent["args"] == taken["args"]


def test_the_critical_path_is_a_track_of_its_own_that_spans_the_downtime(run: tuple[SideReport, SideReport]) -> None:
    source, destination = run
    events = drawn(TracedRun(source, destination))
    (pid,) = (pid for (pid, _), name in names(events, "process_name").items() if name == "critical path")
    path = [event for event in of_phase(events, "X") if event["pid"] == pid]
    links = attribute(source, destination).links
    assert [event["name"] for event in path] == [link.kind for link in links]
    assert sum(event["dur"] for event in path) == pytest.approx((source.running - source.stopped) / 1e3)
    stopped, running = of_phase(events, "i")
    assert path[0]["ts"] == pytest.approx(stopped["ts"])
    assert path[-1]["ts"] + path[-1]["dur"] == pytest.approx(running["ts"])
    queued = next(event for event, link in zip(path, links, strict=True) if link.behind)
    assert str(queued["args"]["behind"]).startswith("large-")


def test_runs_lie_over_each_other_and_stop_at_the_same_place(run: tuple[SideReport, SideReport]) -> None:
    source, destination = run
    later = replace(source, stopped=source.stopped + 5 * MS)
    events = drawn(TracedRun(source, destination, "one"), TracedRun(later, destination, "other"))
    assert len(names(events, "process_name")) == 6
    stops = [event["ts"] for event in of_phase(events, "i") if event["name"] == "stopped"]
    assert stops[0] == pytest.approx(stops[1])
    assert min(event["ts"] for event in events) >= 0
    flows = of_phase(events, "s")
    assert len({event["id"] for event in flows}) == len(flows) == 36


def test_a_failed_run_is_drawn_without_a_critical_path() -> None:
    source = side_report("source", [(Wait.READ, 0, 0, 10, 20, "x")], outcome=State.FAILED)
    events = drawn(TracedRun(replace(source, stopped=0), side_report("destination", outcome=State.FAILED), "it"))
    assert set(names(events, "process_name").values()) == {"it: source", "it: destination"}
    assert [event["name"] for event in of_phase(events, "X")] == ["device read"]
    assert not of_phase(events, "i")


def test_no_runs_make_an_empty_picture() -> None:
    assert chrome_trace([])["traceEvents"] == []
