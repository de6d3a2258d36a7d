"""Where the critical path goes from the waits of a job, on traces that are made so that the answer is known."""

from __future__ import annotations

import pytest

from migpool.core.effects import Wait
from migpool.lab.analysis.why import analyse
from migpool.lab.report.table import device_times
from tests.support.attribution.attribution_spans import Row, side_report, split, told
from tests.support.attribution.waited import waited_behind

A, B, C = range(3)

END: list[Row] = [(Wait.JOIN, -1, -1, 10, 90, "main"), (Wait.START, A, -1, 90, 98, "main")]


def test_a_join_leads_to_the_job_that_ended_last() -> None:
    destination: list[Row] = [
        (Wait.LOAD_CONFIG, A, 1, 20, 85, "x"),
        (Wait.LOAD_CONFIG, B, 1, 30, 70, "y"),
        (Wait.LOAD_CONFIG, C, 1, 10, 60, "z"),
        *END,
    ]
    path = told(split([], destination, stopped=0, running=98))
    assert path[-3:] == [(20, 85, "load config", "a", ""), (85, 90, "cpu", "", ""), (90, 98, "start", "a", "")]


def test_a_chunk_sent_before_the_wait_began_is_network_all_the_way() -> None:
    source: list[Row] = [(Wait.SEND, A, 1, 11, 12, "x")]
    destination: list[Row] = [
        (Wait.WRITE, A, 0, 20, 30, "y"),
        (Wait.STARVED, A, 1, 30, 60, "y"),
        (Wait.WRITE, A, 1, 60, 90, "y"),
        *END,
    ]
    assert told(split(source, destination, stopped=0, running=98))[-4:-1] == [
        (20, 30, "device write", "a", ""),
        (30, 60, "network", "a", ""),
        (60, 90, "device write", "a", ""),
    ]


def test_a_chunk_that_was_here_is_no_wait_for_the_source() -> None:
    source: list[Row] = [(Wait.SEND, A, 1, 11, 12, "x")]
    destination: list[Row] = [
        (Wait.WRITE, A, 0, 20, 30, "y"),
        (Wait.RECEIVE, A, 1, 12, 13, "channel-0"),
        (Wait.STARVED, A, 1, 30, 32, "y"),
        (Wait.WRITE, A, 1, 32, 90, "y"),
        *END,
    ]
    assert (30, 32, "cpu", "a", "") in told(split(source, destination, stopped=0, running=98))


def test_a_chunk_nobody_sent_is_starved() -> None:
    destination: list[Row] = [(Wait.STARVED, A, 1, 30, 32, "y"), (Wait.WRITE, A, 1, 32, 90, "y"), *END]
    assert told(split([], destination, stopped=30, running=98))[0] == (30, 32, "starved", "a", "")


def test_a_wait_for_room_leads_to_the_load_that_gave_it_back() -> None:
    source: list[Row] = [
        (Wait.READ, A, 1, 5, 10, "x"),
        (Wait.CREDIT, A, 1, 10, 40, "x"),
        (Wait.SEND, A, 1, 40, 50, "x"),
    ]
    destination: list[Row] = [
        (Wait.WRITE, A, 0, 5, 36, "y"),
        (Wait.LOADED, A, 0, 36, 38, "y"),
        (Wait.STARVED, A, 1, 38, 53, "y"),
        (Wait.WRITE, A, 1, 53, 90, "y"),
        *END,
    ]
    assert told(split(source, destination, stopped=5, running=98))[:5] == [
        (5, 36, "device write", "a", ""),
        (36, 38, "credit", "a", ""),
        (38, 40, "credit", "a", ""),
        (40, 50, "send", "a", ""),
        (50, 53, "network", "a", ""),
    ]


def test_a_wait_for_room_of_which_nothing_is_known_stays_a_credit() -> None:
    source: list[Row] = [
        (Wait.READ, A, 1, 5, 10, "x"),
        (Wait.CREDIT, A, 1, 10, 40, "x"),
        (Wait.SEND, A, 1, 40, 50, "x"),
    ]
    destination: list[Row] = [(Wait.STARVED, A, 1, 0, 53, "y"), (Wait.WRITE, A, 1, 53, 90, "y"), *END]
    path = told(split(source, destination, stopped=5, running=98))
    assert path[:2] == [(5, 10, "device read", "a", ""), (10, 40, "credit", "a", "")]


