"""The library for programs: a stream is opened, walked, decoded and compared as its page says."""

from __future__ import annotations

import errno
import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from migpool import streams
from migpool.errors import UsageError
from migpool.streams.record.index import Role
from migpool.wire.configuration import Configuration
from migpool.wire.ram import RamBlocks, RamPages
from migpool.wire.stream import Eof, FileHeader, VmDescription
from tests.support import DATA, ROOT
from tests.support.made_recordings import Made, recording
from tests.support.other_streams import RICH, other_path

SMALL = DATA / "qemu-streams" / "q35-min.mig"


def test_the_page_does_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vm.mig", "old.mig"):
        (tmp_path / name).write_bytes(RICH.read_bytes())
    (tmp_path / "new.mig").write_bytes(gzip.compress(SMALL.read_bytes()))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "streams.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "walked to the last byte" in done.stdout
    assert "FULL 0000:00:1f.2/ich9_ahci 4168" in done.stdout
    assert "e1000e" in done.stdout.partition("walked to the last byte")[2]


def test_the_example_says_whose_state_grew(tmp_path: Path) -> None:
    cut = tmp_path / "cut.mig"
    cut.write_bytes(RICH.read_bytes()[:-40000])
    for after, complained in ((RICH, False), (cut, True)):
        done = subprocess.run(
            [sys.executable, str(ROOT / "docs" / "examples" / "grown.py"), str(SMALL), str(after)],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        first, second, *_ = done.stdout.splitlines()
        assert first.split() == ["+136069", "bytes", "0000:00:01.0/e1000e#0"]
        assert second.split() == ["+46143", "bytes", "0000:00:02.0/virtio-net#0"]
        assert bool(done.stderr) is complained


def test_items_come_in_the_order_of_the_stream_and_the_summary_has_the_rest() -> None:
    with streams.open(RICH, keep=()) as stream:
        items = iter(stream)
        assert [type(next(items)) for _ in range(2)] == [FileHeader, Configuration]
        kinds = [type(item) for item in items]
        assert kinds.index(RamBlocks) < kinds.index(RamPages)
        assert kinds[-2:] == [Eof, VmDescription]
        assert stream.offset == stream.summary.walked == RICH.stat().st_size
        assert stream.devices() == []
    with streams.open(RICH) as stream:
        next(iter(stream))
        assert len(stream.sections) == 42
        assert [device.section.idstr for device in stream.devices("hpet", "rtc")] == ["hpet"]
        assert all(device.exact for device in stream.devices())


def test_what_was_damaged_is_there_up_to_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mig"
    data = bytearray(RICH.read_bytes())
    data[-90_000] ^= 0xFF  # in a footer or a payload of one of the last devices, or in the JSON
    path.write_bytes(data[:300_000])
    with streams.open(path) as stream:
        assert stream.summary.problem is not None
        assert len(stream.sections) > 30


def test_a_recording_is_its_main_channel_with_its_devices(tmp_path: Path) -> None:
    made = recording(tmp_path / "r", [Made(Role.MAIN, None, [(1, RICH.read_bytes())])])
    with streams.open(made) as stream:
        assert [device.section.idstr for device in stream.devices("apic#1")] == ["apic"]
    assert streams.diff(made, RICH) == []


def test_two_machines_are_compared_whatever_they_are_wrapped_in() -> None:
    assert any(change.path.startswith("0000:00:01.0/e1000e") for change in streams.diff(RICH, SMALL))
    undescribed = streams.diff(other_path("none-no-description"), SMALL)
    assert any("a stream has no description" in change.reason for change in undescribed)
    with pytest.raises(UsageError, match="cannot be read"):
        streams.open("/nowhere/vm.mig")


def test_a_disk_that_fails_under_the_walk_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with streams.open(RICH, keep=()) as stream:

        def fail(*_: object) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(UsageError, match=r"q35-rich\.mig cannot be read: Input/output error"):
            _ = stream.summary
