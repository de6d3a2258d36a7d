"""Cancel at every wait, at either end; and an end that dies. The other side hears of it, and nothing is left behind."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.device import Device
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.schedulers.blocking_aware import BlockingAwareScheduler
from migpool.schedulers.elastic import ElasticScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.poll import PollScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from migpool.transport.address import Address
from tests.support.rig import KIB, LIMIT, MODELS, Pair, Scripted, contents

Models = tuple[type[Scheduler], type[Scheduler]]
PATIENT = Settings(chunk=16 * KIB, budget=256 * KIB, peer_limit=60)


def machines() -> tuple[list[Scripted], list[Scripted]]:
    source = [Scripted(number, contents(200 * KIB, number)) for number in range(4)]
    source.append(Scripted(9, None, name="plain"))
    return source, [*(Scripted(number) for number in range(4)), Scripted(9, None, name="plain")]


def cancel_when(reached: threading.Event, pair: Pair, side: str) -> threading.Thread:
    def cancel() -> None:
        assert reached.wait(LIMIT)
        (pair.sender if side == "source" else pair.to).cancel()

    thread = threading.Thread(target=cancel, name="canceller")
    thread.start()
    return thread


def cancelled(
    folder: Path,
    source: list[Scripted],
    destination: list[Scripted],
    device: Scripted,
    call: str,
    side: str,
    *,
    models: Models = (PerDeviceScheduler, ReceiverScheduler),
    settings: Settings | None = None,
) -> tuple[SideReport, SideReport]:
    """Run a migration, and cancel it at ``side`` once ``device`` blocks in ``call``."""
    reached = threading.Event()
    device.block_in(call, reached)
    pair = Pair(source, destination, models=models)
    pair.settings = settings or pair.settings
    pair.prepare(folder)
    canceller = cancel_when(reached, pair, side)
    reports = pair.go()
    canceller.join(LIMIT)
    return reports


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("call", ["save_setup", "quiesce", "stop", "save_state", "save_config"])
def test_cancelled_at_the_source_while_a_device_blocks(tmp_path: Path, call: str, models: Models) -> None:
    source, destination = machines()
    sent, got = cancelled(tmp_path, source, destination, source[1], call, "source", models=models)
    assert sent.outcome is State.CANCELLED
    assert sent.error == "cancelled at the source"
    assert got.outcome is State.FAILED
    assert got.error.startswith("the source gave up: cancelled at the source")
    assert all(device.running for device in source)
    assert "start" not in destination[0].calls


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("call", ["load_setup", "load_state", "load_config"])
def test_cancelled_at_the_source_while_the_destination_blocks(tmp_path: Path, call: str, models: Models) -> None:
    source, destination = machines()
    sent, got = cancelled(tmp_path, source, destination, destination[1], call, "source", models=models)
    assert sent.outcome is State.CANCELLED
    assert got.outcome is State.FAILED
    assert all(device.running for device in source)


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("call", ["load_setup", "load_state", "load_config"])
def test_cancelled_at_the_destination(tmp_path: Path, call: str, models: Models) -> None:
    source, destination = machines()
    sent, got = cancelled(tmp_path, source, destination, destination[2], call, "destination", models=models)
    assert got.outcome is State.CANCELLED
    assert sent.outcome is State.FAILED
    assert sent.error == "the destination failed: cancelled at the destination"
    assert all(device.running for device in source)


def test_cancelled_before_a_source_came(tmp_path: Path) -> None:
    source, destination = machines()
    pair = Pair(source, destination)
    pair.prepare(tmp_path)
    pair.to.cancel()
    assert pair.ended().outcome is State.CANCELLED
    assert not list(tmp_path.iterdir())


def test_cancelled_before_it_began(tmp_path: Path) -> None:
    sender = Source(Machine("m", machines()[0]), Settings(), PerDeviceScheduler())
    sender.cancel()
    report = sender.run(Address(path=str(tmp_path / "nobody")))
    assert report.outcome is State.CANCELLED


def test_cancel_after_the_machine_runs_there_is_too_late(tmp_path: Path) -> None:
    source, destination = machines()
    pair = Pair(source, destination)
    pair.prepare(tmp_path)
    destination[0].before["verify"] = lambda: pair.sender.cancel()
    sent, got = pair.go()
    assert sent.outcome is got.outcome is State.COMPLETED
    assert not any(device.running for device in source)


def test_nobody_listens(tmp_path: Path) -> None:
    source, _ = machines()
    sender = Source(Machine("m", source), Settings(connect_limit=0.2), PerDeviceScheduler())
    report = sender.run(Address(path=str(tmp_path / "nobody")))
    assert report.outcome is State.FAILED
    assert "nobody answered within" in report.error
    assert all(device.running for device in source)


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("models", MODELS)
def test_cancelled_while_a_section_is_being_read(tmp_path: Path, side: str, models: Models) -> None:
    """The reader of the main channel ends within a device, and what the source said last stays unread behind it."""
    source, destination = machines()
    sent, got = cancelled(tmp_path, source, destination, destination[-1], "check_version", side, models=models)
    ended = {"source": sent, "destination": got}
    other = ended.pop("destination" if side == "source" else "source")
    assert ended[side].outcome is State.CANCELLED
    assert other.outcome is State.FAILED
    assert "cancelled" in other.error
    assert all(device.running for device in source)


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_peer_that_stands_still_is_given_up_within_the_limit(tmp_path: Path, side: str) -> None:
    """A device that blocks without end stands for a process that was stopped."""
    source, destination = machines()
    reached = threading.Event()
    (source if side == "source" else destination)[1].block_in(
        "save_state" if side == "source" else "load_state", reached
    )
    slow, quick = (
        Settings(chunk=16 * KIB, budget=256 * KIB, peer_limit=60),
        Settings(chunk=16 * KIB, budget=256 * KIB, peer_limit=2),
    )
    own, others = (slow, quick) if side == "source" else (quick, slow)
    sent, got = Pair(source, destination, settings=own, destination_settings=others).run(tmp_path)
    if side == "source":
        assert "device-1: chunk 0 has not come; nothing has come from the source for 1.2 s" in got.error
        assert got.error.partition("; device-1 has been in save_state")[0] in sent.error
    else:
        # What comes first: no room for a chunk, or a channel that nobody reads, whose thread the device holds.
        assert re.search("the destination has given no room for it for 2 s|has taken no data within", sent.error)
    assert sent.outcome is got.outcome is State.FAILED
    assert all(device.running for device in source)


@pytest.mark.parametrize("after", [5000, 100_000])
def test_a_source_that_dies_is_noticed_at_once(tmp_path: Path, after: int) -> None:
    """Connections that are cut in the middle, at several places."""
    source, destination = machines()
    pair = Pair(source, destination)
    cutters: list[threading.Thread] = []

    def through(address: Address) -> Address:
        return cut_after(address, tmp_path / "cut", after, cutters)

    pair.through = through
    sent, got = pair.run(tmp_path)
    for cutter in cutters:
        cutter.join(LIMIT)
    assert sent.outcome is got.outcome is State.FAILED
    assert sent.error
    assert got.error
    assert all(device.running for device in source)


def cut_after(address: Address, path: Path, after: int, cutters: list[threading.Thread]) -> Address:
    """Pass connections on until ``after`` bytes have gone to the destination, then close all of them."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    passed = [0]
    socks: list[socket.socket] = [listener]
    lock = threading.Lock()

    def cut() -> None:
        with lock:
            for sock in socks:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def pump(reads: socket.socket, writes: socket.socket, counted: bool) -> None:
        try:
            while data := reads.recv(4096):
                if counted and passed[0] + len(data) > after:
                    break
                writes.sendall(data)
                passed[0] += len(data) if counted else 0
        except OSError:
            pass
        cut()

    def serve() -> None:
        pumps: list[threading.Thread] = []
        try:
            for _ in range(3):
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(address.path)
                with lock:
                    socks.extend((near, far))
                for ends in ((near, far, True), (far, near, False)):
                    pumps.append(threading.Thread(target=pump, args=ends))
                    pumps[-1].start()
        except OSError:
            cut()
        for thread in pumps:
            thread.join(LIMIT)
        for sock in socks:
            sock.close()
        path.unlink()

    thread = threading.Thread(target=serve)
    thread.start()
    cutters.append(thread)
    return Address(path=str(path))


