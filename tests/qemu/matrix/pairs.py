"""Which machines are compared: pairs of a command line, a release of QEMU, and whether its firmware ran.

A pair is two machines; each loads the other's stream. ``{bios}`` and the like in options are files
that the matrix makes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from tests.qemu.matrix.options import ACROSS, DISK, KINDS, NET, OPTIONS, Q35

OLD, MIDDLE, NEW = "7.2", "10.0", "11.1"
RELEASES: Final = (OLD, MIDDLE, NEW)


@dataclass(frozen=True)
class Machine:
    """One side.

    Arguments:
        release: of QEMU.
        kind: the machine type, with its properties.
        options: the rest of the command line.
        runs: its firmware runs before it is saved; otherwise it never ran.
        capabilities: of the migration, at either end.
    """

    release: str
    kind: str
    options: str = ""
    runs: bool = False
    capabilities: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """The command line behind the program, without what the migration needs."""
        firmware = [] if self.runs or "-bios" in self.options else ["-bios", "{bios}"]
        memory = [] if "-m " in self.options else ["-m", "32"]
        common = ["-nodefaults", "-display", "none", "-accel", "tcg", "-S"]
        return ["-M", self.kind, *common, *memory, *firmware, *shlex.split(self.options)]

    @property
    def title(self) -> str:
        """How it stands in a table."""
        said = [self.release, self.kind, self.options, "firmware ran" if self.runs else "", *self.capabilities]
        return ", ".join(filter(None, said))


@dataclass(frozen=True)
class Pair:
    """Two machines, and what the pair is about."""

    name: str
    a: Machine
    b: Machine


def pairs() -> Iterator[Pair]:
    """Every pair."""
    for name, options in ACROSS.items():
        old, middle, new = (Machine(release, "pc-q35-7.2", options) for release in RELEASES)
        yield Pair(f"{OLD}-{MIDDLE}-{name}", old, middle)
        yield Pair(f"{MIDDLE}-{NEW}-{name}", replace(middle, kind=Q35), replace(new, kind=Q35))
        if name in ("bare", "virtio-net", "e1000e", "usb", "vga", "icount"):
            yield Pair(f"{OLD}-{NEW}-{name}", old, new)
    for name, kinds in {"i440fx": "pc-i440fx-7.2", "none": "none", "isapc": "isapc", "microvm": "microvm"}.items():
        old, middle, new = (Machine(release, kinds) for release in RELEASES)
        yield Pair(f"{OLD}-{MIDDLE}-{name}", old, middle)
        yield Pair(f"{MIDDLE}-{NEW}-{name}", middle, new)
    yield Pair(f"{MIDDLE}-{NEW}-newest-types", Machine(MIDDLE, "q35"), Machine(NEW, "q35"))
    for name, (ours, theirs) in OPTIONS.items():
        yield Pair(name, Machine(MIDDLE, Q35, ours), Machine(MIDDLE, Q35, theirs))
    for name, (ours, theirs) in KINDS.items():
        yield Pair(name, Machine(MIDDLE, ours), Machine(MIDDLE, theirs))
    bare = Machine(MIDDLE, f"{Q35},suppress-vmdesc=on")
    yield Pair("no-configuration", bare, replace(bare, options="-global migration.send-configuration=off"))
    yield from _capabilities()
    yield from _firmware()


def _capabilities() -> Iterator[Pair]:
    plain = Machine(MIDDLE, Q35, "-object memory-backend-ram,id=m,size=32M,share=on -machine memory-backend=m")
    yield Pair("capability-x-ignore-shared", plain, replace(plain, capabilities=("x-ignore-shared",)))
    yield Pair("capability-auto-converge", plain, replace(plain, capabilities=("auto-converge",)))
    yield Pair("capability-xbzrle", plain, replace(plain, capabilities=("xbzrle",)))
    yield Pair("capability-late-block-activate", plain, replace(plain, capabilities=("late-block-activate",)))
    one, two = (
        Machine(MIDDLE, Q35, f"-uuid 00000000-0000-0000-0000-00000000000{number}", capabilities=("validate-uuid",))
        for number in (1, 2)
    )
    yield Pair("capability-validate-uuid", one, two)
    yield Pair("capability-validate-uuid-one-end", one, replace(one, capabilities=()))
    bitmaps = Machine(MIDDLE, Q35, f"{DISK}-device virtio-blk-pci,drive=d")
    yield Pair("capability-dirty-bitmaps", bitmaps, replace(bitmaps, capabilities=("dirty-bitmaps",)))


def _firmware() -> Iterator[Pair]:
    """Before and after the firmware ran, on one release and across."""
    options = {
        "bare": "",
        "virtio-blk": f"{DISK}-device virtio-blk-pci,drive=d,bootindex=0",
        "virtio-scsi": f"{DISK}-device virtio-scsi-pci -device scsi-hd,drive=d",
        "virtio-net": NET,
        "e1000e": "-device e1000e,romfile=",
        "usb": "-device qemu-xhci -device usb-tablet -device usb-kbd",
        "vga": "-device VGA",
        "ahci-disk": f"{DISK}-device ide-hd,drive=d",
        "serial": "-serial null -device virtio-serial-pci",
        "processors": "-smp 2",
    }
    for name, said in options.items():
        kind = "pc-q35-7.2"
        # The firmware's own files are those of the release, so neither side has the matrix's.
        before, after = (Machine(MIDDLE, kind, f"-boot menu=off {said}", runs=runs) for runs in (False, True))
        before = replace(before, options=f"-bios bios-256k.bin {before.options}")
        yield Pair(f"firmware-{name}", before, after)
        yield Pair(f"firmware-{OLD}-{MIDDLE}-{name}", replace(after, release=OLD), after)
        if name in ("bare", "virtio-blk", "usb", "processors"):
            yield Pair(f"firmware-{MIDDLE}-{NEW}-{name}", after, replace(after, release=NEW))
    # The driver in the firmware has taken what the device offers.
    disk = Machine(MIDDLE, Q35, f"-boot menu=off {DISK}-device virtio-blk-pci,drive=d,disable-legacy=on", runs=True)
    for name, added in {
        "iommu-platform": ",iommu_platform=on",
        "block-size": ",config-wce=off,discard=off",
        "packed": ",packed=on",
        "queues": ",num-queues=4,vectors=2",
        "event-index": ",event_idx=off,indirect_desc=off",
        "seg-max": ",seg-max-adjust=off,queue-size=64",
    }.items():
        yield Pair(f"firmware-features-{name}", disk, replace(disk, options=disk.options + added))
    scsi = Machine(
        MIDDLE,
        Q35,
        f"-boot menu=off {DISK}-device virtio-scsi-pci,disable-legacy=on -device scsi-hd,drive=d",
        runs=True,
    )
    yield Pair("firmware-disk-removed", scsi, replace(scsi, options="-device virtio-scsi-pci,disable-legacy=on"))
