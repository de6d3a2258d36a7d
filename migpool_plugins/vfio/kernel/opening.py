"""Opens devices of the host by name."""

from __future__ import annotations

from collections.abc import Sequence

from migpool.device import DeviceError
from migpool_plugins.vfio.kernel.access import Way, open_access
from migpool_plugins.vfio.kernel.backend import KernelBackend
from migpool_plugins.vfio.kernel.calls import Calls, LinuxCalls
from migpool_plugins.vfio.kernel.host import Host

__all__ = ["TIME_LIMIT", "open_kernel"]

TIME_LIMIT = 30.0
"""Seconds that a driver which can be waited for may take for a read or a write."""


def open_kernel(
    devices: Sequence[str],
    *,
    time_limit: float = TIME_LIMIT,
    way: Way | None = None,
    host: Host | None = None,
    calls: Calls | None = None,
) -> list[KernelBackend]:
    """Open devices through their kernel drivers.

    All devices of one IOMMU group must come in one call: a group can be opened once only.

    Arguments:
        devices: each a PCI address, a mediated device's UUID, or a directory of sysfs.
        time_limit: seconds that a wait for data may take.
        way: "group" or "iommufd"; ``None``: whichever is there, the group first.
        host: where the files are; ``None``: this host's.
        calls: the kernel; ``None``: this host's.

    Returns:
        A backend for each, in this order.

    Raises:
        DeviceError: one of them is not there, cannot be opened or cannot migrate; none is left open.
    """
    where, kernel = host or Host(), calls or LinuxCalls()
    found = [where.find(text) for text in devices]
    twice = next((device.name for number, device in enumerate(found) if device in found[:number]), None)
    if twice is not None:
        raise DeviceError(f"{twice} is named twice: give each once")
    opened = open_access(found, where, kernel, way)
    made: list[KernelBackend] = []
    try:
        for access in opened:
            made.append(KernelBackend(access, kernel, time_limit))  # noqa: PERF401 - those made before an error are closed
    except BaseException:
        for backend in made:
            backend.close()
        for access in opened:
            access.close()
        raise
    return made
