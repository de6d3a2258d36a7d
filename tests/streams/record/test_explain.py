"""What an explanation says of a recording, on a terminal and in a picture."""

from __future__ import annotations

import io
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from migpool.streams.record.explain import explain
from migpool.streams.record.index import load, store
from migpool.streams.record.picture import picture
from migpool.streams.record.terminal import show
from migpool.wire.multifd import ram_header_size
from migpool.wire.ramheader import RamPacketHeader, ram_header
from migpool.wire.returnpath import Pong, Shut, SwitchoverAck, encode
from tests.support.made_recordings import (
    MS,
    PAGE,
    Made,
    Role,
    begin,
    end,
    first,
    ram,
    ram_end,
    recording,
    state,
    switchover_start,
    sync,
)
from tests.support.other_streams import other
from tests.support.recording_rig import SIZE, record_migration

ACK, PONG, SHUT = (encode(message) for message in (SwitchoverAck(), Pong(1), Shut(0)))


def made(tmp_path: Path, machine: str = "made") -> Path:
    main = Made(
        Role.MAIN,
        None,
        [(0, begin(machine, answers=True)), (500, switchover_start()), (600, ram_end()), (700, end())],
        [(10, ACK + PONG[:3]), (20, PONG[3:]), (900, SHUT)],
    )
    busy = Made(
        Role.MULTIFD,
        0,
        [(1, first(0)), (100, ram(1, 9, 2) + sync(2)), (400, ram(4, 20)), (550, state("a", 0, 5000)), (601, sync(6))],
    )
    idle = Made(Role.MULTIFD, 1, [(2, first(1)), (101, sync(3)), (560, state("a", 1, 70)), (602, sync(7))])
    return recording(tmp_path / "made", [main, idle, busy])


def test_counts_times_and_switchover_are_those_of_the_bytes(tmp_path: Path) -> None:
    found = explain(made(tmp_path))
    assert (found.machine, found.complete, found.duration) == ("made", True, 900 * MS)
    main, busy, idle = found.channels
    assert [one.name for one in found.channels] == ["main channel", "channel 0", "channel 1"]
    assert main.syncs == 2
    assert (busy.packets, busy.pages, busy.zero_pages, busy.syncs, busy.device_packets) == (5, 29, 2, 2, 1)
    assert (idle.packets, idle.pages, idle.syncs, idle.device_packets) == (3, 0, 2, 1)
    assert (main.end, busy.end, idle.end) == (700 * MS, 601 * MS, 602 * MS)
    switchover = found.switchover
    assert (switchover.begin, switchover.ram_end) == (500 * MS, 600 * MS)
    assert (switchover.eof, switchover.shut, switchover.end) == (700 * MS, 900 * MS, 900 * MS)
    assert [(one.when, one.text) for one in found.answers] == [
        (10 * MS, "SWITCHOVER_ACK"),
        (20 * MS, "PONG 1"),
        (900 * MS, "SHUT 0"),
    ]
    (device,) = found.devices
    assert (device.idstr, device.packets, device.bytes, set(device.channels)) == ("a", 2, 5070, {0, 1})
    assert (device.first, device.last) == (550 * MS, 560 * MS)