def test_the_wait_for_a_channel_is_taken_out_of_the_send_and_names_whose_chunk_was_sent() -> None:
    source: list[Row] = [
        (Wait.SEND, A, 0, 10, 40, "x"),
        (Wait.CHANNEL, A, 0, 11, 35, "x"),
        (Wait.SEND, B, 0, 12, 35, "z"),
        (Wait.SEND, C, 0, 5, 20, "w"),
    ]
    destination: list[Row] = [(Wait.STARVED, A, 0, 5, 40, "y"), (Wait.WRITE, A, 0, 40, 90, "y"), *END]
    assert told(split(source, destination, stopped=10, running=98))[:3] == [
        (10, 11, "send", "a", ""),
        (11, 35, "channel", "a", "b"),
        (35, 40, "send", "a", ""),
    ]


def test_a_wait_for_the_lock_stays_with_the_waiter_and_is_charged_to_each_holder() -> None:
    destination: list[Row] = [
        (Wait.WRITE, A, 0, 5, 12, "x"),
        (Wait.LOCK, A, 1, 12, 60, "x"),
        (Wait.LOAD_CONFIG, B, 1, 10, 35, "y"),
        (Wait.LOAD_CONFIG, C, 1, 35, 59, "z"),
        (Wait.LOAD_CONFIG, A, 1, 60, 90, "x"),
        *END,
    ]
    whole = split([], destination, stopped=5, running=98)
    assert told(whole)[:4] == [
        (5, 12, "device write", "a", ""),
        (12, 35, "lock", "a", "b"),
        (35, 60, "lock", "a", "c"),
        (60, 90, "load config", "a", ""),
    ]
    assert waited_behind(whole, "lock") == {"c": 25.0, "b": 23.0}
    found = analyse(side_report("source", stopped=5), side_report("destination", destination, running=98), 1 << 20)
    assert found is not None
    times = device_times(found, side_report("source").devices)
    assert {name: times[name].path for name in "abc"} == {"a": 45.0, "b": 23.0, "c": 25.0}
    assert {name: times[name].held for name in "abc"} == {"a": {}, "b": {"a": 23.0}, "c": {"a": 25.0}}
    assert waited_behind(whole, "device write") == {"": 7.0}


def test_a_lock_of_the_other_side_is_another_lock() -> None:
    source: list[Row] = [(Wait.SAVE_CONFIG, B, 1, 10, 60, "y")]
    destination: list[Row] = [(Wait.LOCK, A, 1, 12, 60, "x"), (Wait.LOAD_CONFIG, A, 1, 60, 90, "x"), *END]
    assert told(split(source, destination, stopped=12, running=98))[0] == (12, 60, "cpu", "a", "")


def test_a_job_is_queued_behind_those_its_worker_ran_and_its_submitter_with_it() -> None:
    """One worker, three devices; submitting blocks while it is busy."""
    source: list[Row] = [
        (Wait.STOP, A, -1, 0, 10, "main"),
        (Wait.QUEUED, A, -1, 10, 11, "w"),
        (Wait.READ, A, 0, 11, 30, "w"),
        (Wait.QUEUED, B, -1, 12, 30, "w"),
        (Wait.READ, B, 0, 30, 50, "w"),
        (Wait.QUEUED, C, -1, 31, 50, "w"),
        (Wait.READ, C, 0, 50, 80, "w"),
        (Wait.SEND, C, 0, 80, 85, "w"),
        (Wait.JOIN, -1, -1, 52, 86, "main"),
    ]
    destination: list[Row] = [(Wait.STARVED, C, 0, 5, 85, "y"), (Wait.WRITE, C, 0, 85, 90, "y"), *END]
    whole = split(source, destination, stopped=0, running=98)
    assert told(whole)[:5] == [
        (0, 10, "device stop", "a", ""),
        (10, 12, "cpu", "", ""),
        (12, 31, "queued", "b", "a"),
        (31, 50, "queued", "c", "b"),
        (50, 80, "device read", "c", ""),
    ]
    assert waited_behind(whole, "queued") == {"a": 19.0, "b": 19.0}


