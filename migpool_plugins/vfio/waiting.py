"""Whether a descriptor can be waited on: asked of the kernel, since a driver's own word is not enough."""

from __future__ import annotations

import select
from contextlib import suppress

__all__ = ["epoll_accepts"]


def epoll_accepts(fd: int) -> bool:
    """Whether a descriptor can really be waited on.

    ``poll`` calls a descriptor ready at once whose driver cannot say when it is; only epoll refuses it (EPERM).
    """
    with select.epoll(1) as selector, suppress(PermissionError):
        selector.register(fd, select.EPOLLIN)
        return True
    return False