def test_series_say_what_passed_in_each_interval(tmp_path: Path) -> None:
    found = explain(made(tmp_path))
    _, busy, _ = found.channels
    assert sum(busy.bytes_over_time) == busy.bytes
    assert sum(busy.packets_over_time) == busy.packets
    at = {when: when * MS // found.interval for when in (1, 100, 400, 550, 601)}
    assert busy.bytes_over_time[at[1]] == 64
    assert busy.bytes_over_time[at[400]] == len(ram(4, 20))
    assert busy.packets_over_time[at[100]] == 2
    assert {number for number, amount in enumerate(busy.bytes_over_time) if amount} == set(at.values())


def test_evenness_is_the_busiest_channel_over_the_mean(tmp_path: Path) -> None:
    found = explain(made(tmp_path))
    _, busy, idle = found.channels
    assert found.evenness == pytest.approx(2 * busy.bytes / (busy.bytes + idle.bytes))
    during = [288 + 5000 + ram_header_size(PAGE), 288 + 70 + ram_header_size(PAGE)]
    assert [one.switchover_bytes for one in (busy, idle)] == during
    assert found.switchover_evenness == pytest.approx(2 * during[0] / sum(during))


def test_a_recording_of_our_own_is_understood(tmp_path: Path) -> None:
    index, (sent, _) = record_migration(tmp_path)
    found = explain(tmp_path / "recording")
    assert found.machine == "machine"
    assert [one.idstr for one in sorted(found.devices, key=lambda one: one.idstr)] == [
        "device-0",
        "device-1",
        "device-2",
    ]
    assert all(one.bytes >= SIZE for one in found.devices)
    assert sum(one.device_packets for one in found.channels) == sum(one.packets for one in found.devices)
    assert sum(one.bytes for one in found.channels) == sum(one.source.bytes for one in index.connections)
    assert found.grants > 0
    assert [one.text for one in found.answers][-1] == "SHUT 0"
    assert not any(one.trouble for one in found.channels)
    begin_, end_ = found.switchover.begin, found.switchover.end
    assert begin_ is not None
    assert end_ is not None
    # The recorder and the source have one clock.
    stopped = sent.stopped - index.connections[0].begin
    assert stopped <= begin_ < end_ <= found.duration


def test_what_is_damaged_or_cut_short_is_explained_as_far_as_it_goes(tmp_path: Path) -> None:
    main = Made(Role.MAIN, None, [(0, begin())])
    channel = Made(Role.MULTIFD, 0, [(0, first(0) + ram(1, 3) + ram(2, 3)[:-5])])
    other = Made(Role.UNKNOWN, None, [(0, b"GET / HTTP")])
    directory = recording(tmp_path / "made", [main, channel, other], complete=False, reason="it was cancelled")
    found = explain(directory)
    assert (found.complete, found.reason) == (False, "it was cancelled")
    assert found.channels[1].pages == 3
    assert "multifd packet at byte" in found.channels[1].trouble
    assert "the end of the input" in found.channels[0].trouble
    assert found.channels[2].name == "connection 2"
    assert found.switchover.begin is None
    assert "NOT COMPLETE: it was cancelled" in shown(directory)


def test_a_recorder_that_was_killed_leaves_what_can_be_explained(tmp_path: Path) -> None:
    directory = made(tmp_path)
    index = load(directory)
    store(directory, replace(index, end=None, complete=False, reason="the recorder did not come to its end"))
    times = directory / index.connections[0].source.times
    times.write_bytes(times.read_bytes()[:-7])  # half a stamp
    assert explain(directory).channels[0].bytes == index.connections[0].source.bytes
    store(directory, replace(index, connections=(), end=None, complete=False, reason="no source has come"))
    assert explain(directory).channels == ()


def shown(directory: Path) -> str:
    out = io.StringIO()
    show(explain(directory), Console(file=out, width=110))
    return out.getvalue()


def test_the_terminal_shows_channels_devices_switchover_and_answers(tmp_path: Path) -> None:
    text = shown(made(tmp_path))
    for wanted in (
        "machine made, 900.0 ms, complete",
        "busiest multifd channel: 1.9",
        "SWITCHOVER_START at 500.0 ms, END of ram at 600.0 ms, EOF at 700.0 ms, SHUT at 900.0 ms; 400.0 ms in all",
        "return path: 10.0 ms SWITCHOVER_ACK",
    ):
        assert wanted in text, text


@pytest.mark.parametrize("machine", ["made", '</style><script>alert("&")</script>'])
def test_the_picture_is_well_formed_marks_the_switchover_and_fetches_nothing(tmp_path: Path, machine: str) -> None:
    found = explain(made(tmp_path, machine))
    text = picture(found)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    tags = [element.tag.partition("}")[2] for element in root.iter()]
    assert "script" not in tags
    assert "href" not in text
    assert text.count("http") == 1  # the name space
    assert tags.count("path") == len(found.channels)
    assert [element.text for element in root.iter() if element.get("class") == "marked"] == ["switchover, 400.0 ms"]
    assert "prefers-color-scheme: dark" in text


def test_a_picture_of_nothing(tmp_path: Path) -> None:
    ElementTree.fromstring(picture(explain(recording(tmp_path / "empty", [], complete=False, reason="no source"))))


def test_a_large_recording_takes_little_memory(tmp_path: Path) -> None:
    head = ram_header(RamPacketHeader(0, 1, "pc.ram", tuple(range(0, 128 * PAGE, PAGE)), (), 128 * PAGE))
    count = 1000
    directory = recording(
        tmp_path / "made",
        [Made(Role.MAIN, None, [(0, begin() + end())]), Made(Role.MULTIFD, 0, [(0, first(0))])],
    )
    size = 64 + count * (len(head) + 128 * PAGE)
    with (directory / "001-source.bytes").open("r+b") as file:
        for number in range(count):
            os.pwrite(file.fileno(), head, 64 + number * (len(head) + 128 * PAGE))
        file.truncate(size)  # a file with holes, half a GiB long
    index = load(directory)
    grown = replace(index.connections[1].source, bytes=size, recorded=size)
    store(directory, replace(index, connections=(index.connections[0], replace(index.connections[1], source=grown))))
    tracemalloc.start()
    try:
        found = explain(directory)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.channels[1].pages == 128 * count
    assert peak < 8 << 20


@pytest.mark.parametrize("name", ["colo-7.2", "colo-11.1"])
def test_what_a_destination_says_with_colo_is_told_behind_what_it_says_before(name: str, tmp_path: Path) -> None:
    """A destination of 7.2 says nothing before, and one of 11.1 the end of its return path."""
    before = b"" if name == "colo-7.2" else PONG + SHUT
    replies = b"".join(number.to_bytes(4, "big") for number in (0, 2, 5, 6))
    main = Made(Role.MAIN, None, [(0, other(name))], [(10, before + replies[:6]), (20, replies[6:]), (30, b"\x00\x00")])
    found = explain(recording(tmp_path / "made", [main]))
    assert found.channels[0].trouble == ""
    assert found.switchover.eof is not None
    assert [answer.text for answer in found.answers[:-4]] == (["PONG 1", "SHUT 0"] if before else [])
    assert [(answer.when, answer.text) for answer in found.answers[-4:]] == [
        (10 * MS, "COLO: CHECKPOINT_READY"),
        (20 * MS, "COLO: CHECKPOINT_REPLY"),
        (20 * MS, "COLO: VMSTATE_RECEIVED"),
        (20 * MS, "COLO: VMSTATE_LOADED"),
    ]
