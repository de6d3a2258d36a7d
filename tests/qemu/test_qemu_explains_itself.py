"""Two real QEMUs migrate with their tracepoints on; ``migpool explain`` says what their own checkpoints say."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from tests.qemu.qemu_guest import set_up
from tests.qemu.qemuprocess import QemuProcess, qemu_here
from tests.qemu.tool import migpool

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


def machine(directory: Path, side: str, *more: str) -> QemuProcess:
    found = qemu_here()
    assert found is not None
    cards = [word for _ in range(CARDS) for word in ("-device", "e1000e")]
    arguments = [
        *found.command,
        "-accel",
        "tcg",
        "-machine",
        "q35",
        "-m",
        "64",
        "-nodefaults",
        "-display",
        "none",
        *cards,
    ]
    log = ("-msg", "timestamp=on", "-D", str(directory / f"{side}.log"))
    return QemuProcess([*arguments, *log, *more], directory / f"{side}.err")


def migrated(
    directory: Path, channels: int, tracepoints: tuple[str, ...], *, postcopy: bool = False
) -> tuple[Path, Path]:
    """Migrate once; the logs of both sides. With post-copy the memory goes on for a second after the machine runs."""
    with machine(directory, "source") as source, machine(directory, "destination", "-incoming", "defer") as destination:
        for qemu in (source, destination):
            for name in tracepoints:
                qemu.execute("trace-event-set-state", {"name": name, "enable": True, "ignore-unavailable": True})
            set_up(qemu, channels=channels, capabilities=["return-path", *["postcopy-ram"] * postcopy])
        if postcopy:
            source.execute("migrate-set-parameters", {"max-bandwidth": 200_000, "max-postcopy-bandwidth": 300_000})
        address = f"unix:{directory}/migration"
        destination.execute("migrate-incoming", {"uri": address})
        source.execute("migrate", {"uri": address})
        if postcopy:
            assert source.wait_for_status("active", "failed") == "active"
            source.execute("migrate-start-postcopy")
            assert source.wait_for_status("postcopy-active", "failed") == "postcopy-active"
            source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 0})
        assert source.wait_for_status("completed", "failed") == "completed"
        assert destination.wait_for_status("completed", "failed") == "completed"
    return directory / "source.log", directory / "destination.log"


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
    assert (made.code, made.err) == (0, "")
    ended = migpool("simulate", str(tmp_path / "made.toml"), "--models", "qemu", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    expected = checkpoint(tmp_path / "destination.log", "dst-precopy-bh-vm-started")
    expected -= checkpoint(tmp_path / "source.log", "src-downtime-start")
    assert found["channels"] == max(1, channels)
    # A thread that was held up for long is not told from one that worked, where the host is busy.
    assert found["models"][0]["downtime_ms"] == pytest.approx(expected, rel=0.25)
