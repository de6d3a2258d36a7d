"""How much the kit does here: see :mod:`tests.support.amounts`."""

from __future__ import annotations

import pytest

from tests.support.amounts import less_of_the_same


@pytest.fixture(autouse=True)
def amounts(monkeypatch: pytest.MonkeyPatch) -> None:
    less_of_the_same(monkeypatch)
