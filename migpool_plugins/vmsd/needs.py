"""What is known of the devices of real machines: the lock that their configs need, and what they are loaded after.

A recorded stream tells what a device's fields are, and nothing of what its own code does around them. The table below
does, for the devices of QEMU 10.0 that a PC is made of; ``docs/vmsd.md`` shows it. It is cautious: a device that is not
in it keeps the big lock, and one whose load is known to do more than to fill its own fields keeps it for the load.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

from migpool.device import ConfigChannel, ConfigLock
from migpool_plugins.vmsd.capture import CapturedSection

__all__ = ["KNOWN", "UNKNOWN", "Needs", "after", "needs_of"]

_PCI: Final = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7][:/]")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a kind of device needs.

    Arguments:
        save, load: the lock for its config.
        reason: why, in a sentence or two.
        after: kinds of devices that it is loaded after, where they stand before it in the stream; ``ram`` is the
            memory.
        same: the same, but only those of the same instance id.
        channel: where it must cross, if that is not free.
        early: it is saved before the memory, while the machine runs.
    """

    save: ConfigLock
    load: ConfigLock
    reason: str
    after: Sequence[str] = ()
    same: Sequence[str] = ()
    channel: ConfigChannel | None = None
    early: bool = False


UNKNOWN: Final = Needs("big", "big", "Nothing is known of it.")
_LINES: Final = ("apic", "ioapic", "i8259")

KNOWN: Final[Mapping[str, Needs]] = MappingProxyType(
    {
        # --- what is set up early
        "PCIHost": Needs(
            "own",
            "big",
            "The register by which all PCI devices are addressed. It stays in the machine's order.",
            channel="main-channel",
        ),
        "mch": Needs(
            "own",
            "big",
            "The host bridge. Its load maps memory anew, which all devices see.",
            channel="main-channel",
        ),
        "*iommu*": Needs(
            "big",
            "big",
            "Saved and loaded first (priority IOMMU): whatever reaches into memory goes through it.",
            channel="main-channel",
        ),
        "pcie-root-port": Needs(
            "own",
            "big",
            "A bridge, loaded before what is behind it (priority PCI_BUS). Its load changes what addresses lead where.",
            channel="main-channel",
        ),
        "pci_bridge": Needs("own", "big", "As a root port.", channel="main-channel"),
        "virtio-mem-*early": Needs(
            "big",
            "big",
            "Saved before the memory, since it says which of it there is (priority VIRTIO_MEM, early set-up).",
            channel="main-channel",
            early=True,
        ),
        # --- processors, clocks, interrupts
        "timer": Needs("big", "big", "The clock and its ticks, which every timer reads."),
        "cpu_common": Needs("own", "own", "Fields of one vCPU."),
        "cpu": Needs(
            "own",
            "own",
            "Registers of one vCPU; the rest of the same vCPU is in cpu_common, so one comes after the other.",
            same=("cpu_common",),
        ),
        "apic": Needs(
            "own",
            "big",
            "Belongs to one vCPU. Its load arms a timer, and may interrupt that vCPU.",
            after=("timer",),
            same=("cpu",),
        ),
        "kvm-tpr-opt": Needs(
            "own",
            "big",
            "Its load changes code of the guest in memory, on a vCPU.",
            after=("ram", "cpu"),
        ),
        "ioapic": Needs(
            "own", "big", "Its load sets the routes of all interrupts, and may interrupt a vCPU.", after=("apic",)
        ),
        "i8259": Needs("own", "big", "Two of them in a row, the first one in front of the vCPU.", after=("apic",)),
        "i8254": Needs("own", "big", "Its load arms a timer, which interrupts.", after=("timer", *_LINES)),
        "hpet": Needs("own", "big", "Its load arms timers, which interrupt.", after=("timer", *_LINES)),
        "mc146818rtc": Needs(
            "own", "big", "Its load computes the time from the clock, and may interrupt.", after=("timer", *_LINES)
        ),
        "dma": Needs("own", "big", "Its load goes on with a transfer from or to memory.", after=("ram",)),
        # --- small ones on the board
        "port92": Needs("own", "own", "A byte."),
        "pcspk": Needs("own", "own", "Two bytes; what sounds is in i8254."),
        "acpi_build": Needs("own", "own", "Whether the tables have been taken: a byte."),
        "acpi-ged": Needs("own", "own", "Which events are up: fields of its own."),
        "PCIBUS": Needs("own", "own", "How many devices hold each of its interrupt lines: fields of its own."),
        "i2c_bus": Needs("own", "own", "An address; the devices on the bus look at it when they are loaded."),
        "fw_cfg": Needs("own", "big", "Its load may map the tables' memory at another place."),
        "serial": Needs(
            "own",
            "big",
            "Its load arms timers, may interrupt, and tells the other end of the line.",
            after=("timer", *_LINES),
        ),
        "ps2kbd": Needs("own", "own", "A queue of its own; who interrupts is pckbd."),
        "ps2mouse": Needs("own", "own", "As ps2kbd."),
        "pckbd": Needs(
            "own", "big", "Its load may interrupt for what is in the two queues.", after=("ps2kbd", "ps2mouse", *_LINES)
        ),
        "vmmouse": Needs(
            "own",
            "big",
            "Its load enters it in the list of all pointers, before or behind others.",
            after=("ps2mouse",),
        ),
        "globalstate": Needs("big", "big", "Says whether the whole machine runs."),
        # --- on PCI, USB, virtio
        "ICH9LPC": Needs(
            "own", "big", "Its load maps registers, arms a timer and may interrupt.", after=("timer", *_LINES)
        ),
        "ich9_smb": Needs("own", "big", "Its load maps registers.", after=("i2c_bus",)),
        "ich9_ahci": Needs(
            "own", "big", "Its load reads lists of commands in memory, and may interrupt.", after=("ram", *_LINES)
        ),
        "e1000e": Needs(
            "own", "big", "Its load maps registers, arms timers and may interrupt.", after=("timer", *_LINES)
        ),
        "ehci": Needs("own", "big", "Its load gives ports to other controllers.", after=("timer", *_LINES)),
        "usb-*": Needs("own", "big", "Its load attaches it to its bus, and arms a timer.", after=("timer",)),
        "virtio-*": Needs(
            "own", "big", "Its load maps its queues, and reads in memory how far they are.", after=("ram", *_LINES)
        ),
    }
)
"""By the kind of the device, the last part of its idstr, also with ``*``; the first that fits.

A device with a place on PCI is loaded after ``PCIBUS`` besides, and one with a place behind another after that one."""


