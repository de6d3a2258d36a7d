"""Habits of every command: no colours where none are wanted, and one thing is not told as several."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from migpool.units import count_of
from tests.support.commandline import here, scenario_file

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
SEVERAL = re.compile(r"(?<![\d.])\b1 (?!yes\b)[a-z]{2,}(?<![us])s\b|(?<![\d.])\b1 (?:more )?[a-z]+ (?:are|were|have)\b")


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "migpool", *arguments]
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**clean, "TERM": "xterm-256color", **environment}
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while more := os.read(ours, 1 << 16):
                written += more
        except OSError:  # the terminal's other end is closed
            pass
        process.wait(40)
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plugins", "--help"],
        ["run", "small", "-v"],
        ["receive", "-v", "small", "--listen", "tcp:256.0.0.1:1"],
    ],
)
def test_no_color_is_honoured(arguments: list[str]) -> None:
    assert COLOUR.search(on_a_terminal(*arguments, NO_COLOR="1")) is None


def test_there_are_colours_otherwise() -> None:
    assert COLOUR.search(on_a_terminal("--help"))
    assert COLOUR.search(on_a_terminal("run", "small", "-v"))


ONE = """
[channels]
count = 1
transport = "unix"
[memory]
chunk = "64KiB"
[compare]
models = ["poll"]
repeats = 1
"""


def test_one_of_everything_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = scenario_file(tmp_path / "one.toml", ['plugin = "vfio"\noptions = {profile = "tiny"}'], ONE)
    wrong = scenario_file(tmp_path / "wrong.toml", ['plugin = "vfio"\noptions = {devices = [{}, {}]}'], ONE)
    fault = '{device = 1, kind = "error"}'
    faulty = scenario_file(tmp_path / "faulty.toml", [f'plugin = "vfio"\noptions = {{fault = {fault}}}'], ONE)
    for words in (
        ["scenario", "check", one],
        ["compare", one, "--no-report"],
        ["run", one],
        ["scenario", "check", wrong],
        ["scenario", "check", faulty],
        ["run", wrong],
    ):
        ended = here(*words)
        assert SEVERAL.findall(ended.out + ended.err) == [], words
    assert [count_of(number, "device") for number in (0, 1, 2)] == ["0 devices", "1 device", "2 devices"]


def test_the_search_for_several_finds_them() -> None:
    assert SEVERAL.search("with 1 devices")
    assert SEVERAL.search("1 more are")
    assert SEVERAL.search("1 bus was, 1 class is") is None
