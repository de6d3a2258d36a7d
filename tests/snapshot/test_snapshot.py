"""A running machine is saved into a file and goes on from there; and runs on where it was if it cannot be saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.device import Device
from migpool.errors import Cancelled, DeviceError, MigpoolError, PeerError, ProtocolError
from migpool.migration.settings import Settings
from migpool.precopy.rounds import Round
from migpool.streams.file.file import StreamFile
from migpool.streams.inspect.reading import inspect_file
from migpool.streams.snapshot.loading import SnapshotLoading
from migpool.streams.snapshot.saving import SnapshotSaving
from tests.support.commandline import here, migpool
from tests.support.guests import guest, need, steps
from tests.support.paper import PAGE, Paper, Writer
from tests.support.rig import KIB, Scripted, contents

SETTINGS = Settings(chunk=64 * KIB)
LIMIT = 60


def on() -> None:
    """Nothing stops it."""


def save(devices: list[Device], path: Path, rounds: list[Round] | None = None) -> None:
    with StreamFile(path) as file:
        SnapshotSaving(Machine("machine", devices), SETTINGS, file, on, None if rounds is None else rounds.append).run()
        file.keep()


def load(devices: list[Device], path: Path) -> None:
    SnapshotLoading(Machine("machine", devices), on).run(path)


def test_everything_of_a_machine_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    paper, state = Paper(700, 2), contents(300 * KIB)
    for page in range(0, 700, 2):
        paper.write(0, page, bytes([page % 255 + 1]) * PAGE)
    writer = Writer(paper, 90, 0.001)
    writer.run()
    rounds: list[Round] = []
    save([paper, writer, Scripted(1, state), Scripted(2, None)], path, rounds)
    assert rounds
    assert not paper.logging
    copy, after, much, little = Paper(700, 2), Writer(None), Scripted(1), Scripted(2, None)
    load([copy, after, much, little], path)
    assert copy.contents() == paper.contents()
    assert after.written == writer.written
    assert bytes(much.got) == state
    assert (much.got_config, little.got_config) == (b"config of device-1", b"config of device-2")
    assert [device.calls[-2:] for device in (much, little)] == [["start", "verify"]] * 2


def test_the_file_is_one_that_inspect_reads(tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    paper = Paper(10)
    paper.write(0, 3, b"x")
    paper.take_dirty(0)
    save([paper, Scripted(2, None)], path)
    summary = inspect_file(path)
    assert summary.problem is None
    assert [(block.name, block.normal, block.zero) for block in summary.blocks] == [("block-0", 1, 9)]


@pytest.mark.parametrize("backend", ["kvm", "unicorn"])
def test_a_guest_goes_on_from_a_file(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "guest.mig"
    with guest("source", backend) as here:
        save(here, path)
        before = steps(here)
    with guest("destination", backend) as there:
        load(there, path)  # every device verifies itself
        assert all(now > then for now, then in zip(steps(there), before, strict=True))


def test_a_machine_that_cannot_be_saved_runs_on(tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    paper, bad = Paper(50), Scripted(1, contents(1000))
    writer = Writer(paper, 20, 0.001)
    bad.fail_in("save_state")
    writer.run()
    try:
        with pytest.raises(DeviceError, match="device-1, chunk 0: told to fail in save_state"):
            save([paper, writer, bad], path)
        assert writer.running
        assert bad.calls[-1] == "resume"
        assert not paper.logging
    finally:
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_is_cancelled_leaves_the_guest_and_no_file(tmp_path: Path) -> None:
    need("kvm")
    path = tmp_path / "guest.mig"
    left = 10

    def check() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Cancelled("cancelled")

    with guest("source", "kvm") as made:
        before = steps(made)
        with pytest.raises(Cancelled), StreamFile(path) as file:
            SnapshotSaving(Machine("machine", made), SETTINGS, file, check).run()
        for device in made:
            device.verify()
        assert all(now > then for now, then in zip(steps(made), before, strict=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_a_file_that_is_cut_starts_nothing(part: float, tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    paper = Paper(100)
    paper.write(0, 3, b"x" * PAGE)
    save([paper, Scripted(1, contents(5000))], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    device = Scripted(1)
    with pytest.raises(MigpoolError):
        load([Paper(100), device], path)
    assert "start" not in device.calls


def test_a_file_of_another_machine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    save([Paper(100)], path)
    with pytest.raises(ProtocolError, match="block-0 with 409600 bytes: start both ends alike"):
        load([Paper(50)], path)
    with pytest.raises(ProtocolError, match="found RAM: it has no memory"):
        load([Scripted(1, None)], path)
    with pytest.raises(PeerError, match="ends without device-1: it is of another machine"):
        load([Paper(100), Scripted(1, None)], path)


def test_the_commands(tmp_path: Path) -> None:
    need("kvm")
    scenario, path = tmp_path / "small.toml", tmp_path / "small.mig"
    scenario.write_text(
        'name = "small"\n[[devices]]\nplugin = "guest"\noptions = {memory = "16MiB", rate = 2000, backend = "kvm"}\n'
    )

    options = ("--scenario", str(scenario))
    saved = migpool("snapshot", "save", str(path), *options)
    assert saved.code == 0, saved.err
    assert "round 1: 4096 pages" in saved.out
    loaded = migpool("snapshot", "load", str(path), *options)
    assert loaded.code == 0, loaded.err
    assert "the machine runs and every device is verified" in loaded.out
    assert "by its own clock" in loaded.out
    again = here("snapshot", "save", str(path), *options)
    assert again.code == 2
    assert "exists: a stored machine is not overwritten" in again.err
    other = here("snapshot", "load", str(path), *options, "--seed", "7")
    assert other.code == 1
    assert "of its region was written last by step" in other.err or "checksum" in other.err
    absent = here("snapshot", "load", str(tmp_path / "absent"), *options)
    assert absent.code == 2
    assert "cannot be read: No such file" in absent.err
