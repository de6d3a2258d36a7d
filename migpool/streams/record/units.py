"""Bytes and times as a reader of an explanation wants them."""

from __future__ import annotations

__all__ = ["seconds", "size"]


def size(count: int) -> str:
    """A number of bytes: "512 B", "3.0 MiB"."""
    if count < 1024:
        return f"{count} B"
    power = min(4, (count.bit_length() - 1) // 10)
    return f"{count / 1024**power:.1f} {'KMGT'[power - 1]}iB"


def seconds(nanoseconds: int) -> str:
    """A time in nanoseconds: "12.345 s"; under a second in ms."""
    return f"{nanoseconds / 1e6:.1f} ms" if nanoseconds < 10**9 else f"{nanoseconds / 1e9:.3f} s"
