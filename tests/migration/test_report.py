"""What a side's report says of the process and the host that it ran on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from migpool.migration.report import processors_short
from migpool.migration.states import State
from tests.support.rig import Scripted, contents, migrate

MAPPED = """
import sys
from migpool.migration.report import peak_rss
from migpool_plugins.memory import Memory, shared_file
before, size = peak_rss(), 64 << 20
memory = Memory(size, resident=True, descriptor=shared_file(size) if sys.argv[1] == "shared" else -1)
print((peak_rss() - before) >> 20)
"""


@pytest.mark.parametrize(("kind", "least", "most"), [("shared", -1, 8), ("own", 60, 80)])
def test_the_peak_resident_size_is_without_memory_that_is_shared(kind: str, least: int, most: int) -> None:
    told = subprocess.run([sys.executable, "-c", MAPPED, kind], capture_output=True, text=True, timeout=120, check=True)
    assert least <= int(told.stdout) <= most


def test_both_sides_say_for_how_long_processors_were_short_if_the_system_tells(tmp_path: Path) -> None:
    for report in migrate(tmp_path, [Scripted(state=contents(100_000))], [Scripted()]):
        assert report.outcome is State.COMPLETED
        assert (report.processors_short is None) is (processors_short() is None)
        assert (report.processors_short or 0) >= 0


def test_a_side_that_has_no_downtime_does_not_say_it(tmp_path: Path) -> None:
    broken = Scripted()
    broken.fail_in("load_setup")
    for report in migrate(tmp_path, [Scripted(state=contents(100_000))], [broken]):
        assert report.outcome is State.FAILED
        assert report.processors_short is None


@pytest.mark.parametrize("text", ["", "full avg10=0.00\n", "some avg10=1.00 avg60=1.00 avg300=1.00 total=x\n"])
def test_what_the_system_tells_otherwise_is_not_known(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, encoding: str) -> str:
        assert (str(path), encoding) == ("/proc/pressure/cpu", "ascii")
        return text

    monkeypatch.setattr(Path, "read_text", read)
    assert processors_short() is None
    monkeypatch.setattr(Path, "read_text", lambda *_: "some avg10=0.00 avg60=0.00 avg300=0.00 total=1234\n")
    assert processors_short() == 1_234_000
