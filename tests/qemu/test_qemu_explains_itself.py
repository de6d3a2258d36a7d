"""Two real QEMUs migrate with their tracepoints on; ``migpool explain`` says what their own checkpoints say."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from tests.qemu.qemuprocess import Json
from tests.qemu.tool import migpool
from tests.qemu.traced_pair import PLAIN, Pair

pytestmark = pytest.mark.alone  # what took how long is compared with what is said of it

CARDS = 4
ALL = (
    "vmstate_downtime*",
    "savevm_*",
    "qemu_loadvm*",
    "loadvm_*",
    "multifd_*",
    "migrat*",
    "source_return_path*",
    "vfio_*",
)


def migrated(
    directory: Path, channels: int, tracepoints: tuple[str, ...], *, postcopy: bool = False
) -> tuple[Path, Path]:
    """Migrate once; the logs of both sides. With post-copy the memory goes on for a second after the machine runs."""
    slow: dict[str, Json] = {"max-bandwidth": 200_000, "max-postcopy-bandwidth": 300_000} if postcopy else {}
    machine = (*PLAIN, *("-device", "e1000e") * CARDS)
    pair = Pair(machine, channels, tracepoints, parameters=slow, postcopy=postcopy)
    source, destination, _ = pair.migrate(directory)
    return source, destination


def checkpoint(log: Path, name: str) -> float:
    """When it was, in milliseconds: QEMU 11 writes a date."""
    text = log.read_text()
    found = re.search(
        rf"(?:@(\d+)|^(\S{{19}}))\.(\d{{6}})(?::|Z )vmstate_downtime_checkpoint {name}$", text, re.MULTILINE
    )
    assert found, text[-2000:]
    seconds = int(found[1]) if found[1] else datetime.fromisoformat(f"{found[2]}+00:00").timestamp()
    return seconds * 1e3 + int(found[3]) / 1e3


@pytest.mark.parametrize("channels", [0, 2])
@pytest.mark.parametrize("tracepoints", [ALL, ALL[:1]], ids=["all", "checkpoints alone"])
def test_the_downtime_is_that_of_its_checkpoints_and_adds_up(
    tmp_path: Path, channels: int, tracepoints: tuple[str, ...]
) -> None:
    source, destination = migrated(tmp_path, channels, tracepoints)
    ended = migpool("explain", str(source), str(destination), "--json", str(tmp_path / "result.json"))
    assert (ended.code, ended.err) == (0, "")
    (run,) = json.loads((tmp_path / "result.json").read_text())["runs"]
    expected = checkpoint(destination, "dst-precopy-bh-vm-started") - checkpoint(source, "src-downtime-start")
    assert run["downtime_ms"] == pytest.approx(expected, abs=0.01)
    assert sum(run["attribution"].values()) == pytest.approx(expected, abs=0.01)
    assert run["analysis"]["replayed_ms"] == pytest.approx(expected, abs=0.01)
    loaded = {
        run["devices"][span[1]]["name"] for span in run["analysis"]["trace"]["destination"]["spans"] if span[1] >= 0
    }
    assert sum("e1000e" in name for name in loaded) == CARDS
    assert not any("form that is not known" in remark for remark in run["remarks"])


def test_the_downtime_of_a_post_copy_is_that_of_its_checkpoints(tmp_path: Path) -> None:
    source, destination = migrated(tmp_path, 0, ALL, postcopy=True)
    ended = migpool("explain", str(source), str(destination), "--json", str(tmp_path / "result.json"))
    assert (ended.code, ended.err) == (0, "")
    (run,) = json.loads((tmp_path / "result.json").read_text())["runs"]
    expected = checkpoint(destination, "dst-postcopy-bh-vm-started") - checkpoint(source, "src-downtime-start")
    assert run["downtime_ms"] == pytest.approx(expected, abs=0.01)
    assert sum(run["attribution"].values()) == pytest.approx(expected, abs=0.01)
    assert run["analysis"]["replayed_ms"] == pytest.approx(expected, abs=0.01)
    assert run["attribution"].get("device write", 0) == 0


@pytest.mark.parametrize("channels", [0, 4])
def test_what_is_simulated_of_it_takes_as_long(tmp_path: Path, channels: int) -> None:
    logs = [str(log) for log in migrated(tmp_path, channels, ALL)]
    made = migpool("scenario", "from", *logs, "-o", str(tmp_path / "made.toml"))
    assert (made.code, made.err.partition(" is written")[0]) == (0, str(tmp_path / "made.toml"))
    ended = migpool("simulate", str(tmp_path / "made.toml"), "--models", "qemu", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    expected = checkpoint(tmp_path / "destination.log", "dst-precopy-bh-vm-started")
    expected -= checkpoint(tmp_path / "source.log", "src-downtime-start")
    assert found["channels"] == max(1, channels)
    # A thread that was held up for long is not told from one that worked, where the host is busy.
    assert found["models"][0]["downtime_ms"] == pytest.approx(expected, rel=0.25)