def test_abort_reaches_every_device_when_one_fails(tmp_path: Path) -> None:
    source, destination = machines()
    for device in source[:4]:
        device.block_in("save_state", threading.Event())
    sent, _ = cancelled(tmp_path, source, destination, source[3], "save_state", "source")
    aborted: list[Device] = [device for device in source if device.aborted]
    assert aborted == source
    assert sent.outcome is State.CANCELLED


def test_a_source_that_is_gone_is_noticed_while_a_device_loads_before_the_switchover(tmp_path: Path) -> None:
    source, destination = machines()
    source[1].precopy = contents(20 * KIB, 5)
    sent, got = cancelled(tmp_path, source, destination, destination[1], "load_state", "source", settings=PATIENT)
    assert sent.outcome is State.CANCELLED
    assert got.outcome is State.FAILED
    assert got.error.startswith("the source gave up: cancelled at the source")


@pytest.mark.parametrize("call", ["wake", "start"])
def test_cancelled_at_the_destination_while_a_device_starts(tmp_path: Path, call: str) -> None:
    source, destination = machines()
    sent, got = cancelled(tmp_path, source, destination, destination[0], call, "destination", settings=PATIENT)
    assert sent.outcome is got.outcome is State.FAILED
    assert f"device-0: aborted in {call}" in sent.error
    assert all(device.running for device in source)


