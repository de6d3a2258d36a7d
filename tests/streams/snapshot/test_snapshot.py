"""A running machine is saved into a file and goes on from there; and runs on where it was if it cannot be saved."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.device import Device, Part
from migpool.errors import Cancelled, DeviceError, MigpoolError, PeerError, ProtocolError
from migpool.migration.settings import Settings
from migpool.precopy.rounds import Round
from migpool.schedulers.base import Scheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.streams.file.file import StreamFile
from migpool.streams.snapshot import SnapshotDestination, SnapshotSource
from tests.support.commandline import here, migpool
from tests.support.guest_cancelling import Cancelling
from tests.support.guests import guest, need, steps
from tests.support.inspections import inspect_file
from tests.support.paper import PAGE, Paper, Writer
from tests.support.rig import KIB, Scripted, contents
from tests.support.tagging import PIECE, Tagged

SETTINGS = Settings(chunk=64 * KIB)
LIMIT = 60
GOLDEN_SIZE = 1_206_913
GOLDEN_DIGEST = "8cae52082c7d8e9cb9e677e8ce03a9ce2c30a4206d626912ac1eb736ce86b881"


def save(
    devices: list[Device],
    path: Path,
    rounds: list[Round] | None = None,
    model: Callable[[], Scheduler] = InlineScheduler,
) -> None:
    with StreamFile(path) as file:
        progress = None if rounds is None else rounds.append
        SnapshotSource(Machine("machine", devices), SETTINGS, model(), file, progress=progress).save()


def load(devices: list[Device], path: Path, model: Callable[[], Scheduler] = InlineScheduler) -> None:
    SnapshotDestination(Machine("machine", devices), SETTINGS, model()).load(path)


@pytest.mark.parametrize("model", [InlineScheduler, PoolScheduler])
def test_everything_of_a_machine_is_in_the_file(model: Callable[[], Scheduler], tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    paper, state = Paper(700, 2), contents(300 * KIB)
    for page in range(0, 700, 2):
        paper.write(0, page, bytes([page % 255 + 1]) * PAGE)
    writer = Writer(paper, 90, 0.001)
    writer.run()
    rounds: list[Round] = []
    apart = Scripted(3, None)
    apart.config_job = True
    running = Scripted(4, state[:1000])
    running.precopy, running.initial = b"while it runs" * 20, 100
    save([paper, writer, Scripted(1, state), Scripted(2, None), apart, running], path, rounds, model)
    assert rounds
    assert not paper.logging
    copy, after, much, little = Paper(700, 2), Writer(None), Scripted(1), Scripted(2, None)
    other, moved = Scripted(3, None), Scripted(4)
    load([copy, after, much, little, other, moved], path, model)
    assert copy.contents() == paper.contents()
    assert after.written == writer.written
    assert bytes(much.got) == state
    assert (much.got_config, little.got_config) == (b"config of device-1", b"config of device-2")
    assert other.got_config == b"config of device-3"
    assert bytes(moved.got) == b"while it runs" * 20 + state[:1000]
    assert [device.calls[-2:] for device in (much, little, other, moved)] == [["start", "verify"]] * 4


def test_the_file_is_one_that_inspect_reads(tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    paper = Paper(10)
    paper.write(0, 3, b"x")
    paper.take_dirty(0)
    save([paper, Scripted(2, None)], path)
    summary = inspect_file(path)
    assert summary.problem is None
    assert [(block.name, block.normal, block.zero) for block in summary.blocks] == [("block-0", 1, 9)]


def test_the_bytes_of_a_machine_that_writes_the_same_are_the_same(tmp_path: Path) -> None:
    """Pages in rounds and after the stop, set-up data of both kinds, chunks, configs, the description: every byte."""
    path = tmp_path / "machine.mig"
    paper, much, little = Paper(300, 7), Scripted(1, contents(300 * KIB)), Scripted(2, None)
    for page in range(0, 300, 3):
        paper.write(0, page, bytes([page % 255 + 1]) * PAGE)
    much.setup, little.setup = b"of the first", b"of the second"
    little.before["stop"] = lambda: paper.write(1, 4, b"last words")
    save([paper, much, Scripted(3, contents(70 * KIB, 2), piece=10_000), little, Scripted(4, None)], path)
    whole = path.read_bytes()
    assert (len(whole), sha256(whole).hexdigest()) == (GOLDEN_SIZE, GOLDEN_DIGEST)


@pytest.mark.parametrize("model", [InlineScheduler, PoolScheduler])
def test_a_device_with_tags_is_in_the_file_part_by_part(model: Callable[[], Scheduler], tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    tagged, empty, plain = Tagged(1, contents(100 * KIB)), Tagged(2, b""), Scripted(3, contents(70 * KIB))
    save([tagged, empty, plain], path, model=model)
    copy, nothing, other = Tagged(1), Tagged(2), Scripted(3)
    load([copy, nothing, other], path, model)
    assert copy.whole() == tagged.state
    assert copy.config == b"config of tagged-1"
    assert copy.order[-1] == "config"
    assert (nothing.whole(), nothing.config) == (b"", b"config of tagged-2")
    assert bytes(other.got) == plain.state


def test_a_part_as_long_as_a_chunk_is_in_the_file_with_its_tag(tmp_path: Path) -> None:
    class Long(Tagged):
        def save_part(self, buffer: memoryview) -> Part | None:
            part = super().save_part(buffer)
            return part and Part((1 << 32) - 1 - part.tag, len(buffer))

    path = tmp_path / "machine.mig"
    copy = Tagged(1)
    save([Long(1, bytes(2 * PIECE))], path)
    load([copy], path)
    assert [(tag, len(data)) for tag, data in sorted(copy.got.items())] == [
        ((1 << 32) - 2, 64 * KIB),
        ((1 << 32) - 1, 64 * KIB),
    ]


@pytest.mark.parametrize("what", ["save_part", "load_part"])
def test_a_part_that_fails_names_its_device_and_tag(what: str, tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    source, copy = Tagged(1, contents(30 * KIB)), Tagged(1)

    def fails(tag: int) -> None:
        if tag == 5:
            raise DeviceError("told to fail")

    (source if what == "save_part" else copy).before = fails
    if what == "save_part":
        with pytest.raises(DeviceError, match=r"tagged-1.*: told to fail"):
            save([source], path)
        assert source.running
        return
    save([source], path)
    with pytest.raises(DeviceError, match=r"tagged-1.*: told to fail"):
        load([copy], path)
    assert copy.config is None


def test_a_tag_that_stands_in_the_file_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    save([Tagged(1, contents(30 * KIB))], path)
    whole = path.read_bytes()
    places = [
        whole.index(b"\xff\xff\xff\xff\xef\x10\x00\x04" + (PIECE + 4).to_bytes(8, "big") + tag.to_bytes(4, "big"))
        for tag in (3, 4)
    ]
    at = places[1] + 16
    path.write_bytes(whole[:at] + (3).to_bytes(4, "big") + whole[at + 4 :])
    copy = Tagged(1)
    with pytest.raises(DeviceError, match=r"tagged-1.*the part with the tag 3 has come twice"):
        load([copy], path)
    assert copy.config is None


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


def test_a_machine_whose_file_cannot_be_kept_runs_on(tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    device = Scripted(1, contents(1000))

    def come() -> None:
        path.write_text("somebody else's")

    device.before["stop"] = come
    with pytest.raises(MigpoolError, match="has come into being meanwhile, and is not overwritten"):
        save([device], path)
    assert device.calls[-1] == "resume"
    assert path.read_text() == "somebody else's"


def test_state_behind_a_devices_config_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "machine.mig"
    save([Scripted(1, contents(1000))], path)
    whole = path.read_bytes()
    at = whole.rindex(b"\x03\x00\x00\x00\x01\xff\xff\xff\xff\xef\x10\x00\x02")  # END, records
    end = whole.index(b"\x7e\x00\x00\x00\x01", at) + 5
    path.write_bytes(whole[:end] + whole[at:end] + whole[end:])
    device = Scripted(1)
    with pytest.raises(ProtocolError, match=r"END section of device-1.*nothing after its config"):
        load([device], path)
    assert "start" not in device.calls


def test_a_save_that_is_cancelled_leaves_the_guest_and_no_file(tmp_path: Path) -> None:
    need("kvm")
    path = tmp_path / "guest.mig"
    tracer = Cancelling(10)
    with guest("source", "kvm") as made:
        before = steps(made)
        with StreamFile(path) as file:
            source = SnapshotSource(Machine("machine", made), SETTINGS, InlineScheduler(), file, tracer=tracer)
            tracer.source = source
            with pytest.raises(Cancelled):
                source.save()
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
    with pytest.raises(PeerError, match="ended without device-1: it is of another machine"):
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
    assert "the machine runs and every device that checks itself finds nothing wrong" in loaded.out
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
