"""Lists of buffers on their way to ``writev`` and ``sendmsg``, which may take a part of them."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["MOST_BUFFERS", "after"]

MOST_BUFFERS: Final = os.sysconf("SC_IOV_MAX")
"""How many buffers one call may have."""


def after(buffers: list[memoryview], count: int) -> list[memoryview]:
    """What is left of the buffers behind the first ``count`` bytes."""
    for number, buffer in enumerate(buffers):
        if count < len(buffer):
            return [buffer[count:], *buffers[number + 1 :]]
        count -= len(buffer)
    return []