def test_cancelled_at_the_source_while_the_machine_starts_there_it_has_moved(tmp_path: Path) -> None:
    source, destination = machines()
    pair = Pair(source, destination)
    pair.prepare(tmp_path)
    destination[0].before["start"] = lambda: pair.sender.cancel()
    sent, got = pair.go()
    assert sent.outcome is got.outcome is State.COMPLETED
    assert not any(device.running for device in source)


def test_a_destination_that_does_not_say_whether_the_machine_runs_leaves_it_stopped(tmp_path: Path) -> None:
    source, destination = machines()
    gate = threading.Event()

    def start() -> None:
        assert gate.wait(LIMIT)

    destination[0].before["start"] = start
    pair = Pair(source, destination, settings=Settings(chunk=16 * KIB, budget=256 * KIB, peer_limit=1.5))
    pair.prepare(tmp_path)
    sent = pair.sender.run(pair.where)
    gate.set()
    pair.ended()
    assert sent.outcome is State.UNCONFIRMED
    assert "it stays stopped here; look there before you resume it" in sent.error
    assert not any(device.running for device in source)


@pytest.mark.parametrize(
    "model", [PerDeviceScheduler, PoolScheduler, ElasticScheduler, BlockingAwareScheduler, PollScheduler]
)
def test_a_device_that_ignores_abort_is_named_and_holds_nobody_but_its_thread(
    tmp_path: Path, model: type[Scheduler]
) -> None:
    source, destination = machines()
    reached, leave = threading.Event(), threading.Event()

    def ignore_abort() -> None:
        reached.set()
        leave.wait(LIMIT)

    source[1].before["save_state"] = ignore_abort
    patient = Settings(channels=2, chunk=16 * KIB, budget=256 * KIB, peer_limit=1.5)
    pair = Pair(source, destination, settings=patient, models=(model, PerDeviceScheduler))
    pair.workers = (1, None)
    pair.prepare(tmp_path)
    canceller = cancel_when(reached, pair, "source")
    before = set(threading.enumerate())
    try:
        sent, _ = pair.go()
        held = [thread for thread in set(threading.enumerate()) - before if thread is not canceller]
    finally:
        leave.set()
    for thread in held:
        thread.join(LIMIT)
    canceller.join(LIMIT)
    assert sent.outcome is State.CANCELLED
    assert "these threads still run" in sent.error
    assert "device-1 (save) is in its save_state of chunk 0" in sent.error
