"""Linux's namespaces of networks and clocks.

None has a name anywhere, so each is gone with the last process in it and the last descriptor of it, whatever ends them.
"""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path
from typing import Final

from migpool.errors import UsageError

_NEW_NETWORK: Final = 0x4000_0000
_NEW_TIME: Final = 0x80
_CLOCKS: Final = ("monotonic", "boottime")


def new_network() -> int:
    """Have the calling thread enter a network namespace of its own; returns a descriptor of it.

    Raises:
        UsageError: this user may not.
    """
    _call("unshare", _NEW_NETWORK)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter_network(descriptor: int) -> None:
    """Have the calling thread, and what it starts from now on, enter a network namespace.

    Raises:
        UsageError: this user may not.
    """
    _call("setns", descriptor, _NEW_NETWORK)


def shift_clocks(seconds: float) -> None:
    """Set this process's CLOCK_MONOTONIC and CLOCK_BOOTTIME forward, and those of what it starts from now on.

    Arguments:
        seconds: not negative; CLOCK_REALTIME cannot be shifted so.

    Raises:
        UsageError: this user may not, the kernel has no time namespaces, or this process has threads already.
    """
    _call("unshare", _NEW_TIME)
    part, whole = math.modf(seconds)
    text = "".join(f"{clock} {int(whole)} {int(part * 1e9)}\n" for clock in _CLOCKS)
    Path("/proc/self/timens_offsets").write_text(text, "ascii")
    descriptor = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", descriptor, _NEW_TIME)
    finally:
        os.close(descriptor)


def _call(name: str, *arguments: int) -> None:
    # os.unshare and os.setns are younger than the oldest Python that this runs with.
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        reason = os.strerror(ctypes.get_errno())
        raise UsageError(
            f"[link]: a real link needs namespaces, which the system refuses ({name}: {reason}): "
            "run as root, or set link.impose = false"
        )
