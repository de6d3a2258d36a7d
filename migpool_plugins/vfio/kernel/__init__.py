"""VFIO devices of this host, through the kernel's own interface: plain ioctls, nothing but the standard library.

::

    devices.py   devices by name, and an entry's options    probe.py   which can migrate, and why others cannot
    backend.py   states, reads and writes, abort            host.py    what sysfs says of a device
    access.py    group and container, or iommufd            calls.py   the calls into the kernel, and its refusals
    abi.py       numbers and structures
"""

from __future__ import annotations

from migpool_plugins.vfio.kernel.devices import open_kernel

__all__ = ["open_kernel"]
