"""How much the kits do here: as much as for a user in the long profile, less of the same in the short one."""

from __future__ import annotations

import pytest

from migpool.conformance.devices import migrating
from tests.support import LONG

POSITIONS, WARM_UP, REPEATS = 3, 2, 5
"""Waits of each side that are cancelled at, and how often a check migrates that looks for what is left; see there."""


@pytest.fixture(autouse=True)
def less_of_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if not LONG:
        monkeypatch.setattr(migrating, "POSITIONS", POSITIONS)
        monkeypatch.setattr(migrating, "WARM_UP", WARM_UP)
        monkeypatch.setattr(migrating, "REPEATS", REPEATS)
