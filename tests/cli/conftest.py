"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commandline import Fifo, Holding, MakeHolding, announced, scenario_file


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[MakeHolding]:
    """Makes a scenario whose device holds still in a method at a side."""
    fifos: list[Fifo] = []

    def make(method: str, side: str, *, seconds: float = 60, tables: str = "") -> Holding:
        fifo = Fifo(tmp_path / "fifo")
        fifos.append(fifo)
        path = announced(tmp_path, "holding", "[migpool.devices]\nholding = tests.support.holding_device:devices\n")
        device = (
            f'plugin = "holding"\n'
            f'options = {{hold = "{method}", side = "{side}", fifo = "{fifo.path}", seconds = {seconds}}}'
        )
        limits = "[limits]\npeer = 20\nconnect = 10\naccept = 30\n"
        scenario = scenario_file(tmp_path / "holding.toml", [device], f"{limits}\n{tables}")
        return Holding(scenario, fifo, {"PYTHONPATH": path})

    yield make
    for fifo in fifos:
        fifo.close()
