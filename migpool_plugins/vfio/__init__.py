"""VFIO devices: one device class, and backends for what can be behind it.

::

    device.py      VfioDevice: which call moves which state; guard.py: what a failure leads to
    backend.py     what a backend is asked, and the end of every wait; migration.py: states, arcs, features
    vfiouser/      devices of vfio-user servers, and a server; kernel/: devices of this host
    emulated.py    devices of a device process of our own; the default; costs.py: what they take
    tagged.py      devices with engines: parts with tags, several at once; engineclient.py: by descriptors

    the migrating process                              the device process (one a side)
      emulated.py  vfio-user, or a descriptor         -> vfiouser/session.py    one connection in vfio-user
      client.py    the process; control connections   -> server.py              sockets and threads
      options.py   the scenario's options                state.py               migration states, config, digests
                                                         transfer.py            one save or load: rates and locks;
                                                         transferkinds.py         in messages, or by a descriptor
                                                         engines.py               or in parts, to several at once
                                                         content.py             the state's bytes
      profiles.py: the values that both know

The device process imports this package too, and must start fast: what it needs of the package rests on the standard
library alone, and the entry point imports the rest on its first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from migpool.device import Device, DeviceContext, Options, Outline

__all__ = ["devices"]


def __getattr__(name: str) -> tuple[Options, ...]:
    """``OPTIONS``, of which nothing is loaded before it is asked for."""
    if name != "OPTIONS":
        raise AttributeError(name)
    from migpool_plugins.vfio import options
    from migpool_plugins.vfio.kernel import devices as kernel
    from migpool_plugins.vfio.vfiouser import options as served

    return options.OPTIONS, served.OPTIONS, kernel.OPTIONS


def outlines(context: DeviceContext) -> list[Outline]:
    """What emulated devices would be and take, for the simulator."""
    from migpool_plugins.vfio.costs import outlines as emulated

    return emulated(context)


def devices(context: DeviceContext) -> list[Device]:
    """VFIO devices: emulated ones of 64 MiB of incompressible state by default, a vfio-user server's, or this host's.

    Arguments:
        context: the option ``backend`` says which: "emulated", "vfio-user" or "kernel"; each has options of its own,
            as ``migpool plugins vfio`` shows. ``count`` devices are made, and ``seed`` decides what the
            state of emulated ones is.

    Raises:
        DeviceError: an option is wrong, a device is not there, or the device process cannot be started.
    """
    match context.options.get("backend", "emulated"):
        case "emulated":
            from migpool_plugins.vfio.emulated import open_emulated

            return open_emulated(context)
        case "vfio-user":
            from migpool_plugins.vfio.vfiouser.options import open_served

            return open_served(context)
        case "kernel":
            from migpool_plugins.vfio.kernel.devices import open_devices

            return open_devices(context)
        case other:
            from migpool.device import DeviceError

            raise DeviceError(f'vfio option backend is {other!r}: use "emulated", "vfio-user" or "kernel"')