def needs_of(section: CapturedSection) -> Needs:
    """What the device of a section needs."""
    kind = _kind(section)
    return next((needs for known, needs in KNOWN.items() if fnmatchcase(kind, known)), UNKNOWN)


def after(section: CapturedSection, earlier: Sequence[CapturedSection]) -> list[str]:
    """The names of the devices that the device of a section is loaded after.

    Arguments:
        earlier: the sections that stand before it in the stream. Only these count: the machine that was recorded loads
            in that order, so what comes later is not needed.
    """
    needs = needs_of(section)
    if needs.channel == "main-channel":
        return []  # in the order of the stream, as ever
    names = ["ram"] if "ram" in needs.after else []
    names += [_name(one) for one in earlier if _is_before(one, section, needs)]
    return names


def _is_before(one: CapturedSection, section: CapturedSection, needs: Needs) -> bool:
    kind, place = _kind(one), one.name.rpartition("/")[0]
    if kind in needs.after or (kind in needs.same and one.instance_id == section.instance_id):
        return True
    if kind == "PCIBUS" and _PCI.match(section.name):
        return True
    return (
        bool(place) and section.name.startswith((f"{place}/", f"{place}:")) and place != section.name.rpartition("/")[0]
    )


def _kind(section: CapturedSection) -> str:
    return section.name.rpartition("/")[2]


def _name(section: CapturedSection) -> str:
    return f"{section.name}#{section.instance_id}" if section.instance_id else section.name
