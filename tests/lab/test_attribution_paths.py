"""The whole critical path of traces that are made so that it is known: one device, one thread, the main channel."""

from __future__ import annotations

import pytest

from migpool.core.effects import Wait
from migpool.errors import UsageError
from migpool.lab.analysis.critical_path import attribute
from tests.support.attribution.attribution_spans import Row, side_report, split, told
from tests.support.attribution.waited import on_path

A, B, C, S, T = range(5)

STOPS: list[Row] = [(Wait.STOP, A, -1, 0, 3, "main"), (Wait.STOP, B, -1, 3, 5, "main")]


def test_stops_starts_and_pauses_of_the_migration_itself() -> None:
    assert told(split(STOPS, [(Wait.START, A, -1, 7, 9, "main")], stopped=0, running=10)) == [
        (0, 3, "device stop", "a", ""),
        (3, 5, "device stop", "b", ""),
        (5, 7, "network", "", ""),  # the destination had nothing to do until the source had stopped
        (7, 9, "start", "a", ""),
        (9, 10, "cpu", "", ""),
    ]


def test_what_began_before_the_stop_or_ends_after_the_start_is_clipped() -> None:
    trace = split([(Wait.STOP, A, -1, -5, 3, "main")], [(Wait.START, A, -1, 4, 20, "main")], stopped=0, running=10)
    assert told(trace) == [(0, 3, "device stop", "a", ""), (3, 4, "network", "", ""), (4, 10, "start", "a", "")]


def test_without_any_span_the_trace_says_nothing() -> None:
    assert told(split([], [], stopped=0, running=10)) == [(0, 10, "other", "", "")]


def test_one_device_from_stop_to_start() -> None:
    source: list[Row] = [
        (Wait.STOP, A, -1, 0, 5, "main"),
        (Wait.QUEUED, A, -1, 6, 7, "dev-a"),
        (Wait.READ, A, 0, 7, 30, "dev-a"),
        (Wait.CREDIT, A, 0, 30, 30, "dev-a"),
        (Wait.SEND, A, 0, 30, 34, "dev-a"),
        (Wait.READ, A, 1, 34, 35, "dev-a"),
        (Wait.LOCK, A, 1, 35, 36, "dev-a"),
        (Wait.SAVE_CONFIG, A, 1, 36, 46, "dev-a"),
        (Wait.SEND, A, 1, 47, 49, "dev-a"),
        (Wait.JOIN, -1, -1, 8, 50, "main"),
    ]
    destination: list[Row] = [
        (Wait.QUEUED, A, -1, 7, 8, "dev-a"),
        (Wait.STARVED, A, 0, 8, 37, "dev-a"),
        (Wait.RECEIVE, A, 0, 31, 36, "channel-0"),
        (Wait.WRITE, A, 0, 37, 44, "dev-a"),
        (Wait.LOADED, A, 0, 44, 45, "dev-a"),
        (Wait.STARVED, A, 1, 45, 52, "dev-a"),
        (Wait.RECEIVE, A, 1, 50, 51, "channel-0"),
        (Wait.LOADED, A, 1, 52, 53, "dev-a"),
        (Wait.LOCK, A, 1, 53, 54, "dev-a"),
        (Wait.LOAD_CONFIG, A, 1, 54, 84, "dev-a"),
        (Wait.JOIN, -1, -1, 51, 85, "main"),
        (Wait.START, A, -1, 85, 86, "main"),
    ]
    whole = split(source, destination, stopped=0, running=86)
    assert told(whole) == [
        (0, 5, "device stop", "a", ""),
        (5, 6, "cpu", "", ""),
        (6, 7, "queued", "a", ""),
        (7, 30, "device read", "a", ""),
        (30, 34, "send", "a", ""),
        (34, 35, "device read", "a", ""),
        (35, 36, "cpu", "a", ""),  # nobody held the lock
        (36, 46, "save config", "a", ""),
        (46, 47, "cpu", "a", ""),
        (47, 49, "send", "a", ""),
        (49, 51, "network", "a", ""),
        (51, 52, "cpu", "a", ""),  # it had come; the job had to be woken
        (52, 53, "credit", "a", ""),
        (53, 54, "cpu", "a", ""),
        (54, 84, "load config", "a", ""),
        (84, 85, "cpu", "", ""),
        (85, 86, "start", "a", ""),
    ]
    assert whole.downtime == 86_000_000
    assert list(whole.kinds)[:3] == ["load config", "device read", "save config"]
    assert sum(whole.nanoseconds.values()) == whole.downtime
    assert whole.kinds["device read"] == 24
    assert on_path(whole) == {"a": 84.0, "": 2.0}
    sides = {(link.kind, link.side) for link in whole.links if link.kind in ("network", "send", "load config")}
    assert sides == {("network", "destination"), ("send", "source"), ("load config", "destination")}
    read = next(link for link in whole.links if link.kind == "device read")
    assert (read.thread, read.index, read.duration) == ("dev-a", 0, 23_000_000)


def test_one_thread_for_everything_is_walked_from_job_to_job() -> None:
    source: list[Row] = [
        (Wait.STOP, A, -1, 0, 1, "main"),
        (Wait.QUEUED, A, -1, 1, 2, "main"),
        (Wait.READ, A, 0, 2, 20, "main"),
        (Wait.SEND, A, 0, 20, 21, "main"),
        (Wait.QUEUED, B, -1, 22, 23, "main"),
        (Wait.READ, B, 0, 23, 40, "main"),
        (Wait.SEND, B, 0, 40, 41, "main"),
    ]
    destination: list[Row] = [
        (Wait.STARVED, B, 0, 30, 42, "main"),
        (Wait.WRITE, B, 0, 42, 89, "main"),
        (Wait.START, A, -1, 90, 98, "main"),
    ]
    assert [link[2:4] for link in told(split(source, destination, stopped=0, running=98))] == [
        ("device stop", "a"),
        ("queued", "a"),
        ("device read", "a"),
        ("send", "a"),
        ("cpu", ""),
        ("queued", "b"),
        ("device read", "b"),
        ("send", "b"),
        ("network", "b"),
        ("device write", "b"),
        ("cpu", ""),
        ("start", "a"),
    ]


