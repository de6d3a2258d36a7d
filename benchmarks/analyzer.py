"""Beside QEMU's own analyzer of streams: the same values, how many kinds of stream each reads, and how fast.

``python -m benchmarks.analyzer SCRIPT [FILE ...] [--size 1GiB] [--rounds 5]``

SCRIPT is ``scripts/analyze-migration.py`` of a QEMU's sources, which is not part of this project. Each FILE (a stream,
in gzip or not) is read by both, and the fields of every device are compared by name and value. Then both read a stream
of so many bytes of pages, in turns, each as a process of its own: on the clock and in CPU seconds, of the whole and
without what the start of the process takes. A shared machine stretches time, so it ends with 1 if a value differs, or
where the ratio of CPU seconds for the pages is below five.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console

from migpool.units import MIB, parse_size
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.ram import RamBlock, block_list, pages, ram_section_end
from migpool.wire.sections import Kind, SectionHead, head_bytes, section
from migpool.wire.stream import eof, header, vm_description

WANTED: Final = 5.0
LIMIT: Final = 600.0
say: Final = partial(Console(soft_wrap=True).print, highlight=False, markup=False)
PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that a process took."""

    wall: float
    cpu: float


def run(command: Sequence[str]) -> tuple[subprocess.CompletedProcess[str], Cost]:
    """Run a process to its end; modules are compiled once, as they are where a package is installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False, env=kept)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended, Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def theirs(script: Path, stream: Path) -> list[str]:
    """QEMU's analyzer on a stream."""
    return [sys.executable, str(script), "-f", str(stream)]


def ours(stream: Path) -> list[str]:
    """The same of ours: every section, and the fields of every device."""
    return [sys.executable, "-m", "migpool", "inspect", str(stream), "--json", "--device", "*"]


def compare(script: Path, stream: Path) -> tuple[bool, bool, int, list[str]]:
    """Whether each reads a stream, how many devices have the same fields in both, and what differs."""
    known, _ = run(theirs(script, stream))
    found, _ = run(ours(stream))
    read = (known.returncode == 0, found.returncode == 0)
    if not all(read):
        return *read, 0, []
    document: dict[str, Any] = json.loads(found.stdout)
    fields = _fields(document)
    same, differing = 0, []
    for name, value in json.loads(known.stdout).items():
        if value == "":  # a section whose contents it passes over
            continue
        if fields.get(name) == value:
            same += 1
        else:
            differing.append(name)
    return *read, same, differing


def _fields(document: Mapping[str, Any]) -> dict[str, object]:
    """The fields under the names that QEMU's analyzer has for sections."""
    numbers = {(one["idstr"], one["instance_id"]): one["section_id"] for one in reversed(document["sections"])}
    found = {
        f"{one['idstr']} ({numbers[one['idstr'], one['instance_id']]})": one["fields"] for one in document["devices"]
    }
    lengths = {block["name"]: f"{block['used_length']:#018x}" for block in document["ram"]["blocks"]}
    for (idstr, instance), number in numbers.items():
        if (idstr, instance) == ("ram", 0):
            found[f"ram ({number})"] = {"section sizes": lengths}
    return found


