"""Thousands of cuts and damages of each capture, through the command itself: for a long run by hand.

``python -m tests.streams.inspect.many_damages CAPTURE ... [--count 5000] [--seed 1]``

A CAPTURE is a stream in a file, plain or packed by gzip or xz, or the directory of a recording, or a tar file of one or
the other. Half of the inputs are cut somewhere, and half have one to four bytes changed; four in five are a file, the
others come on the other ways in. One in 50 goes through the whole command line, the others call the command's
function. The same seed makes the same inputs. What the command does wrong is printed with its
input, which is kept; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import random
import shutil
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from migpool.wire.stream import FILE_MAGIC, POSTCOPY_RESUMED
from tests.support.damaged_streams import (
    WAYS,
    Names,
    as_file,
    by_command,
    by_function,
    check_cut,
    named,
    names_within,
    walked,
)

say: Final = partial(print, flush=True)
BEGINNINGS: Final = (FILE_MAGIC, POSTCOPY_RESUMED)
_MOST: Final = 8
"""Findings of one capture that are shown."""


def captures(paths: Sequence[Path], folder: Path) -> Iterator[tuple[str, bytes | Path]]:
    """Each stream or recording by its name."""
    for number, path in enumerate(paths):
        if path.is_dir():
            yield str(path), path
        elif ".tar" in path.name:
            inside = folder / str(number)
            with tarfile.open(path) as archive:
                archive.extractall(inside, filter="data")
            indices = sorted({file.parent for file in inside.rglob("index.json")})
            files = [file for file in sorted(inside.rglob("*")) if file.is_file() and file.parent not in indices]
            yield from captures([*indices, *files], folder / f"in{number}")
        else:
            data = path.read_bytes()
            for magic, unpack in ((b"\x1f\x8b", gzip.decompress), (b"\xfd7zXZ", lzma.decompress)):
                data = unpack(data) if data.startswith(magic) else data
            if data.startswith(BEGINNINGS):
                yield str(path), data


def damaged(stream: bytes, draw: random.Random) -> bytes:
    """The stream with one to four bytes changed."""
    changed = bytearray(stream)
    for _ in range(draw.randint(1, 4)):
        changed[draw.randrange(len(changed))] ^= draw.randint(1, 255)
    return bytes(changed)


def try_stream(stream: bytes, whole: Names, folder: Path, draw: random.Random) -> None:
    """One cut or damage of a stream."""
    run = by_command if draw.random() < 0.02 else by_function
    way = "as_file" if draw.random() < 0.8 else draw.choice(sorted(WAYS))
    if draw.random() < 0.5:
        size = draw.randint(1, len(stream) - 1)
        document = check_cut(run, folder, way, stream, whole, size)
        if way != "as_file":
            assert named(document) == named(walked(as_file(run, folder, stream[:size], "--json"))), (
                "other sections by file"
            )
        return
    changed = damaged(stream, draw)
    if changed.startswith(BEGINNINGS):
        devices = ["--device", "*"] if draw.random() < 0.5 and "FULL" in dict(whole) else []  # if there are any
        walked(WAYS[way](run, folder, changed, "--json", *devices))


def try_recording(recording: Path, folder: Path, draw: random.Random) -> None:
    """One cut or damage of one file of a recording."""
    copy = folder / "recording"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(recording, copy)
    file = draw.choice(sorted(path for path in copy.iterdir() if path.stat().st_size))
    data = file.read_bytes()
    file.write_bytes(data[: draw.randrange(len(data))] if draw.random() < 0.5 else damaged(data, draw))
    ended = by_function(str(copy), *draw.choice([[], ["--json"], ["--device", "*"]]))
    assert ended.code in (0, 1, 2), ended
    assert "should not have happened" not in ended.err, ended.err
    assert ended.out or ended.err.startswith("migpool: "), ended


def main(arguments: Sequence[str]) -> int:
    """Try all captures; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("captures", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    wrong = tried = 0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made, "work")
        folder.mkdir()
        for name, capture in captures(chosen.captures, Path(made)):
            whole = [] if isinstance(capture, Path) else names_within(capture)
            begun, found = time.monotonic(), 0
            for number in range(chosen.count):
                draw = random.Random(f"{chosen.seed} {number} {Path(name).name}")
                try:
                    if isinstance(capture, Path):
                        try_recording(capture, folder, draw)
                    else:
                        try_stream(capture, whole, folder, draw)
                except Exception:  # noqa: BLE001 -- whatever it is, it is a finding
                    found += 1
                    if found <= _MOST:
                        kept = Path(tempfile.mkdtemp(prefix="finding-"))
                        shutil.copytree(
                            folder, kept / "input", ignore=lambda _, names: [n for n in names if n == "fifo"]
                        )
                        say(f"{name}, number {number}: kept in {kept}\n{traceback.format_exc()}")
            wrong, tried = wrong + found, tried + chosen.count
            say(f"{name}: {chosen.count} inputs, {found} wrong, {time.monotonic() - begun:.0f} s")
    say(f"{tried} inputs, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
