"""The host's devices: opened by name, for a scenario's entry or from code, and asked whether they can migrate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from migpool.device import Device, DeviceContext, DeviceError, GivenOptions, Option, Options
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vfio.kernel.abi import Calls, get_flags, get_state
from migpool_plugins.vfio.kernel.access import Way, open_access, way_to
from migpool_plugins.vfio.kernel.backend import KernelBackend
from migpool_plugins.vfio.kernel.host import Host, HostDevice
from migpool_plugins.vfio.migration import Flags
from migpool_plugins.vfio.options import (
    BACKEND,
    BUS,
    IDSTR,
    PEER_TO_PEER,
    PRECOPY,
    device_names,
    each_device,
    per_device,
)
from migpool_plugins.vfio.qemu import QemuVfioDevice, captured_configs

TIME_LIMIT = 30.0
"""Seconds that a driver which can be waited for may take for a read or a write."""
_WAYS: tuple[Way, Way] = ("group", "iommufd")
_DEVICE = per_device(
    "device", "a PCI address, a mediated device's UUID or a directory of sysfs", 'a device, such as "0000:01:00.0"'
)
_WAY = Option[Way | None].one_of("way", None, "how it is opened; without it by the group, if there is one", _WAYS)
_LIMIT = Option.time_limit("time_limit", TIME_LIMIT, "how long a wait for a device may take")
_STREAM: Option[object] = Option(
    "stream",
    "text",
    None,
    "a recorded stream of the machine that QEMU sends or takes; the config is then QEMU's, and idstr its name there",
    "the path of its file",
)
OPTIONS = Options(
    "vfio", BACKEND, _DEVICE, _WAY, PEER_TO_PEER, PRECOPY, BUS, IDSTR, _STREAM, _LIMIT, to='backend "kernel"'
)


def open_kernel(
    devices: Sequence[str],
    *,
    time_limit: float = TIME_LIMIT,
    way: Way | None = None,
    host: Host | None = None,
    calls: Calls | None = None,
) -> list[KernelBackend]:
    """Open devices through their kernel drivers, those of one IOMMU group in one call: a group can be opened once only.

    Arguments:
        devices: each a PCI address, a mediated device's UUID, or a directory of sysfs.
        time_limit: seconds that a wait for data may take.
        way: "group" or "iommufd"; ``None``: whichever is there, the group first.
        host: where the files are; ``None``: this host's.
        calls: the kernel; ``None``: this host's.

    Raises:
        DeviceError: one of them is not there, cannot be opened or cannot migrate; none is left open.
    """
    where, kernel = host or Host(), calls or Calls()
    found = [where.find(text) for text in devices]
    twice = next((device.name for number, device in enumerate(found) if device in found[:number]), None)
    if twice is not None:
        raise DeviceError(f"{twice} is named twice: give each once")
    with ExitStack() as opened:
        made: list[KernelBackend] = []
        accesses = open_access(found, where, kernel, way)
        for access in accesses:
            opened.callback(access.close)
        for access in accesses:
            made.append(KernelBackend(access, kernel, time_limit))
            opened.callback(made[-1].close)
        opened.pop_all()
    return made


def open_devices(context: DeviceContext) -> list[Device]:
    """Open the devices of an entry; raises :class:`DeviceError` for a wrong option too."""
    options = OPTIONS.read(context.options)
    names = device_names(options, context)
    precopy, limit, way, reaches = options[PRECOPY], options[_LIMIT], options[_WAY], options[PEER_TO_PEER]
    configs = _configs(options, names)
    opened = open_kernel(each_device(options, _DEVICE, context, lambda name, _count: [name]), time_limit=limit, way=way)
    return [
        VfioDevice(name, backend, context.side, precopy=precopy, reaches=reaches)
        if config is None
        else QemuVfioDevice(name, backend, context.side, precopy=precopy, reaches=reaches, config=config)
        for name, backend, config in zip(names, opened, configs, strict=True)
    ]


def _configs(options: GivenOptions, names: Sequence[str]) -> Sequence[bytes | None]:
    """What QEMU's configs of the devices were, if they are to be QEMU's."""
    stream = options[_STREAM]
    if stream is None:
        return [None] * len(names)
    if not isinstance(stream, str) or IDSTR not in options:
        raise options.wrong("stream", stream, "the path of a file, and with it idstr")
    return captured_configs(Path(stream), names)


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
    where, kernel = host or Host(), calls or Calls()
    return [_judge(device, where, kernel) for device in where.devices()]


def _judge(device: HostDevice, host: Host, calls: Calls) -> ProbedDevice:
    flags, state, reason = Flags(0), "", ""
    try:
        if way_to(host, device) == "group" and device.strangers:
            held = ", ".join(f"{name} ({driver})" for name, driver in device.strangers)
            raise DeviceError(f"its group {device.group} is not viable: unbind {held} from other drivers")
        (access,) = open_access([device], host, calls)
        with closing(access):
            flags, state = get_flags(calls, access.fd), get_state(calls, access.fd).name
        if Flags.STOP_COPY not in flags:
            reason = "it has no stop-copy, without which no state can be saved"
    except DeviceError as error:
        reason = str(error)
    except OSError:
        reason = f"the driver {device.driver} has no migration of version 2: use one that has"
    names = tuple(flag.name for flag in Flags if flag in flags and flag.name)
    return ProbedDevice(device.name, device.driver, device.group, not reason, names, state, reason)
