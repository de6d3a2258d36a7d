"""What a command writes survives: full disks and pipes, closed streams, files that were there before."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from migpool.cli import output
from migpool.cli.output import check_writable, write, write_all
from migpool.errors import MigpoolError, UsageError
from tests.support import LONG

LIMIT = 60
BEFORE = '{"schema": 1}\n'


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no disk takes a byte more, as far as this module's writes go."""

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.usefixtures("full")
def test_a_full_disk_leaves_the_file_that_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(BEFORE)
    with pytest.raises(MigpoolError, match=r"result\.json cannot be written: No space left on device"):
        write(path, "x" * 100_000)
    assert path.read_text() == BEFORE
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_whole_and_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    path, link = tmp_path / "result.json", tmp_path / "link.json"
    path.write_text(BEFORE)
    path.chmod(0o640)
    link.symlink_to(path)
    write(link, "new\n")
    assert link.is_symlink()
    assert path.read_text() == "new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(tmp_path.iterdir()) == [link, path]


def test_a_new_file_has_the_mode_that_the_mask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "new", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_what_is_no_file_is_just_written(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write(fifo, "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_one_file_that_cannot_be_written_keeps_no_other_from_it(tmp_path: Path) -> None:
    with pytest.raises(MigpoolError, match="nowhere"):
        write_all({tmp_path / "nowhere" / "a": "a", tmp_path / "b": "b"})
    assert (tmp_path / "b").read_text() == "b"


def test_places_that_cannot_be_written_are_found_before_the_work(tmp_path: Path) -> None:
    check_writable(None, tmp_path / "new", Path("-"), Path("/dev/null"))
    with pytest.raises(UsageError, match="is a directory: name a file"):
        check_writable(tmp_path)
    with pytest.raises(UsageError, match="there is no directory"):
        check_writable(tmp_path / "nowhere" / "new")
    with pytest.raises(UsageError, match="only one file can go to standard output"):
        check_writable(Path("-"), Path("-"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["plugins"], ["scenario", "show", "small"]])
def test_a_full_stdout_is_told_in_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as nowhere:
        done = command(arguments, stdout=nowhere)
    assert (done.returncode, done.stderr) == (1, "migpool: stdout cannot be written: No space left on device\n")


@pytest.mark.parametrize("closed", [(0, 1, 2), (1,)] if LONG else [(0, 1, 2)])
def test_streams_that_are_closed_are_nobody_elses(closed: tuple[int, ...], tmp_path: Path) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    made = tmp_path / "made.svg"
    done = command(["run", "small", "-m", "inline", "--picture", str(made)], before=close)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert made.read_text().startswith("<svg")


def test_a_full_stdout_loses_no_result(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as nowhere:
        done = command(["run", "small", "-m", "inline", "--json", str(tmp_path / "r.json")], stdout=nowhere)
    assert done.returncode == 1
    assert json.loads((tmp_path / "r.json").read_text())["runs"][0]["outcome"] == "completed"


def test_json_on_stdout_is_nothing_but_json() -> None:
    done = command(["run", "small", "-m", "inline", "--json", "-"])
    assert done.returncode == 0
    assert json.loads(done.stdout)["runs"][0]["outcome"] == "completed"
    assert "Downtime" in done.stderr


def test_a_reader_that_goes_away_is_no_error_of_ours() -> None:
    read, wrote = os.pipe()
    os.close(read)
    try:
        done = command(["plugins"], stdout=wrote)
    finally:
        os.close(wrote)
    assert done.stderr == ""


def test_stdout_keeps_its_encoding_and_its_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="latin-1", errors="replace") as file:
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setattr(sys, "__stdout__", file)
        output.open_standard_streams()
        found = sys.stdout
        assert isinstance(found, io.TextIOWrapper)
        assert (found.encoding, found.errors) == ("latin-1", "replace")
        output.say("\u2192 \xe4")
        assert output.end_stdout() == ""
    assert (tmp_path / "out").read_bytes() == b"? \xe4\n"


def command(
    arguments: list[str], stdout: object = subprocess.PIPE, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-m", "migpool", *arguments],
        stdout=stdout,  # type: ignore[call-overload] # whatever it takes
        stderr=subprocess.PIPE,
        text=True,
        timeout=LIMIT,
        check=False,
        preexec_fn=before,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": ""},
    )
    return done
