"""The machine stops only when the destination has loaded what devices must have before it does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.device import Pending
from migpool.migration.acknowledgements import Acknowledgements
from migpool.migration.return_path_writer import ReturnPathWriter
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.schedulers.elastic import ElasticScheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from migpool.transport.main_channel import MainChannel
from migpool.wire.commands import switchover_start
from migpool.wire.records import initial_data_sent
from migpool.wire.returnpath import Message, SwitchoverAck
from migpool.wire.unread import Buffer
from tests.support.paper import Paper
from tests.support.rig import KIB, LIMIT, Pair, Scripted, contents, migrate

SETTINGS = Settings(channels=2, chunk=16 * KIB, budget=256 * KIB, peer_limit=5)
MODELS = [
    pytest.param((InlineScheduler, InlineScheduler), id="inline"),
    pytest.param((PerDeviceScheduler, PerDeviceScheduler), id="per-device"),
    pytest.param((PoolScheduler, PoolScheduler), id="pool"),
    pytest.param((ElasticScheduler, ReceiverScheduler), id="elastic+receiver"),
]


class Growing(Scripted):
    """What it gives before the stop and after it together is its state: so it has no fingerprint to compare."""

    def fingerprint(self) -> bytes | None:
        return None


class Stuck(Growing):
    """Has initial data, and gives none of it."""

    def pending(self) -> Pending:
        return Pending(precopy=4096, initial=4096)

    def iterate(self, buffer: memoryview) -> int:
        del buffer
        self._called("iterate")
        return 0


def machines(*initial: int) -> tuple[list[Scripted], list[Scripted]]:
    """Devices of which each has so much initial data, and one without state; and the same at the destination."""
    source: list[Scripted] = [Growing(number, contents(40 * KIB, number)) for number in range(len(initial))]
    for device, size in zip(source, initial, strict=True):
        device.precopy, device.initial = contents(size, 9), size
    source.append(Scripted(9, None, name="plain"))
    return source, [*(Growing(number) for number in range(len(initial))), Scripted(9, None, name="plain")]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The items of the main channel, as the source writes them."""
    items: list[bytes] = []
    write = MainChannel.write

    def overheard(channel: MainChannel, item: Buffer | Sequence[Buffer]) -> None:
        items.append(bytes(item) if isinstance(item, bytes | bytearray | memoryview) else b"".join(item))
        write(channel, item)

    monkeypatch.setattr(MainChannel, "write", overheard)
    return items


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """What the destination says on the return path."""
    said: list[Message] = []
    answer = ReturnPathWriter.answer

    def overheard(answering: ReturnPathWriter, message: Message) -> None:
        said.append(message)
        answer(answering, message)

    monkeypatch.setattr(ReturnPathWriter, "answer", overheard)
    return said


@pytest.mark.parametrize("models", MODELS)
def test_it_is_loaded_before_any_device_is_quiet(
    tmp_path: Path, models: tuple[type[Scheduler], type[Scheduler]]
) -> None:
    source, destination = machines(50 * KIB, 0, 20 * KIB)
    early = [bytes(device.precopy) for device in source]
    quiet = threading.Event()
    at_the_stop: list[bytes] = []

    def stopping() -> None:
        at_the_stop.extend(bytes(device.got) for device in destination)
        quiet.set()

    def loading() -> None:
        early_by = bool(destination[2].got) or len(destination[0].got) + 16 * KIB >= 50 * KIB
        if not at_the_stop and early_by:
            assert not quiet.wait(0.05), "the machine stops while its initial data is loaded"

    source[0].before["quiesce"] = stopping
    destination[0].before["load_state"] = destination[2].before["load_state"] = loading
    sent, got = migrate(tmp_path, source, destination, models=models)
    assert (sent.error, got.error) == ("", "")
    assert at_the_stop == early
    for device, loaded, first in zip(source, destination, early, strict=True):
        assert loaded.got == first + device.state


@pytest.mark.parametrize("credited", [True, False], ids=["credits", "QEMU's return path"])
def test_it_is_said_once_a_device_and_answered_once(
    tmp_path: Path, written: list[bytes], answered: list[Message], credited: bool
) -> None:
    source, destination = machines(50 * KIB, 0, 20 * KIB)
    pair = Pair(source, destination, settings=replace(SETTINGS, credits=credited))
    sent, got = pair.run(tmp_path)
    assert (sent.error, got.error) == ("", "")
    said = [item[1:5] for item in written if item[5:13] == initial_data_sent()]
    assert said == [section_id.to_bytes(4, "big") for section_id in (2, 1, 3)]
    before_the_stop = written[: written.index(switchover_start())]
    assert sum(item[5:13] == initial_data_sent() for item in before_the_stop) == 3
    assert answered.count(SwitchoverAck()) == 1 + credited, "once for the set-up, which only our own kind says"


@pytest.mark.parametrize("credited", [True, False], ids=["credits", "QEMU's return path"])
@pytest.mark.parametrize("name", ["pc-q35-10.0", "pc-q35-11.1", "microvm"])
def test_of_a_device_that_gives_nothing_it_is_not_said_to_a_qemu(
    tmp_path: Path, written: list[bytes], answered: list[Message], name: str, credited: bool
) -> None:
    """Which has no place for it: it takes it from a device that is pre-copied alone. Others have always heard it."""
    source, destination = machines(50 * KIB, 0, 20 * KIB, 0)
    source[3].precopy = contents(8 * KIB, 9)
    pair = Pair(
        [Paper(8), *source], [Paper(8), *destination], settings=replace(SETTINGS, credits=credited), names=(name, name)
    )
    sent, got = pair.run(tmp_path)
    assert (sent.error, got.error) == ("", "")
    said = [int.from_bytes(item[1:5], "big") for item in written if item[5:13] == initial_data_sent()]
    saying = [2, 3, 4, 5] if credited or name == "microvm" else [2, 4, 5]
    assert sorted(said) == saying
    each = name == "pc-q35-11.1" and not credited
    assert answered.count(SwitchoverAck()) == (len(saying) if each else 1 + credited)


