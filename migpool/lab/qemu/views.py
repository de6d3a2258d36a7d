"""How many flat views of memory QEMU built while the destination loaded devices, and how long that took.

A flat view is what lies where in an address space. QEMU builds one anew for each of them whenever a device maps or
unmaps a region (``flatview_new``), and a PCI device's load does that once for each of its BARs. A view is said when it
is begun: so the time of a load's views is that from its first to its last, and once more what one of them took.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from migpool.lab.qemu.log import SideLog, device_name


@dataclass(frozen=True, slots=True)
class Views:
    """The flat views of one device's load.

    Attributes:
        count: how many.
        took: nanoseconds, of the load's.
    """

    count: int
    took: int


def views_of(log: SideLog) -> dict[str, Views]:
    """Of each device that was loaded in the downtime and built any, in the order of loading."""
    found: dict[str, Views] = {}
    begun: list[int] = []
    for event in log.own():
        if event.event == "flatview_new":
            begun.append(event.time)
        elif event.event == "vmstate_downtime_load":
            load = int(event.said["took"]) * 1000
            own = [time for time in begun if time >= event.time - load]
            if own and load:
                span = own[-1] - own[0]
                each = span // (len(own) - 1) if len(own) > 1 else 0
                found[device_name(event.said)] = Views(len(own), min(span + each, load))
            begun = []
    return found


def once(views: Mapping[str, Views]) -> int:
    """Nanoseconds that one rebuild of all views takes: as many as the load with the fewest built, each as long as the
    longest, since the views that are built last have the regions of all devices."""
    each = max((one.took // one.count for one in views.values()), default=0)
    return each * min((one.count for one in views.values()), default=0)


def counted(views: Mapping[str, Views], kinds: Iterable[tuple[str, str]]) -> list[tuple[str, int, int]]:
    """Devices of one kind, those with the most views first: the kind, how many devices, how many views."""
    found: dict[str, tuple[int, int]] = {}
    for device, kind in kinds:
        if device in views:
            devices, count = found.get(kind, (0, 0))
            found[kind] = (devices + 1, count + views[device].count)
    return sorted(((kind, *counts) for kind, counts in found.items()), key=lambda one: -one[2])
