"""Decoded values as text: one line a value, with its whole path, so that two states can be compared line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from migpool_plugins.vmsd.codec import Shown

__all__ = ["lines"]

_LONGEST = 96


def lines(shown: Mapping[str, Shown], *, full: bool = False) -> Iterator[str]:
    """Say every value of a decoded state on a line of its own: ``timers[0].expires = ff ff ff ff ff ff ff ff``.

    Arguments:
        shown: what :meth:`Description.show <migpool_plugins.vmsd.description.Description.show>` returned.
        full: show raw bytes of any length; otherwise long ones are cut and counted.
    """
    for name, value in shown.items():
        yield from _lines(name, value, full)


def _lines(path: str, value: Shown, full: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _lines(f"{path}.{name}", inner, full)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _lines(f"{path}[{index}]", inner, full)
    elif isinstance(value, bool):
        yield f"{path} = {'true' if value else 'false'}"
    elif full or len(value) <= _LONGEST:
        yield f"{path} = {value}"
    else:
        yield f"{path} = {value[: _LONGEST - 1]} ... ({(len(value) + 1) // 3} bytes)"
