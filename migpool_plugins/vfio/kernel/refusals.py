"""What a driver's error numbers become: one line with the device, what was asked, the number's name, and what to do."""

from __future__ import annotations

import errno
import os

from migpool_plugins.vfio.backend import BackendError

__all__ = ["refusal"]


def refusal(device: str, what: str, error: OSError, remedy: str) -> BackendError:
    """Return the error for a call that a driver refused.

    Arguments:
        device: the device's name.
        what: what it was asked ("to become STOP_COPY").
        error: what came back.
        remedy: what to do about it.
    """
    number = error.errno or 0
    name = errno.errorcode.get(number, str(number))
    return BackendError(f"{device} refused {what} with {name} ({os.strerror(number)}): {remedy}", number)