def make_stream(path: Path, size: int) -> None:
    """A stream of so many bytes of pages, with a description and one small device."""
    start = SectionHead(Kind.START, 2, "ram", 0, 4)
    part = SectionHead(Kind.PART, 2, "", 0, 0)
    with path.open("wb") as file:
        file.write(header() + configuration(Configuration("none")))
        file.write(head_bytes(start) + block_list([RamBlock("pc.ram", size)]) + ram_section_end(2))
        content = bytes(range(256)) * (PAGE // 256)
        for begin in range(0, size, 4 * MIB):
            entries = [(at, content) for at in range(begin, min(begin + 4 * MIB, size), PAGE)]
            file.write(head_bytes(part))
            file.writelines(pages("pc.ram", entries))
            file.write(ram_section_end(2))
        file.writelines(section(SectionHead(Kind.FULL, 3, "timer", 0, 1), bytes(4)))
        field = {"name": "ticks", "type": "uint32", "size": 4}
        device = {"name": "timer", "instance_id": 0, "vmsd_name": "timer", "version": 1, "fields": [field]}
        text = json.dumps({"page_size": PAGE, "devices": [device]}).encode()
        file.writelines([eof(), *vm_description(text)])


def race(script: Path, folder: Path, size: int, rounds: int) -> float:
    """Have both read a stream of pages in turns, print what they took, and return the ratio of CPU seconds for pages.

    What a process takes for a stream without pages is its start, and not the pages'.
    """
    streams = {"start": folder / "small", "whole": folder / "large"}
    make_stream(streams["start"], MIB)
    make_stream(streams["whole"], size)
    costs: dict[str, list[tuple[Cost, Cost]]] = {"start": [], "whole": []}
    for number in range(rounds + 1):
        for name, stream in streams.items():
            calls, pair = (theirs(script, stream), ours(stream)), [Cost(0, 0), Cost(0, 0)]
            for which in (0, 1) if number % 2 else (1, 0):
                ended, pair[which] = run(calls[which])
                if ended.returncode:
                    raise SystemExit(f"{' '.join(calls[which])} failed: {ended.stderr[-400:]}")
            if number:  # the first one warms up
                costs[name].append((pair[0], pair[1]))
    for name, kind in (("start", "wall"), ("start", "cpu"), ("whole", "wall"), ("whole", "cpu")):
        show(f"{name}, {kind}", [(getattr(one, kind), getattr(other, kind)) for one, other in costs[name]])
    ratios: dict[str, float] = {}
    for kind in ("wall", "cpu"):
        begun = [median(getattr(pair[which], kind) for pair in costs["start"]) for which in (0, 1)]
        pairs = [(getattr(one, kind) - begun[0], getattr(other, kind) - begun[1]) for one, other in costs["whole"]]
        ratios[kind] = show(f"pages, {kind}", pairs)
    return ratios["cpu"]


def show(name: str, times: Sequence[tuple[float, float]]) -> float:
    """Print a row, and return the median ratio."""
    each = sorted(known / found for known, found in times)
    known, found = (median(pair[which] for pair in times) for which in (0, 1))
    say(f"{name:12}{known:9.2f} s{found:9.2f} s   ratio {median(each):.2f}, {each[0]:.2f} to {each[-1]:.2f}")
    return median(each)


def main(arguments: Sequence[str]) -> int:
    """Compare and race; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("script", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--size", type=parse_size, default=1024 * MIB)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(arguments)
    wrong = False
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "stream")
        rows: list[tuple[str, bool, bool, int, list[str]]] = []
        for file in chosen.files:
            data = file.read_bytes()
            plain.write_bytes(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
            rows.append((file.name, *compare(chosen.script, plain)))
        for name, _, _, _, differing in rows:
            if differing:
                say(f"{name}: other values in {', '.join(differing)}")
                wrong = True
        if rows:
            read = sum(row[1] for row in rows), sum(row[2] for row in rows)
            alone = [[row[0] for row in rows if row[1:3] == only] for only in ((True, False), (False, True))]
            say(f"{len(rows)} streams: QEMU's analyzer reads {read[0]}, migpool {read[1]}; "
                  f"{sum(row[3] for row in rows)} sections with the same values")  # fmt: skip
            say(f"only QEMU's: {', '.join(alone[0]) or 'none'}; only migpool: {', '.join(alone[1]) or 'none'}")
        if chosen.size:
            say(f"{chosen.size // MIB} MiB of pages, {chosen.rounds} rounds: QEMU's analyzer, migpool")
            wrong |= race(chosen.script, Path(folder), chosen.size, chosen.rounds) < WANTED
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
