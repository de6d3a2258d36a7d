"""VFIO devices of this host, through the kernel's own interface: plain ioctls, nothing but the standard library.

::

    opening.py   devices by name, to backends           probe.py     which devices can migrate, and why others cannot
    backend.py   states, reads and writes, abort        host.py      what sysfs says of a device
    access.py    group and container, or iommufd        refusals.py  error numbers, as a line that says what to do
    features.py  the requests about migration           calls.py     the calls into the kernel; tests have their own
    abi.py       numbers and structures
"""

from __future__ import annotations

from migpool_plugins.vfio.kernel.opening import open_kernel

__all__ = ["open_kernel"]
