"""The ``options`` table of a vfio entry whose devices are those of vfio-user servers that run already."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from migpool.device import Device, DeviceContext, DeviceError, Option, Options
from migpool.units import parse_size
from migpool_plugins.vfio.device import VfioDevice
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
from migpool_plugins.vfio.profiles import MAX_ENGINES
from migpool_plugins.vfio.tagged import TaggedVfioDevice
from migpool_plugins.vfio.vfiouser.backend import OUTSTANDING, VfioUserBackend
from migpool_plugins.vfio.vfiouser.connect import connector
from migpool_plugins.vfio.vfiouser.engine import MOST_WRITTEN

_MOST_OUTSTANDING: Final = 128
"""More answers than this might not fit into a socket while nobody reads them."""


def _write_size(value: object) -> int:
    size = parse_size(value)
    if not 1 <= size <= MOST_WRITTEN:
        raise ValueError
    return size


_SOCKET: Final = per_device(
    "socket",
    "where the server listens; one path with count over 1 stands for PATH.0, PATH.1 and so on",
    'the path of a server\'s socket, such as "/run/vf"',
)
_WRITE_SIZE: Final[Option[int | None]] = Option(
    "write_size",
    "size",
    None,
    "how much a write has; without it what the server announces, or 32 KiB",
    f"1 to {MOST_WRITTEN} bytes",
    "bytes",
    _write_size,
)
_ENGINES: Final = Option.whole(
    "engines",
    0,
    "parts with tags to move at once, each on a connection of its own, with a server that announces them; no precopy",
    least=0,
    most=MAX_ENGINES,
)
_OUTSTANDING: Final = Option.whole(
    "outstanding", OUTSTANDING, "writes that may wait for their answers at once", least=1, most=_MOST_OUTSTANDING
)
_LIMIT: Final = Option.time_limit("time_limit", 30.0, "how long one answer may take")
_CONNECT: Final = Option.time_limit("connect_limit", 5.0, "how long to go on trying while nobody listens on a socket")
OPTIONS: Final = Options(
    "vfio",
    *(BACKEND, _SOCKET, PEER_TO_PEER, PRECOPY, _WRITE_SIZE, _ENGINES, _OUTSTANDING, BUS, IDSTR, _LIMIT, _CONNECT),
    to='backend "vfio-user"',
)


def open_served(context: DeviceContext) -> list[Device]:
    """Connect to the servers of an entry's devices.

    Raises:
        DeviceError: an option is wrong, a server is not there, or its device cannot migrate; none stays connected.
    """
    options = OPTIONS.read(context.options)
    names = device_names(options, context)
    limit, connect_limit = options[_LIMIT], options[_CONNECT]
    precopy, reaches = options[PRECOPY], options[PEER_TO_PEER]
    outstanding, engines, write_size = options[_OUTSTANDING], options[_ENGINES], options[_WRITE_SIZE]
    paths = each_device(options, _SOCKET, context, socket_paths)
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
