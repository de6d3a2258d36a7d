"""Which backend the devices of an entry have: its option ``backend``.

``emulated``   devices of a device process of our own, described in ``options.py``; the default
``vfio-user``  devices of servers that run already, described in ``vfiouser/options.py``
``kernel``     devices of this host, described in ``kernel/options.py``
"""

from __future__ import annotations

from migpool.device import Device, DeviceContext, DeviceError

__all__ = ["open_devices"]


def open_devices(context: DeviceContext) -> list[Device]:
    """Open the devices of an entry; see :func:`migpool_plugins.vfio.devices`.

    Raises:
        DeviceError: an option is wrong, or a device is not there.
    """
    match context.options.get("backend", "emulated"):
        case "emulated":
            from migpool_plugins.vfio.emulated import open_emulated

            return open_emulated(context)
        case "vfio-user":
            from migpool_plugins.vfio.vfiouser.options import open_served

            return open_served(context)
        case "kernel":
            from migpool_plugins.vfio.kernel.options import open_devices as open_on_host

            return open_on_host(context)
        case other:
            raise DeviceError(f'vfio option backend is {other!r}: use "emulated", "vfio-user" or "kernel"')
