"""Fuzzes with atheris (libFuzzer): ``python -m tests.fuzz all --seconds 60``.

Each target runs in a process of its own, begins with the seeds and what earlier runs found (``.fuzz/corpus``), and
leaves an input that fails in ``.fuzz/found``. A smoke run gives every target a few seconds; for a long run give hours::

    python -m tests.fuzz all --seconds 60              all targets share a minute
    python -m tests.fuzz inspection --seconds 86400    one target for a day
    python -m tests.fuzz all --inputs 10000000         until each has had ten million, in as many runs as that takes
    python -m tests.fuzz all --blind --inputs 10000000 the same without atheris: ten times as many a second, not guided
    python -m tests.fuzz inspection --input FILE       one input again

How many inputs each target has had is counted in ``.fuzz/inputs``, also by a run that was killed, and printed.

Guided and blind inputs are counted together. The exit code is 1 if an input failed, 2 if atheris is wanted and not
there (``pip install 'migpool[fuzz]'``).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import itertools
import logging
import mmap
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PLACE: Final = Path(".fuzz")
LONGEST: Final = 1 << 18
INSTRUMENTED: Final = 5.0
"""Seconds for one input, with code that counts every branch it takes."""
SPARE_TIME: Final = 120.0
LONG: Final = 365 * 86400.0
_COUNT: Final = struct.Struct("<Q")


def main() -> int:
    """Run what was asked for."""
    if sys.argv[1:2] == ["--child"]:
        return _fuzz(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    if sys.argv[1:2] == ["--blind-child"]:
        return _fuzz_blindly(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    from tests.fuzz.fuzz_seeds import SEEDS

    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", choices=["all", *SEEDS])
    parser.add_argument("--seconds", type=float, help="altogether; 60, or no limit with --inputs")
    parser.add_argument("--inputs", type=int, default=0, help="end each target that has had so many since it was begun")
    parser.add_argument("--blind", action="store_true", help="change seeds at random, without atheris")
    parser.add_argument("--input", type=Path, help="run this one input alone, without atheris")
    given = parser.parse_args()
    if given.input is not None:
        return _once(given.target, given.input)
    if not given.blind and importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed: pip install 'migpool[fuzz]'", file=sys.stderr)  # noqa: T201
        return 2
    names = list(SEEDS) if given.target == "all" else [given.target]
    seconds = given.seconds or (LONG if given.inputs else 60.0)
    failed = [name for name in names if _child(name, seconds / len(names), given.inputs, given.blind)]
    print(f"fuzz: {len(names)} targets, failed: {', '.join(failed) or 'none'}")  # noqa: T201
    return 1 if failed else 0


def _child(name: str, seconds: float, inputs: int, blind: bool) -> bool:
    """Fuzz one target in a process of its own, since libFuzzer ends the one it is in; whether that failed."""
    had, begun = had_inputs(name), time.monotonic()
    if inputs and had >= inputs:
        print(f"fuzz: {name}: {had} inputs in all")  # noqa: T201
        return False
    left = inputs - had if inputs else -1
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--blind-child" if blind else "--child",
        name,
        str(max(1, round(seconds))),
        str(left),
    ]
    failed = _fails(command, name, seconds)
    now, took = had_inputs(name), time.monotonic() - begun
    print(f"fuzz: {name}: {now - had} inputs in {took:.0f} s, {now} in all", flush=True)  # noqa: T201
    return failed


def _fails(command: list[str], name: str, seconds: float) -> bool:
    try:
        return subprocess.run(command, timeout=seconds + SPARE_TIME, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        print(f"fuzz: {name} did not end", file=sys.stderr)  # noqa: T201
        return True


def _once(name: str, path: Path) -> int:
    from tests.fuzz.fuzz_budget import memory_within, time_within
    from tests.fuzz.fuzz_targets import TARGETS

    data = path.read_bytes()
    time_within(TARGETS[name], data, 1.0)
    memory_within(TARGETS[name], data)
    return 0


def had_inputs(name: str, folder: Path = PLACE / "inputs") -> int:
    """How many inputs a target has had in all runs."""
    path = folder / name
    return int(_COUNT.unpack(path.read_bytes())[0]) if path.exists() else 0


def counter(name: str, folder: Path = PLACE / "inputs") -> Iterator[None]:
    """Counts in a file at each step: libFuzzer leaves its process without a word, and may be killed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    begun = had_inputs(name, folder)
    path.write_bytes(_COUNT.pack(begun))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), _COUNT.size) as place:
        for number in itertools.count(begun + 1):
            _COUNT.pack_into(place, 0, number)
            yield


def _fuzz(name: str, seconds: int, runs: int) -> int:
    from tests.fuzz.fuzz_budget import time_within

    atheris = importlib.import_module("atheris")  # only where it is installed
    # Modules that were imported before would not be instrumented.
    with atheris.instrument_imports(include=["migpool", "migpool_plugins"]):
        from tests.fuzz.fuzz_seeds import SEEDS
        from tests.fuzz.fuzz_targets import TARGETS
    target = TARGETS[name]
    seeds, corpus, found = PLACE / "seeds" / name, PLACE / "corpus" / name, PLACE / "found"
    for folder in (seeds, corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[name]():
        (seeds / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed[:LONGEST])
    options = [
        *(f"-max_total_time={seconds}", f"-runs={runs}", f"-max_len={LONGEST}", "-rss_limit_mb=1024"),
        *("-timeout=20", "-verbosity=0", "-print_final_stats=0", f"-artifact_prefix={found}/{name}-"),
    ]
    counted = counter(name)

    def run(data: bytes) -> None:
        next(counted)
        time_within(target, bytes(data), INSTRUMENTED)

    atheris.Setup([name, *options, str(corpus), str(seeds)], run)
    atheris.Fuzz()
    return 0


def _fuzz_blindly(name: str, seconds: int, runs: int) -> int:
    from tests.fuzz.fuzz_blind import fuzz_blindly
    from tests.fuzz.fuzz_seeds import SEEDS
    from tests.fuzz.fuzz_targets import BLIND

    logging.getLogger().addHandler(logging.NullHandler())
    corpus, found = PLACE / "corpus" / name, PLACE / "found"
    found.mkdir(parents=True, exist_ok=True)

    def keep(data: bytes) -> Path:
        path = found / f"{name}-blind-{hashlib.sha256(data).hexdigest()[:16]}"
        path.write_bytes(data)
        return path

    seeds = [*SEEDS[name](), *(path.read_bytes() for path in sorted(corpus.glob("*")))]
    had = had_inputs(name)
    fuzz_blindly(BLIND[name], seeds, had, runs, seconds, counter(name), keep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
