"""Memory moves whole, under every model, while it is written; and the machine stays where it was if it does not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.device import ConfigChannel, Device
from migpool.errors import UsageError
from migpool.migration.states import State
from migpool.precopy.rounds import Round
from migpool.schedulers.base import Scheduler
from migpool.schedulers.elastic import ElasticScheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from migpool.transport.address import Address
from migpool.wire.ram import multifd_flush
from tests.support.paper import PAGE, Paper, Writer
from tests.support.recording_rig import Between
from tests.support.rig import KIB, Pair, Scripted, contents

MODELS: list[tuple[type[Scheduler], type[Scheduler]]] = [
    (InlineScheduler, InlineScheduler),
    (PerDeviceScheduler, PerDeviceScheduler),
    (PoolScheduler, PoolScheduler),
    (ElasticScheduler, ElasticScheduler),
    (PoolScheduler, ReceiverScheduler),
]


def scribbled(*pages: int, seed: int = 1) -> Paper:
    """A paper of which two pages in three hold something."""
    numbers = random.Random(seed)
    paper = Paper(*pages)
    for block, count in enumerate(pages):
        for page in range(count):
            if page % 3:
                paper.write(block, page, numbers.randbytes(PAGE))
    return paper


def settled(pair: Pair, **changes: object) -> Pair:
    pair.settings = replace(pair.settings, **changes)  # type: ignore[arg-type]
    return pair


@pytest.mark.parametrize("models", MODELS, ids=lambda models: "+".join(model.__name__[:-9] for model in models))
@pytest.mark.parametrize("together", [True, False], ids=["together", "in turn"])
def test_memory_moves_while_it_is_written(
    models: tuple[type[Scheduler], type[Scheduler]], together: bool, tmp_path: Path
) -> None:
    paper, copy = scribbled(2000, 3), Paper(2000, 3)
    writer, after = Writer(paper, 500, 0.0005), Writer(None)
    state = contents(300 * KIB)
    there: list[Device] = [copy, after, Scripted(1)]
    pair = settled(Pair([paper, writer, Scripted(1, state)], there, models=models), together=together)
    writer.run()
    sent, received = pair.run(tmp_path)
    writer.close()
    assert (sent.error, received.error) == ("", "")
    assert sent.outcome is received.outcome is State.COMPLETED
    assert after.written == writer.written > 0
    assert copy.contents() == paper.contents()
    assert bytes(there[2].got) == state  # type: ignore[attr-defined]
    assert not paper.logging
    assert next(device for device in sent.devices if device.name == "ram").bytes >= 1300 * PAGE


def test_pages_that_became_zeros_are_zeros_there_too(tmp_path: Path) -> None:
    paper, copy = Paper(256), Paper(256)
    paper.write(0, 9, b"x" * PAGE)
    copy.write(0, 9, b"something else")
    copy.write(0, 200, b"left from before")
    sent, _ = Pair([paper], [copy]).run(tmp_path)
    assert sent.error == ""
    assert copy.contents() == paper.contents()


@pytest.mark.parametrize(("name", "said"), [("pc-q35-8.0", False), ("pc-q35-8.1", True), ("machine", True)])
def test_a_flush_is_said_where_a_qemu_of_this_type_waits_for_one(tmp_path: Path, name: str, said: bool) -> None:
    paper, copy = scribbled(600), Paper(600)
    recorders: list[Between] = []

    def recorded(to: Address) -> Address:
        recorders.append(Between(Address(path=str(tmp_path / "near")), to, tmp_path / "recording"))
        return recorders[0].address

    sent, received = Pair([paper], [copy], names=(name, name), through=recorded).run(tmp_path)
    assert (sent.error, received.error) == ("", "")
    assert copy.contents() == paper.contents()
    index = recorders[0].index()
    assert index.main is not None
    assert (multifd_flush() in (tmp_path / "recording" / index.main.source.file).read_bytes()) is said


def write_late(paper: Paper, _: Round) -> None:
    paper.write(0, 5, b"written late")


def test_a_log_that_forgets_a_page_is_seen(tmp_path: Path) -> None:
    """The comparison above can fail: it does with a log that loses the one page that is written after its round."""
    for lossy in (0, 1):
        paper, copy = scribbled(600), Paper(600)
        pair = Pair([paper], [copy], progress=partial(write_late, paper))
        paper.take_dirty(0)
        paper.lossy = lossy
        assert pair.run(tmp_path)[0].error == ""
        assert (copy.contents() != paper.contents()) == bool(lossy)


def test_rounds_are_told(tmp_path: Path) -> None:
    rounds: list[Round] = []
    paper = scribbled(1000)
    writer = Writer(paper, 100, 0.001)
    pair = Pair([paper, writer], [Paper(1000), Writer(None)], progress=rounds.append)
    writer.run()
    assert pair.run(tmp_path)[0].error == ""
    writer.close()
    assert rounds[0].bytes == 1000 * PAGE
    assert 666 * PAGE <= rounds[0].sent <= 700 * PAGE  # every third page is empty, until the writer comes to it
    assert rounds[0].after.bytes == rounds[0].sent
    assert all(one.bytes <= 100 * PAGE for one in rounds[1:])
    assert [one.number for one in rounds] == list(range(1, len(rounds) + 1))


def test_pages_of_zeros_do_not_count_as_sent(tmp_path: Path) -> None:
    """Else the expected downtime of a machine whose memory is nearly empty would be far too short."""
    rounds: list[Round] = []
    paper = Paper(20000)
    for page in range(1000):
        paper.write(0, page, b"x" * PAGE)
    paper.take_dirty(0)
    pair = settled(Pair([paper], [Paper(20000)], progress=rounds.append), rounds=1)
    sent, _ = pair.run(tmp_path)
    assert sent.error == ""
    (done,) = rounds
    assert (done.bytes, done.sent, done.after.bytes) == (20000 * PAGE, 1000 * PAGE, 1000 * PAGE)
    assert sent.devices[0].bytes == 1000 * PAGE
    assert done.after.seconds < done.seconds  # nor does the time in which they were looked at


def test_a_guest_that_only_clears_pages_moves_although_no_rate_is_known(tmp_path: Path) -> None:
    paper = Paper(300)
    clear = lambda _: paper.write(0, 5, bytes(PAGE))  # noqa: E731
    pair = settled(Pair([paper], [Paper(300)], progress=clear), rounds=3)
    paper.write(0, 6, bytes(PAGE))
    sent, received = pair.run(tmp_path)
    assert (sent.error, received.error) == ("", "")
    assert sent.devices[0].bytes == 0


def write_all(paper: Paper, done: Round) -> None:
    """What a guest does that writes faster than its memory is sent: however long a round took, it wrote every page."""
    for page in range(400):
        paper.write(0, page, done.number.to_bytes(8, "little") * (PAGE // 8))


def test_a_guest_that_writes_too_fast_is_throttled_then_left_where_it_is(tmp_path: Path) -> None:
    paper, copy = Paper(400), Paper(400)
    writer = Writer(paper, 400, 0.001)
    pair = Pair([paper, writer], [copy, Writer(None)], progress=partial(write_all, paper))
    pair = settled(pair, rounds=8, downtime_limit=1e-6, max_bandwidth=32000 * KIB)
    writer.run()
    try:
        sent, received = pair.run(tmp_path)
        assert sent.outcome is received.outcome is State.FAILED
        assert "the memory does not converge: after 8 rounds" in sent.error
        assert "the vCPUs asleep for" in sent.error
        assert writer.shares[0] == 0.2
        assert writer.shares == [*sorted(writer.shares[:-1]), 0.0]  # and the throttle is gone in the end
        assert not paper.logging
        before = writer.written
        while writer.written == before:
            assert writer.running
    finally:
        writer.close()


def test_without_auto_converge_nobody_is_throttled(tmp_path: Path) -> None:
    paper = Paper(400)
    writer = Writer(paper, 400, 0.001)
    pair = Pair([paper, writer], [Paper(400), Writer(None)], progress=partial(write_all, paper))
    pair = settled(pair, rounds=4, downtime_limit=1e-6, max_bandwidth=32000 * KIB, auto_converge=False)
    writer.run()
    sent, _ = pair.run(tmp_path)
    writer.close()
    assert sent.outcome is State.FAILED
    assert writer.shares == []


def test_blocks_of_another_size_are_refused(tmp_path: Path) -> None:
    sent, received = Pair([Paper(8)], [Paper(9)]).run(tmp_path)
    assert sent.outcome is received.outcome is State.FAILED
    assert "block-0 with 36864 bytes, found block-0 with 32768 bytes: start both ends alike" in received.error


def test_a_machine_without_memory_refuses_pages(tmp_path: Path) -> None:
    sent, received = Pair([Paper(8), Scripted(1, None)], [Scripted(1, None)]).run(tmp_path)
    assert sent.outcome is received.outcome is State.FAILED
    assert "no RAM" in received.error or "it has no memory" in received.error


@pytest.mark.parametrize("call", ["take_dirty", "start_dirty_log"])
def test_a_log_that_fails_leaves_the_machine_running(call: str, tmp_path: Path) -> None:
    paper = scribbled(500)
    writer = Writer(paper, 100, 0.001)

    def fail(*_: object) -> bytes:
        raise RuntimeError("no log")

    setattr(paper, call, fail)
    writer.run()
    sent, received = Pair([paper, writer], [Paper(500), Writer(None)]).run(tmp_path)
    running = writer.running
    writer.close()
    assert sent.outcome is received.outcome is State.FAILED
    assert f"ram: RuntimeError in its {call}: no log" in sent.error
    assert running


def refused(devices: list[Device], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Machine("machine", devices)


def named(device: Device, **attributes: object) -> Device:
    for name, value in attributes.items():
        setattr(device, name, value)
    return device


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (lambda: [Paper(1), named(Paper(1), instance_id=1)], "has 2 memories"),
        (lambda: [named(Paper(1), idstr="memory")], "its idstr must be ram"),
        (lambda: [named(Scripted(1, None), idstr="ram")], "is called ram, but is no memory"),
    ],
)
def test_a_machine_has_one_memory_with_its_own_name(devices: Callable[[], list[Device]], words: str) -> None:
    refused(devices(), words)


@pytest.mark.parametrize("vmsd", ["main-channel", "multifd"])
@pytest.mark.parametrize("workers", [None, 1])
@pytest.mark.parametrize("models", MODELS, ids=lambda models: "+".join(model.__name__[:-9] for model in models))
def test_a_device_that_reads_the_memory_is_loaded_when_all_of_it_is_there(
    models: tuple[type[Scheduler], type[Scheduler]], workers: int | None, vmsd: ConfigChannel, tmp_path: Path
) -> None:
    """So is one that is loaded after that; others need not wait."""
    paper, copy = scribbled(900), Paper(900)
    seen: dict[str, bool] = {}

    def devices(number: int) -> list[Scripted]:
        reader, after, other = (Scripted(number + at, None, name="plain") for at in range(3))
        reader.after, after.after = ["ram"], [reader.idstr]
        return [after, reader, other]

    def look(device: Scripted) -> None:
        seen[device.idstr] = copy.contents() == paper.contents()

    source, there = devices(0), devices(0)
    for device in there:
        device.before["load_config"] = partial(look, device)
    state = Scripted(9, contents(100 * KIB))
    pair = settled(Pair([*source, paper, state], [*there, copy, Scripted(9)], models=models), vmsd=vmsd)
    pair.workers = (workers, workers)

    def write_late() -> None:
        """These pages are the last to be sent."""
        for page in range(300):
            paper.write(0, page, b"late" * 9)

    source[2].before["stop"] = write_late
    sent, received = pair.run(tmp_path)
    assert (sent.error, received.error) == ("", "")
    assert seen["plain-0"]
    assert seen["plain-1"]
    assert [device.got_config for device in there] == [device.config for device in source]
