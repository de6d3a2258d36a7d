"""What came out: verdicts beside what QEMU did, as a page of the docs, and as streams that are kept for the tests."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.compare.sides import compare_sides, read_side
from migpool.streams.inspect.boundaries import Boundaries
from migpool.vmsd.diff import Verdict, compatibility
from migpool.wire.ram import RamPages
from migpool.wire.stream import StreamReader, emit
from migpool.wire.vmdesc import find
from tests.qemu.matrix.loading import ROOT, Outcome
from tests.qemu.matrix.options import DISK
from tests.qemu.matrix.pairs import Pair

NAMES: Final = {Verdict.LOADS: "loads", Verdict.CANNOT_TELL: "cannot tell", Verdict.BREAKS: "breaks"}
PAGE: Final = ROOT / "docs" / "vmsd-diff.md"
BEGIN: Final = "<!-- made by make qemu-matrix from here on -->\n"
KEPT: Final = ROOT / "tests" / "data" / "vmsd-pairs"
CHOSEN: Final = (
    "rom-size", "memory-size", "memory-block-renamed", "type-version", "device-moved", "device-added", "net-mtu",
    "net-mq", "virtio-ats", "virtio-page-per-vq", "port-slot", "serial-port-added", "gpu-outputs", "usb-ports",
    "no-tco", "e1000-registers", "e1000e-subsystem", "no-footers", "no-configuration", "no-description", "video-memory",
    "capability-x-ignore-shared", "capability-validate-uuid", "7.2-10.0-none", "7.2-10.0-bare", "10.0-11.1-usb",
    "firmware-7.2-10.0-virtio-blk", "firmware-serial", "firmware-features-iommu-platform",
)  # fmt: skip
"""Pairs of every kind, whose streams are kept."""
_DRIVE: Final = DISK.strip()
_SHOWN: Final = 110


@dataclass(frozen=True)
class Result:
    """One pair, in both directions.

    Arguments:
        pair: which.
        streams: what A and B wrote.
        verdicts: on the way from A to B, and back.
        outcomes: what QEMU did.
    """

    pair: Pair
    streams: tuple[Path, Path]
    verdicts: tuple[Verdict, Verdict]
    outcomes: tuple[Outcome, Outcome]

    @property
    def wrong(self) -> list[str]:
        """Every verdict that QEMU contradicts."""
        ways = zip(("from a to b", "from b to a"), self.verdicts, self.outcomes, strict=True)
        return [
            f"{self.pair.name}, {way}: the verdict is {NAMES[verdict]}, and QEMU {_did(outcome)}"
            for way, verdict, outcome in ways
            if verdict is (Verdict.BREAKS if outcome.loads else Verdict.LOADS)
        ]


def judge(streams: Sequence[Path]) -> tuple[Verdict, Verdict]:
    """What migpool says of two streams, in both directions."""
    worst = compatibility(compare_sides(*(read_side(path) for path in streams)).changes)
    return worst.forward, worst.backward


def table(results: Sequence[Result]) -> Iterator[str]:
    """How often which verdict met which outcome."""
    count = Counter(
        (verdict, outcome.loads)
        for result in results
        for verdict, outcome in zip(result.verdicts, result.outcomes, strict=True)
    )
    yield f"| {len(results)} pairs, both directions | QEMU loads | QEMU refuses |"
    yield "|---|---|---|"
    for verdict in (Verdict.LOADS, Verdict.CANNOT_TELL, Verdict.BREAKS):
        yield f"| {NAMES[verdict]} | {count[verdict, True]} | {count[verdict, False]} |"


def write_page(results: Sequence[Result], versions: Mapping[str, str]) -> None:
    """Put the tables in the docs."""
    text = PAGE.read_text("utf-8").partition(BEGIN)[0]
    lines = [f"With {', '.join(versions.values())}:", "", *table(results), ""]
    lines += ["| pair | A | B | from A to B | from B to A |", "|---|---|---|---|---|"]
    for result in results:
        ways = [_way(*both) for both in zip(result.verdicts, result.outcomes, strict=True)]
        machines = [f"`{machine.title.replace(_DRIVE, '-drive ...')}`" for machine in (result.pair.a, result.pair.b)]
        lines.append(f"| {' | '.join([result.pair.name, *machines, *ways])} |")
    PAGE.write_text(text + BEGIN + "\n" + "\n".join(lines) + "\n", "utf-8")


def _way(verdict: Verdict, outcome: Outcome) -> str:
    return f"{NAMES[verdict]}; QEMU {_did(outcome)}"


def _did(outcome: Outcome) -> str:
    message = outcome.message.replace("|", "/").replace("`", "'")
    return "loads" if outcome.loads else f"refuses: {message[:_SHOWN]}"


def keep(results: Iterable[Result]) -> None:
    """Keep streams of the chosen pairs for the tests, without the pages of memory: nobody else's program is in them."""
    chosen = [result for result in results if result.pair.name in CHOSEN]
    assert {result.pair.name for result in chosen} == {*CHOSEN}
    KEPT.mkdir(exist_ok=True)
    streams = sorted({path for result in chosen for path in result.streams})
    with tarfile.open(KEPT / "streams.tar.xz", "w:xz", preset=9) as archive:
        for path in streams:
            content = without_pages(path.read_bytes())
            entry = tarfile.TarInfo(path.name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    entries = [
        {
            "name": result.pair.name,
            "a": {"stream": result.streams[0].name, "machine": result.pair.a.title},
            "b": {"stream": result.streams[1].name, "machine": result.pair.b.title},
            "verdicts": [NAMES[verdict] for verdict in result.verdicts],
            "outcomes": [asdict(outcome) for outcome in result.outcomes],
        }
        for result in chosen
    ]
    (KEPT / "pairs.json").write_text(json.dumps(entries, indent=1) + "\n", "utf-8")


def without_pages(stream: bytes) -> bytes:
    """The same stream without the pages of memory that it has."""
    try:
        offset, text = find(stream)
        boundaries = Boundaries(text, offset)
    except ProtocolError:
        boundaries = Boundaries()
    reader = StreamReader(boundaries, older=True)
    boundaries.reader = reader
    reader.feed(stream)
    boundaries.ended = True
    events = list(reader.events())
    reader.end()
    events += list(reader.events())
    footers = reader.footers is not False
    kept = [event for event in events if not isinstance(event, RamPages)]
    return b"".join(bytes(part) for event in kept for part in emit(event, footers=footers))
