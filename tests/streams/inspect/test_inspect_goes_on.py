"""Streams of real machines that go on: behind their end with COLO, on another channel after a break of a postcopy."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random

import pytest

from migpool import streams
from migpool.streams.inspect.reading import inspect_bytes
from migpool.wire.stream import emit
from tests.support.damaged_streams import by_function, check_cut, names_within
from tests.support.inspections import inspect_pipe
from tests.support.other_streams import other, other_path

COLO = {"colo-7.2": 1, "colo-11.1": 3}
"""How many checkpoints each has; a source of 7.2 says ENABLE_COLO before."""
RESUMED = "postcopy-resumed"
REQUEST, SEND, SIZE = (number.to_bytes(4, "big") for number in (1, 3, 4))


@pytest.mark.parametrize("name", COLO)
def test_every_checkpoint_is_walked_and_its_devices_are_shown(name: str) -> None:
    with streams.open(other_path(name)) as stream:
        summary = stream.summary
        timers = stream.devices("timer")
        devices = stream.devices()
    states = COLO[name] + 1
    assert summary.problem is None
    assert summary.walked == len(other(name))
    assert {section.count for section in summary.sections if section.kind in ("END", "FULL")} == {states}
    assert [note.partition(" of COLO")[0] for note in summary.notes] == [
        "1 checkpoint" if states == 2 else f"{states - 1} checkpoints"
    ]
    assert all(device.exact for device in devices)
    assert len(devices) == len({device.section.offset for device in devices}) == states * 15
    clocks = [int(str((timer.fields or {})["cpu_clock_offset"]), 16) for timer in timers]
    assert len(clocks) == states
    assert clocks == sorted(set(clocks))


@pytest.mark.parametrize("name", [*COLO, RESUMED])
def test_what_goes_on_comes_by_a_pipe_as_by_a_file_and_is_written_again_byte_for_byte(name: str) -> None:
    stream = other(name)
    assert repr(inspect_pipe(io.BytesIO(stream))) == repr(inspect_bytes(stream))
    with streams.open(other_path(name)) as opened:
        assert b"".join(bytes(part) for item in opened for part in emit(item)) == stream


@pytest.mark.parametrize("name", [*COLO, RESUMED])
def test_what_goes_on_and_was_cut_is_shown_as_far_as_it_goes(name: str, tmp_path: Path) -> None:
    stream, draw = other(name), Random(name)
    whole = names_within(stream)
    for size in (*(draw.randrange(16, len(stream)) for _ in range(8)), len(stream) - 1):
        assert check_cut(by_function, tmp_path, "as_file", stream, whole, size)["walked"] != 0


def test_a_checkpoint_that_the_destination_did_not_reply_to_ends_behind_its_request() -> None:
    stream = other("colo-7.2")
    assert inspect_bytes(stream + REQUEST).problem is None
    assert inspect_bytes(stream + bytes(512)).notes[-2].startswith("512 zeros stand behind the stream's end")
    assert inspect_bytes(stream + REQUEST[:3]).problem is None, "zeros"
    for more, where, said in (
        (REQUEST + SIZE, 4, "3, found 4"),
        (REQUEST + SEND + b"\x05", 8, "found 05"),
        (REQUEST + SEND + b"\x00" + SEND, 9, "4, found 3"),
        (REQUEST + SEND + b"\x00" + SIZE + bytes(7) + b"\x02\x00", 21, "2 bytes as VMSTATE_SIZE says, found 1"),
    ):
        problem = inspect_bytes(stream + more).problem
        assert problem is not None
        assert problem.offset == len(stream) + where
        assert said in problem.expected


def test_a_postcopy_that_goes_on_is_understood_without_the_channel_that_broke(tmp_path: Path) -> None:
    summary = inspect_bytes(other(RESUMED))
    assert summary.problem is None
    assert summary.walked == summary.size == len(other(RESUMED))
    assert [(section.kind, section.idstr) for section in summary.sections] == [("PART", "ram"), ("END", "ram")]
    assert {block.name: (block.normal, block.zero) for block in summary.blocks} == {
        "pc.ram": (32, 15616),
        "/rom@etc/acpi/tables": (3, 29),
        "pc.rom": (0, 32),
        "pc.bios": (1, 15),
        "/rom@etc/table-loader": (1, 0),
        "/rom@etc/acpi/rsdp": (1, 0),
    }
    (tmp_path / "stream").write_bytes(other(RESUMED))
    shown = by_function(str(tmp_path / "stream"))
    assert "a post-copy that goes on after a break" in shown.out
    assert "size not stated here: 15648 pages (32 normal, 15616 zero)" in shown.out
    strange = inspect_bytes(other(RESUMED).replace(b"\x06pc.ram", b"\x06pc.rom", 1))
    assert strange.problem is not None
    assert "block" in strange.problem.expected