def test_what_moved_before_the_stop_is_reported_beside_the_whole(tmp_path: Path) -> None:
    source, destination = machines(50 * KIB, 0, 20 * KIB)
    sent, got = migrate(tmp_path, source, destination)
    assert [device.bytes_before_stop for device in sent.devices] == [50 * KIB, 0, 20 * KIB, 0]
    assert sent.precopied == 70 * KIB
    configs = [len(device.config) for device in source]
    assert [device.config for device in sent.devices] == configs
    sizes = [50 * KIB + 40 * KIB, 40 * KIB, 20 * KIB + 40 * KIB, 0]
    assert [device.bytes for device in sent.devices] == [
        size + config for size, config in zip(sizes, configs, strict=True)
    ]
    assert [device.redone for device in sent.devices] == [0, 0, 0, 0]
    assert got.precopied == 0
    assert sent.bytes == sum(device.bytes for device in sent.devices)


def test_what_changed_after_it_was_sent_is_reported(tmp_path: Path) -> None:
    class Busy(Growing):
        """Changes 6 KiB of what it has just given, the first two times."""

        def __init__(self) -> None:
            super().__init__(0, contents(40 * KIB))
            self.precopy = contents(30 * KIB)
            self.changes = 2

        def iterate(self, buffer: memoryview) -> int:
            taken = super().iterate(buffer)
            if not self.precopy and self.changes:
                self.changes -= 1
                self.precopy = contents(6 * KIB)
            return taken

    sent, _ = migrate(tmp_path, [Busy()], [Growing(0)], settings=replace(SETTINGS, downtime_limit=1e-9))
    assert (sent.devices[0].bytes_before_stop, sent.devices[0].redone) == (42 * KIB, 12 * KIB)


def test_a_machine_without_any_says_nothing_of_it(
    tmp_path: Path, written: list[bytes], answered: list[Message]
) -> None:
    source, destination = machines(0, 0)
    source[0].precopy = contents(30 * KIB)
    pair = Pair(source, destination)
    sent, _ = pair.run(tmp_path)
    assert sent.error == ""
    assert not any(item[5:13] == initial_data_sent() for item in written)
    assert answered.count(SwitchoverAck()) == 1


def test_a_device_that_does_not_come_to_its_end_is_named(tmp_path: Path) -> None:
    source, destination = machines(10 * KIB, 0)
    source[1] = Stuck(1, b"x")
    impatient, patient = replace(SETTINGS, peer_limit=2), replace(SETTINGS, peer_limit=60)
    sent, got = migrate(tmp_path, source, destination, settings=impatient, destination_settings=patient)
    assert sent.outcome is got.outcome is State.FAILED
    assert sent.error == (
        "device-1: 4096 bytes of its initial data are left, and have not become less for 1 s; the machine must not "
        "stop before they are sent: look at the device, or raise the limit for the peer (limits.peer), of which this "
        "is half"
    )
    assert "stop" not in source[0].calls
    assert all(device.running for device in source)


def test_a_destination_that_does_not_say_that_it_has_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Acknowledgements, "initial_sent", lambda *_: None)
    source, destination = machines(10 * KIB, 0, 1)
    sent, _ = migrate(
        tmp_path,
        source,
        destination,
        settings=replace(SETTINGS, peer_limit=1),
        destination_settings=replace(SETTINGS, peer_limit=60),
    )
    assert sent.outcome is State.FAILED
    assert sent.error == (
        "the initial data of device-0, device-2 to be loaded at the destination: "
        "no answer of the destination within 1 s (limits.peer)"
    )
    assert "stop" not in source[0].calls
    assert all(device.running for device in source)


def test_cancelled_while_a_device_makes_no_headway(tmp_path: Path) -> None:
    source, destination = machines(10 * KIB, 0)
    source[1] = Stuck(1, b"x")
    pair = Pair(source, destination, settings=replace(SETTINGS, peer_limit=60))
    pair.prepare(tmp_path)
    source[1].before["iterate"] = pair.sender.cancel
    sent, got = pair.go()
    assert sent.outcome is State.CANCELLED
    assert got.outcome is State.FAILED
    assert all(device.running for device in source)


def test_cancelled_while_the_destination_loads_it(tmp_path: Path) -> None:
    source, destination = machines(10 * KIB, 0)
    reached = threading.Event()
    destination[0].block_in("load_state", reached)
    pair = Pair(source, destination, settings=replace(SETTINGS, peer_limit=60))
    pair.prepare(tmp_path)

    def cancel() -> None:
        assert reached.wait(LIMIT)
        pair.sender.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    sent, got = pair.go()
    canceller.join(LIMIT)
    assert sent.outcome is State.CANCELLED
    assert got.outcome is State.FAILED
    assert "stop" not in source[0].calls


def test_a_device_that_has_something_left_and_gives_nothing_does_not_keep_the_machine(tmp_path: Path) -> None:
    class Reluctant(Growing):
        def pending(self) -> Pending:
            return Pending(precopy=1 << 30)

        def iterate(self, buffer: memoryview) -> int:
            del buffer
            self._called("iterate")
            return 0

    source = [Reluctant(0, contents(40 * KIB))]
    destination = [Growing(0)]
    sent, _ = migrate(tmp_path, source, destination, settings=replace(SETTINGS, rounds=4))
    assert sent.error == ""
    assert source[0].calls.count("iterate") == 4
    assert destination[0].got == source[0].state
