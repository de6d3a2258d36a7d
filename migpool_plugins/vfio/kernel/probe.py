"""Which devices of this host can migrate, in what state they are, and in plain words why another cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from migpool.device import DeviceError
from migpool_plugins.vfio.kernel.access import DeviceAccess, open_access, way_to
from migpool_plugins.vfio.kernel.calls import Calls, LinuxCalls, get_flags, get_state
from migpool_plugins.vfio.kernel.host import Host, HostDevice
from migpool_plugins.vfio.migration import Flags


@dataclass(frozen=True, slots=True)
class ProbedDevice:
    """What was found out about one device.

    Attributes:
        name: its PCI address or UUID.
        driver: the driver that it is bound to; empty without one.
        group: its IOMMU group; empty without one.
        migrates: whether it can.
        flags: what it can do ("STOP_COPY", "P2P", "PRE_COPY"); empty if it could not be asked.
        state: its state by name; empty if it could not be asked.
        reason: why it cannot migrate, and what to do; empty if it can.
    """

    name: str
    driver: str
    group: str
    migrates: bool
    flags: tuple[str, ...]
    state: str
    reason: str


def probe(host: Host | None = None, calls: Calls | None = None) -> list[ProbedDevice]:
    """Look at mediated devices, devices bound to VFIO, and virtual functions.

    A device that can be opened is, for a moment, and asked; nothing about it is changed, its state neither.

    Arguments:
        host: where the files are; ``None``: this host's.
        calls: the kernel; ``None``: this host's.
    """
    where, kernel = host or Host(), calls or LinuxCalls()
    return [_judge(device, where, kernel) for device in where.devices()]


def _judge(device: HostDevice, host: Host, calls: Calls) -> ProbedDevice:
    try:
        if way_to(host, device) == "group" and device.strangers:
            held = ", ".join(f"{name} ({driver})" for name, driver in device.strangers)
            return _finding(device, reason=f"its group {device.group} is not viable: unbind {held} from other drivers")
        (access,) = open_access([device], host, calls)
    except DeviceError as error:
        return _finding(device, reason=str(error))
    try:
        return _asked(access, calls)
    finally:
        access.close()


def _asked(access: DeviceAccess, calls: Calls) -> ProbedDevice:
    device = access.device
    try:
        flags = get_flags(calls, access.fd)
        state = get_state(calls, access.fd).name
    except OSError:
        return _finding(device, reason=f"the driver {device.driver} has no migration of version 2: use one that has")
    names = tuple(flag.name for flag in Flags if flag in flags and flag.name)
    reason = "" if Flags.STOP_COPY in flags else "it has no stop-copy, without which no state can be saved"
    return _finding(device, names, state, reason)


def _finding(device: HostDevice, flags: Sequence[str] = (), state: str = "", reason: str = "") -> ProbedDevice:
    return ProbedDevice(device.name, device.driver, device.group, not reason, tuple(flags), state, reason)
