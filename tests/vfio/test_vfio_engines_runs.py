"""Whole migrations of emulated devices with engines: under every installed model, and where their time went."""

from __future__ import annotations

from pathlib import Path

import pytest

from migpool.scenario.model_syntax import all_models
from tests.support import LONG
from tests.support.commandline import migpool

SCENARIO = """
name = "engines"
[memory]
chunk = "64KiB"
[[devices]]
plugin = "vfio"
count = 2
options = {{profile = "tiny", size = "1MiB", engines = 3, transport = "{transport}", read_rate = "256MiB"}}
"""


@pytest.mark.parametrize("transport", ["descriptor", "vfio-user"])
def test_every_model_moves_them_and_says_where_the_time_went(transport: str, tmp_path: Path) -> None:
    # In the short profile under every other one, those that the other transport has not.
    models = all_models() if LONG else all_models()[transport == "descriptor" :: 2]
    scenario = tmp_path / "engines.toml"
    scenario.write_text(SCENARIO.format(transport=transport))
    compared = migpool(
        *("compare", str(scenario), "--models", ",".join(models), "--repeats", "1"),
        *("--report", str(tmp_path / "report.html")),
    )
    assert compared.code == 0, compared.err
    assert compared.out.count("1/1 yes") == len(models)
