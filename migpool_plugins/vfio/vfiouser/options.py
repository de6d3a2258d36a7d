"""The ``options`` table of a vfio entry whose devices are those of vfio-user servers that run already.

::

    backend = "vfio-user"
    socket = "/run/vf"               with count over 1 the sockets are /run/vf.0, /run/vf.1 ...; or a list of paths
    socket = {source = "/run/a", destination = "/run/b"}       when both ends are on one host
    precopy = true                   whether to save while the machine runs, if the device can
    write_size = "32KiB"             bytes a write; without it what the server announces, or 32 KiB
    outstanding = 8                  writes that may wait for their answers at once
    bus = 1                          PCI bus of the first device in the stream; the others count up from it
    time_limit = 30                  seconds that one answer may take
    connect_limit = 5                seconds to go on trying while nobody listens on a socket
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from migpool.device import Device, DeviceContext, DeviceError, OptionValue
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vfio.options import check_bus, duration, flag, known, size, whole, wrong
from migpool_plugins.vfio.vfiouser.backend import MOST_WRITTEN, OUTSTANDING, VfioUserBackend
from migpool_plugins.vfio.vfiouser.connecting import connector
from migpool_plugins.vfio.vfiouser.paths import socket_paths

__all__ = ["open_served"]

_KEYS: Final = {"backend", "bus", "connect_limit", "outstanding", "precopy", "socket", "time_limit", "write_size"}
_MOST_OUTSTANDING: Final = 128
"""More answers than this might not fit into a socket while nobody reads them."""


def open_served(context: DeviceContext) -> list[Device]:
    """Connect to the servers of an entry's devices.

    Raises:
        DeviceError: an option is wrong, a server is not there, or its device cannot migrate; none stays connected.
    """
    options = context.options
    known('option of backend "vfio-user"', options, _KEYS)
    bus = check_bus(context)
    limit = _seconds(options, "time_limit", 30.0)
    connect_limit = _seconds(options, "connect_limit", 5.0)
    precopy = flag("precopy", options.get("precopy", True))
    outstanding = whole("outstanding", options.get("outstanding", OUTSTANDING))
    if not 1 <= outstanding <= _MOST_OUTSTANDING:
        raise wrong("outstanding", outstanding, f"1 to {_MOST_OUTSTANDING}")
    write_size = size("write_size", options["write_size"]) if "write_size" in options else None
    if write_size is not None and not 1 <= write_size <= MOST_WRITTEN:
        raise wrong("write_size", write_size, f"1 to {MOST_WRITTEN} bytes")
    made: list[Device] = []
    try:
        for number, path in enumerate(_paths(context)):
            name = f"0000:{bus + number:02x}:00.0/vfio"
            server = f"vfio-user server {path}"
            connect = connector(path, limit, connect_limit)
            try:
                backend = VfioUserBackend(connect, server, write_size=write_size, outstanding=outstanding)
            except DeviceError as error:
                raise error.located(name) from None
            made.append(VfioDevice(name, backend, context.side, precopy=precopy))
    except BaseException:
        for device in made:
            device.close()
        raise
    return made


def _paths(context: DeviceContext) -> list[str]:
    value, key = context.options.get("socket"), "socket"
    if isinstance(value, Mapping):
        if set(value) != {"source", "destination"}:
            raise wrong(key, dict(value), 'a table with "source" and "destination", each a path or a list of paths')
        value, key = value[context.side], f"socket.{context.side}"
    if isinstance(value, str):
        return socket_paths(value, context.count)
    if not isinstance(value, Sequence) or not all(isinstance(path, str) for path in value):
        raise wrong(key, value, 'the path of a server\'s socket, such as "/run/vf", or a list of them')
    if len(value) != context.count:
        raise DeviceError(f"vfio option {key} has {len(value)} paths for {context.count} devices: give one for each")
    return [str(path) for path in value]


def _seconds(options: Mapping[str, OptionValue], key: str, default: float) -> float:
    value = duration(key, options.get(key, default))
    if not 0 < value <= 3600:
        raise wrong(key, value, "seconds over 0, at most 3600")
    return value
