"""VFIO devices of this host, through the kernel's own interface: plain ioctls, nothing but the standard library.

::

    devices.py   devices by name, an entry's options, and which can migrate, and why others cannot
    backend.py   states, reads and writes, abort            host.py    what sysfs says of a device
    access.py    group and container, or iommufd            abi.py     numbers, structures and calls; refusals
"""

from __future__ import annotations

from migpool_plugins.vfio.kernel.devices import open_kernel

__all__ = ["open_kernel"]
