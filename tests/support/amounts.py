"""How much is done here of what costs processors and proves little more: in the long profile what a user gets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from migpool.conformance.devices import migrating
from migpool.core import buffers
from tests.support import LONG

if TYPE_CHECKING:
    import pytest

POSITIONS, WARM_UP, REPEATS = 2, 1, 3
"""Waits of each side that are cancelled at, and how often a check migrates that looks for what is left; see there."""
TOUCHED: Final = 1 << 20
"""Bytes of a migration's buffers that have their pages from the beginning."""
LESS: Final = "MIGPOOL_TEST_KIT_DOES_LESS"
"""A variable with which processes that are forked do less too."""


def less_of_the_same(monkeypatch: pytest.MonkeyPatch, **more: object) -> None:
    """Have the checks do so much in this process, and in those that it starts. ``more``: what else they know."""
    if not LONG:
        change(partial(monkeypatch.setattr, migrating), **more)
        monkeypatch.setenv(LESS, "1")


def change(setting: Callable[[str, object], None], **more: object) -> None:
    """Set the amounts of the short profile."""
    for name, amount in {"POSITIONS": POSITIONS, "WARM_UP": WARM_UP, "REPEATS": REPEATS, **more}.items():
        setting(name, amount)


def touch_fewer_pages() -> None:
    """Have migrations begin with a few pages; the 64 MiB of a user's take longer than all else of a small one."""
    if not LONG:
        buffers.READY = TOUCHED
