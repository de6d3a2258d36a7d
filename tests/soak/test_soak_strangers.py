"""Migrations to a port that strangers flood: before, between and during them, and all complete."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.flood import migrate

pytestmark = pytest.mark.soak

COUNT = int(os.environ.get("MIGPOOL_SOAK", "1000")) // 5


@pytest.mark.timeout(5 * COUNT + 180)
@pytest.mark.parametrize("model", ["per-device+receiver", "pool"])
def test_all_complete_while_strangers_come(tmp_path: Path, model: str) -> None:
    assert migrate(COUNT // 2, model, tmp_path).connected
