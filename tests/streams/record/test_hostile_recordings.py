"""A recording that somebody else made: whatever its index and its files are, there is an answer or one clear error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from migpool import streams
from migpool.errors import UsageError
from migpool.lab.report.table import console_for
from migpool.streams.record.explain import explain
from migpool.streams.record.index import INDEX, PAIR, Times
from migpool.streams.record.picture import picture
from migpool.streams.record.playable import playable
from migpool.streams.record.terminal import show
from tests.support import LONG
from tests.support.made_recordings import Made, Role, begin, end, first, ram_end, recording, state, sync

HOSTILE = "\x1b]0;own\x07\x9b2J\u202e</text><script>\ncompleted\r[red]\0\ud800"
VALUES: list[object] = [
    None, True, -1, 0, 256, 1 << 63, -(10**400), float("nan"), "", "..", "a\0b", "/etc/passwd", "000-source.bytes",
    "x" * 5000, HOSTILE, [],
]  # fmt: skip
CONTROL = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    main = [(0, begin(answers=True)), (5, ram_end() + end())]
    channel = [(1, first(0)), (2, sync(0)), (4, state("dev", 0, 100))]
    return recording(
        tmp_path / "r", [Made(Role.MAIN, None, main, [(6, b"\0\1\0\4\0\0\0\0")]), Made(Role.MULTIFD, 0, channel)]
    )


def used(directory: Path) -> None:
    """Do everything with a recording; a UsageError is an answer, everything else but success a failure."""
    for use in (shown, played):
        with contextlib.suppress(UsageError):
            assert not CONTROL.search(use(directory))


def shown(directory: Path) -> str:
    explanation = explain(directory)
    out = io.StringIO()
    console: Console = console_for(out)
    show(explanation, console)
    return out.getvalue() + picture(explanation)


def played(directory: Path) -> str:
    playable(directory, None)
    return ""


def opened(directory: Path) -> str:
    with streams.open(directory) as stream:
        stream.devices()
    return ""


def fields(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all values."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from fields(inner, (*path, key))


def test_every_field_of_an_index_at_its_extremes(made: Path) -> None:
    text = (made / INDEX).read_text()
    # One of each kind: the later of two connections.
    places = {tuple(key for key in place if isinstance(key, str)): place for place in fields(json.loads(text))}
    assert len(places) > 20
    for number, place in enumerate(places.values()):
        for value in VALUES if LONG else VALUES[number % 4 :: 4]:
            index = json.loads(text)
            holder = index
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = value
            (made / INDEX).write_text(json.dumps(index))
            used(made)


@pytest.mark.parametrize(
    "text",
    [b"", b"[" * 200_000, b"\xff\xfe{}", b"{}", b'"x"', b"9" * 10_000, b" " * (5 << 20)],
    ids=["empty", "deep", "no UTF-8", "nothing", "a text", "digits", "too long"],
)
def test_an_index_that_is_none(made: Path, text: bytes) -> None:
    (made / INDEX).write_bytes(text)
    with pytest.raises(UsageError, match=INDEX):
        explain(made)


def too_many(made: Path) -> None:
    index = json.loads((made / INDEX).read_text())
    index["connections"] = [dict(index["connections"][1], number=number) for number in range(5000)]
    (made / INDEX).write_text(json.dumps(index))


def in_its_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        before = Path.cwd()
        os.chdir(path.parent)  # such a path must be short
        try:
            sock.bind(path.name)
        finally:
            os.chdir(before)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link out": lambda path: path.symlink_to("/etc/passwd"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a directory": Path.mkdir,
    "a socket": bind,
    "nothing": lambda _: None,
}
FILES = [INDEX, "000-source.bytes", "000-source.times", "000-destination.bytes", "000-destination.times"]


@pytest.mark.parametrize("name", [*FILES, "001-source.bytes", "001-source.times"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_of_the_directory_is_refused(made: Path, name: str, kind: str) -> None:
    in_its_place(NO_FILES[kind])(made / name)
    for use in (explain, played, opened):
        with pytest.raises(UsageError):
            use(made)


def test_a_fifo_that_is_named_for_nothing_is_not_opened(made: Path) -> None:
    index = json.loads((made / INDEX).read_text())
    flow = index["connections"][1]["source"]
    flow["recorded"] = flow["bytes"] = 0
    (made / INDEX).write_text(json.dumps(index))
    in_its_place(os.mkfifo)(made / flow["times"])
    with pytest.raises(UsageError, match="no file"):
        explain(made)


def test_more_connections_than_a_recording_has_are_refused(made: Path) -> None:
    too_many(made)
    with pytest.raises(UsageError, match="connections"):
        explain(made)


@pytest.mark.parametrize("change", [{"number": 0}, {"channel": None}, {"role": "main"}], ids=str)
def test_a_connection_that_no_recording_has_is_refused(made: Path, change: dict[str, object]) -> None:
    index = json.loads((made / INDEX).read_text())
    assert index["connections"][1].keys() >= change.keys()
    index["connections"][1] |= change
    (made / INDEX).write_text(json.dumps(index))
    with pytest.raises(UsageError, match="is none of a recording's"):
        explain(made)


@pytest.mark.parametrize("second", [(1, 9), (3, 8), (3, 7)], ids=["earlier", "nothing came", "less had come"])
def test_times_that_do_not_rise_are_refused(made: Path, second: tuple[int, int]) -> None:
    times = made / "001-source.times"
    times.write_bytes(PAIR.pack(2, 8) + PAIR.pack(*second))
    with pytest.raises(UsageError, match="do not rise"):
        list(Times(times).pairs())


@pytest.mark.parametrize("name", FILES)
def test_flipped_bytes(made: Path, name: str) -> None:
    good = (made / name).read_bytes()
    chosen = random.Random(name)
    for _ in range(60 if LONG else 15):
        damaged = bytearray(good)
        for _ in range(chosen.randint(1, 20)):
            damaged[chosen.randrange(len(damaged))] = chosen.randrange(256)
        (made / name).write_bytes(damaged)
        used(made)


def test_a_sparse_file_of_times_ends_at_its_first_hole(made: Path) -> None:
    os.truncate(made / "001-source.times", 4 << 30)
    with pytest.raises(UsageError, match="do not rise"):
        explain(made)
