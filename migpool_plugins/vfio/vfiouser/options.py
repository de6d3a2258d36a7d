"""The ``options`` table of a vfio entry whose devices are those of vfio-user servers that run already.

::

    backend = "vfio-user"
    socket = "/run/vf"               with count over 1 the sockets are /run/vf.0, /run/vf.1 ...; or a list of paths
    socket = {source = "/run/a", destination = "/run/b"}       when both ends are on one host
    peer_to_peer = true              false: it begins nothing towards other devices, so it need not be quiet before they
                                     stop; the user answers for that. A foreign server's device has no states for it
    precopy = true                   whether to save while the machine runs, if the device can
    write_size = "32KiB"             bytes a write; without it what the server announces, or 32 KiB
    engines = 0                      parts with tags to move at once, each on a connection of its own, with a
                                     server that announces them; no precopy
    outstanding = 8                  writes that may wait for their answers at once
    bus = 1                          PCI bus of the first device in the stream; the others count up from it
    time_limit = 30                  seconds that one answer may take
    connect_limit = 5                seconds to go on trying while nobody listens on a socket
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from migpool.device import Device, DeviceContext, DeviceError
from migpool_plugins.options import Options
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vfio.options import device_names, each_device
from migpool_plugins.vfio.profiles import MAX_ENGINES
from migpool_plugins.vfio.tagged import TaggedVfioDevice
from migpool_plugins.vfio.vfiouser.backend import OUTSTANDING, VfioUserBackend
from migpool_plugins.vfio.vfiouser.connect import connector
from migpool_plugins.vfio.vfiouser.engine import MOST_WRITTEN

_KEYS: Final = (
    "backend",
    "bus",
    "connect_limit",
    "engines",
    "outstanding",
    "peer_to_peer",
    "precopy",
    "socket",
    "time_limit",
    "write_size",
)
_MOST_OUTSTANDING: Final = 128
"""More answers than this might not fit into a socket while nobody reads them."""


def open_served(context: DeviceContext) -> list[Device]:
    """Connect to the servers of an entry's devices.

    Raises:
        DeviceError: an option is wrong, a server is not there, or its device cannot migrate; none stays connected.
    """
    options = Options("vfio", context.options, _KEYS, to='backend "vfio-user"')
    names = device_names(options, context.count)
    limit = options.time_limit("time_limit", 30.0)
    connect_limit = options.time_limit("connect_limit", 5.0)
    precopy = options.flag("precopy", default=True)
    reaches = options.flag("peer_to_peer", default=True)
    outstanding = options.whole("outstanding", OUTSTANDING, 1, _MOST_OUTSTANDING)
    engines = options.whole("engines", 0, 0, MAX_ENGINES)
    write_size = options.size("write_size") if "write_size" in options.table else None
    if write_size is not None and not 1 <= write_size <= MOST_WRITTEN:
        raise options.wrong("write_size", write_size, f"1 to {MOST_WRITTEN} bytes")
    paths = each_device(options, "socket", context, 'the path of a server\'s socket, such as "/run/vf"', socket_paths)
    made: list[Device] = []
    with ExitStack() as opened:
        for name, path in zip(names, paths, strict=True):
            connect = connector(path, limit, connect_limit)
            try:
                backend = VfioUserBackend(
                    connect,
                    f"vfio-user server {path}",
                    write_size=write_size,
                    outstanding=outstanding,
                    engines=engines,
                )
            except DeviceError as error:
                raise error.located(name) from None
            kind = TaggedVfioDevice if engines else VfioDevice
            made.append(device := kind(name, backend, context.side, precopy=precopy and not engines, reaches=reaches))
            if isinstance(device, TaggedVfioDevice):
                device.serve_with(min(engines, backend.served_at_once), backend)
            opened.callback(made[-1].close)
        opened.pop_all()
    return made


def socket_paths(path: str, count: int) -> list[str]:
    """The sockets of ``count`` devices: ``path`` itself for one, else ``path`` with .0, .1 and so on."""
    return [path] if count == 1 else [f"{path}.{number}" for number in range(count)]
