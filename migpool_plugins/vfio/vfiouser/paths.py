"""How the sockets of several devices are named, at the server and at its client."""

from __future__ import annotations

__all__ = ["socket_paths"]


def socket_paths(path: str, count: int) -> list[str]:
    """The sockets of ``count`` devices: ``path`` itself for one, else ``path`` with .0, .1 and so on."""
    return [path] if count == 1 else [f"{path}.{number}" for number in range(count)]
