"""The commands ``record`` and ``replay`` as a user types them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from migpool.migration.states import State
from migpool.streams.record.index import load
from tests.support.commandline import here
from tests.support.recording_rig import Background, Waiting, devices, place, record_migration
from tests.support.rig import LIMIT


def migpool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "migpool", *arguments], capture_output=True, text=True, timeout=LIMIT, check=False
    )


def test_a_recording_is_replayed(tmp_path: Path) -> None:
    record_migration(tmp_path)
    recording = tmp_path / "recording"
    waiting = Waiting(tmp_path, devices(3, state=False))
    ended = migpool("replay", str(recording), "--to", str(waiting.address), "--order", "seed:7", "--channels", "2")
    sent = sum(one.source.bytes for one in load(recording).connections)
    assert ended.stderr == ""
    assert ended.stdout == f"{recording}: accepted: the destination said SHUT 0 ({sent} bytes sent)\n"
    assert ended.returncode == 0
    assert waiting.report().outcome is State.COMPLETED


def test_a_destination_that_refuses_is_exit_code_1_and_one_line(tmp_path: Path) -> None:
    record_migration(tmp_path)
    waiting = Waiting(tmp_path, devices(3, state=False), name="other")
    ended = here("replay", str(tmp_path / "recording"), "--to", str(waiting.address), "--speed", "full")
    waiting.report()
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("migpool: the destination said SHUT 1: configuration at byte 8")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--channels", "4"], "has 2 multifd channels and the destination 4"),
        (["--order", "random"], "--order 'random' is none: write recorded or seed:N"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_line(tmp_path: Path, arguments: list[str], line: str) -> None:
    record_migration(tmp_path)
    ended = here("replay", str(tmp_path / "recording"), "--to", "unix:nowhere", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert line in ended.err
    assert ended.err.count("\n") == 1


def test_record_says_where_it_listens_and_what_it_has(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, devices(1, state=False))
    near = place("unix", tmp_path, "near")
    arguments = ["record", str(tmp_path / "new"), "--listen", str(near), "--to", str(waiting.address)]
    process = subprocess.Popen(
        [sys.executable, "-m", "migpool", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == f"listening on {near}\n"
        (tmp_path / "other").mkdir()
        record_migration(tmp_path / "other", count=1)
        replayed = Background(
            lambda: migpool("replay", str(tmp_path / "other" / "recording"), "--to", str(near), "--speed", "full")
        )
        assert replayed.result().returncode == 0
        assert process.wait(LIMIT) == 0
        assert process.stdout.read().startswith(f"{tmp_path / 'new'}: complete: 3 connections, ")
        assert process.stderr.read() == ""
    assert waiting.report().outcome is State.COMPLETED
    first, second = load(tmp_path / "other" / "recording"), load(tmp_path / "new")
    assert [one.source.bytes for one in first.connections] == [one.source.bytes for one in second.connections]
