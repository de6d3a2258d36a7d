"""The ``options`` table of a vfio entry whose devices are the host's own.

::

    backend = "kernel"
    device = "0000:01:00.0"          a PCI address, a mediated device's UUID or a directory of sysfs; for some, a list
    device = {source = "0000:01:00.0", destination = "0000:02:00.0"}       when both ends are on one host
    way = "group"                    or "iommufd"; without it the group, if there is one
    precopy = true                   whether to save while the machine runs, if the device can
    bus = 1                          PCI bus of the first device in the stream; the others count up from it
    time_limit = 30                  seconds that a wait for a device may take
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from migpool.device import Device, DeviceContext, DeviceError, OptionValue
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vfio.kernel.access import Way
from migpool_plugins.vfio.kernel.opening import TIME_LIMIT, open_kernel
from migpool_plugins.vfio.options import check_bus, duration, flag, known, wrong

__all__ = ["open_devices"]

_KEYS: Final = {"backend", "bus", "device", "precopy", "time_limit", "way"}


def open_devices(context: DeviceContext) -> list[Device]:
    """Open the devices of an entry.

    Raises:
        DeviceError: an option is wrong, or a device cannot be opened or cannot migrate.
    """
    options = context.options
    known('option of backend "kernel"', options, _KEYS)
    bus = check_bus(context)
    precopy = flag("precopy", options.get("precopy", True))
    limit = duration("time_limit", options.get("time_limit", TIME_LIMIT))
    if not 0 < limit <= 3600:
        raise wrong("time_limit", limit, "seconds over 0, at most 3600")
    opened = open_kernel(_names(context), time_limit=limit, way=_way(options.get("way")))
    return [
        VfioDevice(f"0000:{bus + number:02x}:00.0/vfio", backend, context.side, precopy=precopy)
        for number, backend in enumerate(opened)
    ]


def _names(context: DeviceContext) -> list[str]:
    value, key = context.options.get("device"), "device"
    if isinstance(value, Mapping):
        if set(value) != {"source", "destination"}:
            raise wrong(key, dict(value), 'a table with "source" and "destination", each a device or a list of them')
        value, key = value[context.side], f"device.{context.side}"
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise wrong(key, value, 'a device, such as "0000:01:00.0", or a list of them')
    if len(names) != context.count:
        raise DeviceError(f"vfio option {key} names {len(names)} of {context.count} devices: give a list, one for each")
    return [str(name) for name in names]


def _way(value: OptionValue | None) -> Way | None:
    if value is None:
        return None
    if value == "group":
        return "group"
    if value == "iommufd":
        return "iommufd"
    raise wrong("way", value, '"group" or "iommufd"')
