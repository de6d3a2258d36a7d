"""Emulated VFIO devices: state in a device process of their own, read and written through real descriptors.

::

    the migrating process                      the device process (one a side)
      emulated.py the Device's methods           server.py    sockets and threads
      client.py   requests with time limits  ->  state.py     migration states, config, digests
      process.py  starts and ends it             transfer.py  one save or one load through the data descriptor
      options.py  the scenario's options         pacing.py    rates, latencies, the shared lock
                                                 content.py   the state's bytes
      profiles.py, control.py: the values and the messages that both know

The device process imports this package too, and must start fast: what it needs of the package rests on the standard
library alone, and the entry point imports the rest on its first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from migpool.device import Device, DeviceContext

__all__ = ["devices"]


def devices(context: DeviceContext) -> list[Device]:
    """Emulated VFIO devices in a device process of their own, 64 MiB of incompressible state each by default.

    Arguments:
        context: ``options`` are described in :mod:`migpool_plugins.vfio.options`; ``count`` devices are made, and
            ``seed`` decides what their state is.

    Raises:
        DeviceError: an option is wrong, or the device process cannot be started.
    """
    from migpool_plugins.vfio.opening import open_devices

    return open_devices(context)