def test_a_starved_job_keeps_a_worker_from_the_next_one() -> None:
    source: list[Row] = [(Wait.SEND, B, 0, 20, 21, "x")]
    destination: list[Row] = [
        (Wait.STARVED, A, 0, 10, 50, "w"),
        (Wait.WRITE, A, 0, 50, 55, "w"),
        (Wait.QUEUED, B, -1, 12, 56, "w"),
        (Wait.WRITE, B, 0, 56, 90, "w"),
        *END,
    ]
    path = told(split(source, destination, stopped=12, running=98))
    assert path[:2] == [(12, 56, "queued", "b", "a"), (56, 90, "device write", "b", "")]


def test_a_chunk_in_a_socket_is_queued_behind_what_the_channels_thread_loads() -> None:
    source: list[Row] = [(Wait.READ, A, 0, 5, 20, "x"), (Wait.SEND, A, 0, 20, 22, "x")]
    destination: list[Row] = [
        (Wait.RECEIVE, B, 0, 8, 9, "channel-0"),
        (Wait.STARVED, B, 0, 3, 9, "channel-0"),
        (Wait.WRITE, B, 0, 9, 58, "channel-0"),
        (Wait.LOADED, B, 0, 58, 60, "channel-0"),
        (Wait.STARVED, B, 1, 60, 80, "channel-0"),
        (Wait.RECEIVE, A, 0, 62, 65, "channel-0"),
        (Wait.STARVED, A, 0, 4, 65, "channel-0"),
        (Wait.WRITE, A, 0, 65, 90, "channel-0"),
        *END,
    ]
    assert told(split(source, destination, stopped=5, running=98))[:5] == [
        (5, 20, "device read", "a", ""),
        (20, 22, "send", "a", ""),
        (22, 60, "queued", "a", "b"),
        (60, 65, "network", "a", ""),
        (65, 90, "device write", "a", ""),
    ]


@pytest.mark.parametrize(
    ("loads", "found"),
    [
        (B, [(20, 60, "queued", "a", "b"), (60, 65, "send", "a", "")]),
        (A, [(9, 60, "device write", "a", ""), (60, 65, "send", "a", "")]),
    ],
    ids=["another device: queued", "the device itself: its write"],
)
def test_a_send_that_a_busy_channels_thread_holds_up(loads: int, found: list[tuple[object, ...]]) -> None:
    source: list[Row] = [(Wait.READ, A, 1, 5, 20, "x"), (Wait.SEND, A, 1, 20, 65, "x")]
    destination: list[Row] = [
        (Wait.RECEIVE, loads, 0, 8, 9, "channel-0"),
        (Wait.WRITE, loads, 0, 9, 60, "channel-0"),
        (Wait.RECEIVE, A, 1, 61, 65, "channel-0"),
        (Wait.STARVED, A, 1, 60, 65, "channel-0"),
        (Wait.WRITE, A, 1, 65, 90, "channel-0"),
        *END,
    ]
    path = told(split(source, destination, stopped=9, running=98))
    assert [link for link in path if link in found] == found


def test_waits_that_seem_to_wait_for_each_other_end_the_walk_all_the_same() -> None:
    """At 50 the load waits for a chunk that waits for room that the load gives; no clock makes such a trace."""
    source: list[Row] = [(Wait.CREDIT, A, 1, 20, 55, "x"), (Wait.SEND, A, 1, 45, 58, "x")]
    destination: list[Row] = [
        (Wait.LOADED, A, 0, 48, 50, "main"),
        (Wait.STARVED, A, 1, 30, 60, "main"),
        (Wait.START, A, -1, 60, 61, "main"),
    ]
    assert told(split(source, destination, stopped=30, running=50)) == [(30, 50, "starved", "a", "")]
