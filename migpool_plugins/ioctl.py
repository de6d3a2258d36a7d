"""ioctl(2), the same on every Python: one call that tells of an interruption, and one that goes on after it.

``fcntl.ioctl`` raises ``InterruptedError`` up to Python 3.13 where the kernel says EINTR. From 3.14 on it makes the
call again unless a signal handler raises: for ever where EINTR is the answer and not an accident, as with KVM_RUN and
``immediate_exit``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from dataclasses import dataclass
from typing import Final

__all__ = ["Request", "ioctl", "ioctl_once"]

# A CDLL gives up the interpreter lock during the call, and keeps errno for the thread that made it.
_ioctl: Final = ctypes.CDLL(None, use_errno=True).ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)
_ioctl.restype = ctypes.c_int


@dataclass(frozen=True, slots=True)
class Request:
    """One ioctl: its name in the kernel's headers, and its number."""

    name: str
    number: int

    @property
    def size(self) -> int:
        """Of the structure that it reads or writes (without what follows a variable one), in bytes, if it says so."""
        return self.number >> 16 & 0x3FFF


def ioctl_once(fd: int, number: int, argument: int = 0) -> int:
    """Make one ioctl, one time.

    Arguments:
        fd: whom to ask.
        number: what.
        argument: a number, or an address that stays valid during the call.

    Returns:
        What the ioctl returned.

    Raises:
        InterruptedError: a signal ended it, or it ends in this way by itself.
        OSError: any other error.
    """
    result: int = _ioctl(fd, number, argument)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def ioctl(fd: int, number: int, argument: int | bytearray = 0) -> int:
    """Make one ioctl, again after each interruption; a ``bytearray`` is read or filled in place.

    Signal handlers run in between, and what one raises ends the call. Read nothing from the ``bytearray`` after an
    error: from Python 3.14 on, what the kernel then wrote is lost if it has 1024 bytes or less.

    Raises:
        OSError: the kernel refused it.
    """
    while True:
        try:
            return fcntl.ioctl(fd, number, argument)
        except InterruptedError:
            continue
