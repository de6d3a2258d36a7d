"""How much the kit for device authors does here: in the long profile what a user gets, in the short one less of it."""

from __future__ import annotations

import pytest

from migpool.conformance.devices import migrating
from tests.support import LONG

POSITIONS, WARM_UP, REPEATS = 2, 1, 3
"""Waits of each side that are cancelled at, and how often a check migrates that looks for what is left; see there."""


def less_of_the_same(monkeypatch: pytest.MonkeyPatch, *, failed: tuple[int, ...] = migrating.FAILED) -> None:
    """Have the checks do so much in this process. ``failed``: which calls of a method fail."""
    if not LONG:
        monkeypatch.setattr(migrating, "POSITIONS", POSITIONS)
        monkeypatch.setattr(migrating, "WARM_UP", WARM_UP)
        monkeypatch.setattr(migrating, "REPEATS", REPEATS)
        monkeypatch.setattr(migrating, "FAILED", failed)
