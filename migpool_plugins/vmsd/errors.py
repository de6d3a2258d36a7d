"""What is wrong with a description; what is wrong with the bytes is a :class:`migpool.errors.DeviceError`."""

from __future__ import annotations

from migpool.errors import UsageError

__all__ = ["DescriptionError"]


class DescriptionError(UsageError):
    """A description of device state contradicts itself, or the file it was to be read from holds none.

    The message is one line; for a description written in Python it begins with the file and line of the declaration.
    """
