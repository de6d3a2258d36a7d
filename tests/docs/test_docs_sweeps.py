"""The example of ``docs/sweeps.md`` is the file beside it, runs, and can be read as the page says."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support import ROOT
from tests.support.commandline import migpool
from tests.support.sweeps import rows

EXAMPLE = ROOT / "docs" / "examples" / "sweep.toml"


def test_the_example_is_what_the_page_shows() -> None:
    assert f"```toml\n{EXAMPLE.read_text()}```" in (ROOT / "docs" / "sweeps.md").read_text()


def test_the_example_runs(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path / "sweep.toml")
    results = tmp_path / "sweep-devices-and-channels"
    ended = migpool("lab", "sweep", str(tmp_path / "sweep.toml"), "--results", str(results))
    assert ended.code == 0, ended.err
    found = rows(results)
    assert len(found) == 3 * 2 * 3 * 4
    assert {row["outcome"] for row in found} == {"simulated"}
    one, many = (
        [row["downtime_ms"] for row in found if row["devices.0.count"] == count and row["model"] == "inline"]
        for count in (1, 8)
    )
    assert min(many) > max(one[:1])
    assert "devices.0.options.load_config_time: " in ended.out
    assert (results / "index.html").read_text().count('id="map"') == 1
