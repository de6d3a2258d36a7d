"""What a QEMU writes into files and disk images of every kind is walked to its end, and every device is decoded."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from migpool import streams
from tests.qemu.qemu_guest import set_up
from tests.qemu.qemuprocess import LIMIT, Json, QemuProcess, qemu_here
from tests.support.commandline import here

MACHINE = ("-accel", "tcg", "-machine", "q35", "-m", "32", "-nodefaults", "-display", "none", "-S")


def machine(tmp_path: Path, *more: str) -> QemuProcess:
    """A machine that does not run: its firmware has been put into its memory, and that is all."""
    program = qemu_here()
    assert program is not None
    return QemuProcess([*program.command, *MACHINE, *more], tmp_path / "log")


def whole(path: Path, *options: str) -> dict[str, object]:
    """The document of a file, once the command has walked all of it."""
    ended = here("inspect", str(path), "--json", "--device", "*", *options)
    assert (ended.code, ended.err) == (0, "")
    document: dict[str, object] = json.loads(ended.out)
    devices = document["devices"]
    assert isinstance(devices, list)
    assert len(devices) > 20
    assert all(device["exact"] for device in devices)
    return document


def pages(document: dict[str, object]) -> dict[str, int]:
    ram = document["ram"]
    assert isinstance(ram, dict)
    return {key: ram[key] for key in ("normal", "zero", "xbzrle", "zlib")}


@pytest.mark.parametrize(
    ("capabilities", "offset"),
    [
        ((), 0),
        ((), 0x3000),
        (("mapped-ram",), 0),
        (("mapped-ram",), 0x3000),
        (("mapped-ram", "multifd"), 0),
        (("xbzrle",), 0),
        (("x-ignore-shared",), 0),
    ],
)
def test_a_file_of_any_kind_is_walked_to_its_end(capabilities: Sequence[str], offset: int, tmp_path: Path) -> None:
    file = tmp_path / "vm.mig"
    with machine(tmp_path) as qemu:
        set_up(qemu, channels=0, capabilities=capabilities)
        qemu.execute("migrate", {"uri": f"file:{file}" + (f",offset={offset}" if offset else "")})
        assert qemu.wait_for_status("completed", "failed") == "completed"
    document = whole(file)
    found = pages(document)
    assert found["normal"] > 0
    assert (found["zero"] > 0) is ("mapped-ram" not in capabilities)
    assert len(list(document["envelope"])) == bool(offset)  # type: ignore[call-overload]
    given = ["--offset", str(offset)] if offset else []
    assert pages(whole(file, *given)) == found


def job(qemu: QemuProcess, command: str, arguments: dict[str, Json]) -> None:
    """Run a job to its end."""
    qemu.execute(command, {**arguments, "job-id": "job"})
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        jobs = qemu.execute("query-jobs")
        assert isinstance(jobs, list)
        (found,) = jobs
        assert isinstance(found, dict)
        if found["status"] == "concluded":
            assert "error" not in found, found
            qemu.execute("job-dismiss", {"id": "job"})
            return
        time.sleep(0.01)
    raise AssertionError(f"{command} did not end")


def test_a_snapshot_inside_of_a_disk_image_is_read_without_any_tool(tmp_path: Path) -> None:
    disk, file = tmp_path / "disk.qcow2", tmp_path / "vm.mig"
    with machine(tmp_path) as qemu:
        job(qemu, "blockdev-create", {"options": {"driver": "file", "filename": str(disk), "size": 0}})
        qemu.execute("blockdev-add", {"driver": "file", "node-name": "file", "filename": str(disk)})
        job(qemu, "blockdev-create", {"options": {"driver": "qcow2", "file": "file", "size": 64 << 20}})
        qemu.execute("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": "file"})
        for tag in ("first", "second"):
            job(qemu, "snapshot-save", {"tag": tag, "vmstate": "disk", "devices": ["disk"]})
        set_up(qemu, channels=0)
        qemu.execute("migrate", {"uri": f"file:{file}"})
        assert qemu.wait_for_status("completed", "failed") == "completed"
    assert here("inspect", str(disk)).code == 2
    for tag in ("first", "second"):
        assert pages(whole(disk, "--snapshot", tag)) == pages(whole(file))
    with streams.open(disk, snapshot="first") as stream, streams.open(file) as plain:
        assert [(one.idstr, one.size) for one in stream.sections if one.kind == "FULL"] == [
            (one.idstr, one.size) for one in plain.sections if one.kind == "FULL"
        ]
