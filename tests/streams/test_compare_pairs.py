"""Verdicts on pairs of streams that real QEMUs wrote, beside what these did when they loaded them.

The pairs are of ``make qemu-matrix``, which judges all of them; here are some of every kind, without pages of memory.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from migpool.streams.compare.sides import Comparison, compare_sides, read_side
from migpool.vmsd.diff import Verdict, compatibility
from tests.support import DATA

KEPT = DATA / "vmsd-pairs"
PAIRS: Sequence[dict[str, Any]] = json.loads((KEPT / "pairs.json").read_text("utf-8"))
NAMES = {"loads": Verdict.LOADS, "cannot tell": Verdict.CANNOT_TELL, "breaks": Verdict.BREAKS}


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    with tarfile.open(KEPT / "streams.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def compared(streams: Path, pair: dict[str, Any]) -> Comparison:
    return compare_sides(*(read_side(streams / pair[side]["stream"]) for side in "ab"))


@pytest.mark.parametrize("pair", PAIRS, ids=[pair["name"] for pair in PAIRS])
def test_a_verdict_is_what_qemu_does(streams: Path, pair: dict[str, Any]) -> None:
    found = compared(streams, pair)
    worst = compatibility(found.changes)
    for verdict, recorded, outcome in zip(
        (worst.forward, worst.backward), pair["verdicts"], pair["outcomes"], strict=True
    ):
        assert verdict is not (Verdict.BREAKS if outcome["loads"] else Verdict.LOADS), outcome["message"]
        assert verdict is NAMES[recorded]
    assert found.unseen
    assert all(change.reason and "\n" not in change.reason for change in found.changes)


def test_the_pairs_have_every_verdict_and_outcome() -> None:
    seen = {
        (verdict, outcome["loads"])
        for pair in PAIRS
        for verdict, outcome in zip(pair["verdicts"], pair["outcomes"], strict=True)
    }
    assert seen == {("loads", True), ("cannot tell", True), ("cannot tell", False), ("breaks", False)}
    assert len(PAIRS) >= 20


@pytest.mark.parametrize(
    ("name", "path", "reason"),
    [
        ("rom-size", "memory 0000:00:01.0/virtio-net-pci.rom", "64.0 KiB at the source and 128 KiB at the destination"),
        ("memory-size", "memory pc.ram", "32.0 MiB at the source and 64.0 MiB"),
        ("memory-block-renamed", "memory mem0", "the destination has no block of this name"),
        ("type-version", "machine type", "the source is a pc-q35-9.2, the destination a pc-q35-10.0"),
        ("device-moved", "0000:00:01.0/virtio-rng", "the destination has no such device"),
        ("port-slot", "0000:00:01.0/pcie-root-port", "slot capabilities"),
        ("serial-port-added", "0000:00:01.0/virtio-console.virtio, ports", "takes only its own"),
        ("gpu-outputs", "0000:00:01.0/virtio-gpu.virtio-gpu, outputs", "1 is written, and the destination takes only"),
        ("no-footers", "section footers", "only one side has footers"),
        ("no-configuration", "configuration", "only one side has a configuration section"),
        ("capability-x-ignore-shared", "capabilities", "x-ignore-shared"),
        ("capability-validate-uuid", "uuid", "asks for the same"),
        ("7.2-10.0-none", "command SWITCHOVER_START", "QEMU older than 10.0 refuses it"),
        ("no-description", "fields of all devices", "suppress-vmdesc"),
        ("firmware-features-iommu-platform", "0000:00:01.0/virtio-blk.virtio, features", "may not be offered there"),
    ],
)
def test_the_reason_is_the_one_that_qemu_has(streams: Path, name: str, path: str, reason: str) -> None:
    (pair,) = (pair for pair in PAIRS if pair["name"] == name)
    changes = [change for change in compared(streams, pair).changes if change.path.startswith(path)]
    assert any(reason in change.reason for change in changes), changes
    assert max(max(change.forward, change.backward) for change in changes) is not Verdict.LOADS
