"""Checks of what a real run shows, on a host that has other things to do, too."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path


def undisturbed(check: Callable[[Path], None], where: Path) -> None:
    """Check one run after the other until one passes, three at most: a host that stands still for some turns changes
    what a run shows.

    A pass that was not the first is told of by a warning, with what the runs before it showed.

    Arguments:
        check: makes a run in the directory that it is given, and asserts what it must show.

    Raises:
        AssertionError: what the third showed.
    """
    failed: list[str] = []
    for number in range(3):
        place = where / str(number)
        place.mkdir()
        try:
            check(place)
        except AssertionError as error:
            if number == 2:
                raise
            failed.append(str(error).partition("\n")[0])
        else:
            break
    if failed:
        warnings.warn(f"retried: run {len(failed) + 1} passed, but before: {'; '.join(failed)}", stacklevel=2)