def test_a_section_is_waited_for_until_the_source_wrote_it() -> None:
    source: list[Row] = [
        (Wait.STOP, A, -1, 0, 5, "main"),
        (Wait.LOCK, S, -1, 5, 6, "main"),
        (Wait.SAVE_CONFIG, S, -1, 6, 40, "main"),
        (Wait.SECTION, S, -1, 40, 42, "main"),
        (Wait.SAVE_CONFIG, T, -1, 42, 43, "main"),
        (Wait.SECTION, T, -1, 43, 43.5, "main"),
    ]
    destination: list[Row] = [
        (Wait.LOAD_CONFIG, S, -1, 44, 70, "main"),
        (Wait.LOAD_CONFIG, T, -1, 71, 85, "main"),
        (Wait.START, A, -1, 90, 98, "main"),
    ]
    assert told(split(source, destination, stopped=0, running=98)) == [
        (0, 5, "device stop", "a", ""),
        (5, 6, "cpu", "s", ""),
        (6, 40, "save config", "s", ""),
        (40, 42, "section", "s", ""),
        (42, 44, "network", "", ""),
        (44, 70, "load config", "s", ""),
        (70, 71, "cpu", "", ""),  # the second section had come meanwhile
        (71, 85, "load config", "t", ""),
        (85, 90, "cpu", "", ""),
        (90, 98, "start", "a", ""),
    ]


def test_the_end_of_the_stream_is_waited_for_until_the_source_has_joined_its_jobs() -> None:
    source: list[Row] = [
        (Wait.QUEUED, A, -1, 1, 2, "x"),
        (Wait.READ, A, 0, 2, 60, "x"),
        (Wait.SEND, A, 0, 60, 61, "x"),
        (Wait.JOIN, -1, -1, 3, 62, "main"),
    ]
    destination: list[Row] = [
        (Wait.WRITE, A, 0, 61, 62, "y"),
        (Wait.JOIN, -1, -1, 80, 81, "main"),
        (Wait.START, A, -1, 81, 98, "main"),
    ]
    assert told(split(source, destination, stopped=2, running=98)) == [
        (2, 60, "device read", "a", ""),
        (60, 61, "send", "a", ""),
        (61, 62, "cpu", "", ""),
        (62, 80, "network", "", ""),
        (80, 81, "cpu", "", ""),
        (81, 98, "start", "a", ""),
    ]


def test_a_submitter_that_is_blocked_at_the_source_holds_up_the_main_channel() -> None:
    source: list[Row] = [
        (Wait.STOP, A, -1, 0, 5, "main"),
        (Wait.READ, A, 0, 6, 40, "w"),
        (Wait.QUEUED, B, -1, 7, 40, "w"),
    ]
    destination: list[Row] = [(Wait.SETUP, A, -1, 42, 50, "main"), (Wait.START, A, -1, 50, 98, "main")]
    assert told(split(source, destination, stopped=0, running=98))[1:4] == [
        (5, 7, "cpu", "", ""),
        (7, 40, "queued", "b", "a"),
        (40, 42, "network", "", ""),
    ]


def test_a_job_that_was_submitted_before_other_work_holds_nobody_up_after_it() -> None:
    source: list[Row] = [
        (Wait.STOP, A, -1, 0, 5, "main"),
        (Wait.READ, A, 0, 6, 40, "w"),
        (Wait.QUEUED, B, -1, 7, 40, "w"),
        (Wait.SAVE_CONFIG, S, -1, 10, 20, "main"),
        (Wait.SECTION, S, -1, 25, 26, "main"),
    ]
    destination: list[Row] = [(Wait.LOAD_CONFIG, S, -1, 27, 50, "main"), (Wait.START, A, -1, 50, 98, "main")]
    assert told(split(source, destination, stopped=0, running=98))[2:6] == [
        (7, 10, "queued", "b", "a"),
        (10, 20, "save config", "s", ""),
        (20, 25, "cpu", "", ""),
        (25, 26, "section", "s", ""),
    ]


def test_an_item_without_a_span_was_written_before_what_the_source_does_meanwhile() -> None:
    source: list[Row] = [(Wait.STOP, A, -1, 0, 5, "main"), (Wait.SAVE_CONFIG, S, -1, 10, 60, "main")]
    destination: list[Row] = [(Wait.SETUP, A, -1, 20, 30, "main"), (Wait.START, A, -1, 30, 98, "main")]
    assert told(split(source, destination, stopped=0, running=98)) == [
        (0, 5, "device stop", "a", ""),
        (5, 10, "cpu", "", ""),
        (10, 20, "network", "", ""),
        (20, 30, "section", "a", ""),
        (30, 98, "start", "a", ""),
    ]


def test_times_that_are_not_of_one_clock_are_refused() -> None:
    ours, theirs = side_report("source", [], stopped=100, running=130), side_report("destination", [], running=30)
    with pytest.raises(UsageError, match=r"70\.000 ms before it was stopped at the source: the two ends' times"):
        attribute(ours, theirs)


def test_a_migration_that_failed_has_no_downtime() -> None:
    with pytest.raises(UsageError, match="only a migration that came to its end"):
        attribute(side_report("source", stopped=0), side_report("destination"))
