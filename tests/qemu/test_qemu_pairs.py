"""Real pairs of machines of many kinds: the downtime, its parts and the largest of them are what the logs say.

``make qemu PAIRS=60`` has all of them migrate, every way; without it a few. What is believed is read in
``tests/support/read_downtime.py``; how far off what was said is, is printed at the end (``pytest -rP``).
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from migpool.lab.qemu.explain import explain
from migpool.lab.qemu.tracing import LIGHT
from tests.qemu.qemuprocess import Json
from tests.qemu.traced_pair import BUSY, NOTHING, PLAIN, TRACED, WRITTEN, Pair
from tests.support.read_downtime import grouped, read_downtime

pytestmark = pytest.mark.alone  # what took how long is compared with what is said of it

CARD: Final = ("-device", "e1000e,romfile=")
DRIVE: Final = ("-drive", "if=none,id=disk,driver=null-co,read-zeroes=on")
"""A disk from which nothing is booted."""
NO_MACHINE: Final = ("-m", "64", "-nodefaults", "-display", "none")
BUSY_LINK: Final[dict[str, Json]] = {"max-bandwidth": 400 << 20, "downtime-limit": 700}
MACHINES: Final = {
    "idle": Pair(until=NOTHING),
    "busy": Pair(BUSY, parameters=BUSY_LINK, until=WRITTEN),
    "microvm": Pair(("-accel", "tcg", "-machine", "microvm", *NO_MACHINE)),
    "sixteen cards": Pair((*PLAIN, *CARD * 16), until=NOTHING),
    "i440fx": Pair(("-accel", "tcg", "-machine", "pc", *NO_MACHINE, "-device", "e1000,romfile="), until=NOTHING),
    "four cards": Pair((*PLAIN, *CARD * 4), until=NOTHING),
    "cards of many kinds": Pair(
        (
            *PLAIN,
            *(f"-device {kind},romfile=" for kind in ("virtio-net-pci", "e1000", "rtl8139", "vmxnet3", "pcnet")),
            *("-device virtio-net-pci,romfile=",) * 3,
        ),
        until=NOTHING,
    ),
    "four CPUs, KVM if there is one": Pair(
        ("-accel", "kvm", "-accel", "tcg", "-machine", "q35", "-smp", "4", *NO_MACHINE, *CARD * 2), until=NOTHING
    ),
    "desktop": Pair(
        (
            *PLAIN,
            *("-device VGA", "-device qemu-xhci", "-device usb-tablet", "-device virtio-scsi-pci"),
            *("-device virtio-balloon-pci", "-device intel-hda", "-device virtio-rng-pci", "-device virtio-serial-pci"),
        ),
        until=NOTHING,
    ),
    "older, larger": Pair(
        (
            "-accel",
            "tcg",
            "-machine",
            "pc-q35-7.2",
            *NO_MACHINE,
            "-m",
            "512",
            *("-device virtio-net-pci,romfile=",) * 8,
        ),
        until=NOTHING,
    ),
    "bridges": Pair(
        [
            *PLAIN,
            *(
                f"-device {word}"
                for at in range(8)
                for word in (f"pcie-root-port,id=r{at},chassis={at},slot={at}", f"virtio-net-pci,romfile=,bus=r{at}")
            ),
        ]
    ),
    "many queues": Pair((*PLAIN, "-smp", "4", *(f"-device virtio-scsi-pci,num_queues={at}" for at in (16, 64)))),
    "AHCI": Pair((*PLAIN, *DRIVE, "-device ahci,id=more", "-device ide-hd,drive=disk,bus=more.0")),
    "virtio-blk": Pair((*PLAIN, *DRIVE, "-device virtio-blk-pci,drive=disk,num-queues=8")),
    "GPU and tablets": Pair(
        (*PLAIN, *(f"-device {kind}" for kind in ("qemu-xhci", "usb-kbd", "virtio-gpu-pci", "virtio-tablet-pci")))
    ),
    "9p": Pair(
        (*PLAIN, "-fsdev", "local,id=share,path=.,security_model=none", "-device virtio-9p-pci,fsdev=share,mount_tag=x")
    ),
    "IOMMU": Pair((*PLAIN, *(f"-device {kind}" for kind in ("intel-iommu", "igb,romfile=", "vmxnet3,romfile=")))),
    "memory to be plugged": Pair(
        (
            *PLAIN,
            *("-m", "64,maxmem=256M", "-object", "memory-backend-ram,id=more,size=64M"),
            *("-device virtio-mem-pci,memdev=more", "-device virtio-balloon-pci", "-device pvpanic"),
        )
    ),
    "i440fx, USB and SCSI": Pair(
        (
            *("-accel", "tcg", "-machine", "pc", *NO_MACHINE),
            *(f"-device {kind}" for kind in ("piix3-usb-uhci", "usb-tablet", "lsi53c895a", "rtl8139,romfile=")),
        )
    ),
    "no PCI": Pair(("-accel", "tcg", "-machine", "isapc", "-cpu", "486", *NO_MACHINE)),
}
WAYS: Final = ((0, TRACED), (2, LIGHT), (4, TRACED))
"""Channels of multifd, and tracepoints."""
ALL: Final = [*product(MACHINES, WAYS)]
FEW: Final = [("idle", WAYS[0]), ("busy", WAYS[2]), ("microvm", WAYS[1]), ("sixteen cards", WAYS[1])]
WANTED: Final = int(os.environ.get("PAIRS") or 0)
PAIRS: Final = [ALL[at % len(ALL)] for at in range(WANTED)] if WANTED else FEW


@pytest.mark.parametrize(
    ("name", "way"), PAIRS, ids=[f"{name}-{channels}-{number}" for number, (name, (channels, _)) in enumerate(PAIRS)]
)
def test_what_is_said_of_a_pair_is_what_its_logs_say(
    name: str, way: tuple[int, tuple[str, ...]], tmp_path: Path
) -> None:
    pair = replace(MACHINES[name], channels=way[0], tracepoints=way[1])
    words = [word for words in pair.machine for word in (words.split(" ") if words.startswith("-device ") else [words])]
    source, destination, told = replace(pair, machine=words).migrate(tmp_path)
    read = read_downtime(source.read_text().splitlines(), destination.read_text().splitlines())
    (run,) = explain(source, destination).result.runs
    assert run.downtime_ms is not None
    parts = grouped(run.attribution)
    print(  # noqa: T201
        f"{name}, {way[0]} channels: {read.downtime / 1e3:.2f} ms, off by {run.downtime_ms - read.downtime / 1e3:+.3f}"
        f"; QEMU's own {told['downtime']}, its checkpoints' {read.told / 1e3:.2f}; "
        + ", ".join(f"{part} {spent / 1e3:.2f} ({parts.get(part, 0):.2f})" for part, spent in read.parts.items())
    )
    assert abs(run.downtime_ms - read.downtime / 1e3) <= 1
    assert sum(run.attribution.values()) == pytest.approx(read.downtime / 1e3, rel=0.01)
    assert read.is_largest(run.attribution), (read, run.attribution)
