"""What goes wrong in a device, at either end, in any call: it is named, the source runs on, nothing is left behind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.device import Device, DeviceError
from migpool.errors import UsageError
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler, Setup
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.wire.records import CONFIG_FRAME
from tests.support.rig import KIB, MODELS, Pair, Scripted, VerificationError, contents, migrate


def machines() -> tuple[list[Scripted], list[Scripted]]:
    source = [Scripted(number, contents(100 * KIB, number)) for number in range(4)]
    source.append(Scripted(9, None, name="plain"))
    return source, [*(Scripted(number) for number in range(4)), Scripted(9, None, name="plain")]


def failed(sent: SideReport, got: SideReport, source: list[Scripted], words: str) -> None:
    assert words in sent.error, sent.error
    assert got.error
    assert sent.outcome is State.FAILED
    assert got.outcome is State.FAILED
    assert all(device.running for device in source)
    assert all(device.calls[-1] == "resume" for device in source)


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("call", ["save_setup", "quiesce", "stop", "save_state", "save_config"])
def test_a_failure_at_the_source(tmp_path: Path, call: str, models: tuple[type[Scheduler], type[Scheduler]]) -> None:
    source, destination = machines()
    source[2].fail_in(call)
    sent, got = migrate(tmp_path, source, destination, models=models)
    failed(sent, got, source, "device-2")
    assert f"told to fail in {call}" in sent.error
    assert got.error.startswith("the source gave up: device-2")
    assert f"told to fail in {call}" in got.error
    assert "start" not in destination[0].calls


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("call", ["check_version", "load_setup", "load_state", "load_config", "wake", "start"])
def test_a_failure_at_the_destination_is_told_to_the_source(
    tmp_path: Path, call: str, models: tuple[type[Scheduler], type[Scheduler]]
) -> None:
    source, destination = machines()
    destination[2].fail_in(call)
    sent, got = migrate(tmp_path, source, destination, models=models)
    failed(sent, got, source, f"told to fail in {call}")
    assert "the destination failed: device-2" in sent.error
    assert got.error.startswith("device-2")


class Unready(InlineScheduler):
    """A model whose set-up fails after a while."""

    after = 0.0

    def setup(self, setup: Setup) -> None:
        super().setup(setup)
        time.sleep(self.after)
        raise UsageError("told to fail in setup")


@pytest.mark.parametrize("after", [0.0, 0.005, 0.3])
def test_a_model_that_cannot_be_set_up_at_the_destination_is_told_to_the_source(tmp_path: Path, after: float) -> None:
    """Also when it fails before it has read what the source understands, and so how to say why."""
    source, destination = machines()
    model = type("Unready", (Unready,), {"after": after})
    sent, got = migrate(tmp_path, source, destination, models=(InlineScheduler, model))
    assert sent.error == "the destination failed: told to fail in setup"
    assert got.error == "told to fail in setup"
    assert not sent.peer_gone
    assert all(device.running for device in source)


def test_the_chunk_is_named_in_which_a_device_failed(tmp_path: Path) -> None:
    source, destination = machines()
    seen: list[None] = []

    def third() -> None:
        seen.append(None)
        if len(seen) == 3:
            raise DeviceError("the third is bad")

    destination[1].before["load_state"] = third
    sent, got = migrate(tmp_path, source, destination)
    assert got.error == "device-1, chunk 2: the third is bad"
    assert sent.error == "the destination failed: device-1, chunk 2: the third is bad"


@pytest.mark.parametrize("where", ["source", "destination"])
def test_any_other_exception_of_a_plugin_becomes_one_line(tmp_path: Path, where: str) -> None:
    source, destination = machines()
    if where == "source":
        source[0].fail_in("save_state", KeyError("x\ny"))
    else:
        destination[0].fail_in("load_state", KeyError("x\ny"))
    sent, got = migrate(tmp_path, source, destination)
    report = sent if where == "source" else got
    assert "device-0, chunk 0: KeyError in its" in report.error
    assert "\n" not in report.error


@pytest.mark.parametrize("call", ["verify", "fingerprint"])
def test_after_the_start_the_machine_stays_at_the_destination_whatever_fails(tmp_path: Path, call: str) -> None:
    source, destination = machines()
    destination[3].fail_in(call, VerificationError("it does not go on"))
    sent, got = migrate(tmp_path, source, destination)
    assert sent.outcome is got.outcome is State.UNCONFIRMED
    assert "the machine runs at the destination, but: device-3: it does not go on" in sent.error
    assert not sent.verified
    assert not any(device.running for device in source)


def test_a_state_that_is_not_what_was_sent_is_named(tmp_path: Path) -> None:
    source, destination = machines()
    destination[1].before["start"] = lambda: destination[1].got.__setitem__(5, destination[1].got[5] ^ 1)
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.outcome is State.UNCONFIRMED
    assert sent.error.endswith("its state is not what was sent: device-1")
    assert [device.verified for device in sent.devices] == [True, False, True, True, True]


def test_a_device_that_overfills_its_buffer_is_refused(tmp_path: Path) -> None:
    class Liar(Scripted):
        def save_state(self, buffer: memoryview) -> int:
            return len(buffer) + 1

    sent, _ = migrate(tmp_path, [Liar(0, b"x")], [Scripted(0)])
    assert "device-0, chunk 0: its save_state returned 16385: it must return the number" in sent.error


def test_a_config_longer_than_a_chunk_says_what_to_do(tmp_path: Path) -> None:
    source, destination = machines()
    source[0].config = bytes(17 * KIB)
    sent, _ = migrate(tmp_path, source, destination)
    assert "device-0" in sent.error
    assert "raise the chunk size or the memory budget" in sent.error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(
            lambda _, d: d.pop(0),
            "the destination has 3 devices on its multifd channels, this machine 4",
            id="one less",
        ),
        pytest.param(lambda s, _: s.pop(), "ended without plain-9", id="a section less"),
        pytest.param(lambda _, d: d.pop(), "found 'plain-9' (0)", id="a section more"),
        pytest.param(lambda _, d: setattr(d[0], "idstr", "other"), "found 'device-0'", id="another name"),
        pytest.param(lambda s, _: setattr(s[0], "version", 2), "device-0: the state has version 2", id="newer"),
    ],
)
def test_machines_that_differ_are_refused(tmp_path: Path, change: object, words: str) -> None:
    source, destination = machines()
    change(source, destination)  # type: ignore[operator]
    sent, got = migrate(tmp_path, source, destination)
    assert words in sent.error, sent.error
    assert sent.outcome is got.outcome is State.FAILED
    assert all(device.running for device in source)


def test_another_machine_type_is_refused(tmp_path: Path) -> None:
    source, destination = machines()
    sent, _ = Pair(source, destination, names=("pc", "q35")).run(tmp_path)
    assert "the machine 'q35', found 'pc'" in sent.error


def test_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    source, destination = machines()
    two = Settings(channels=2, chunk=16 * KIB, budget=256 * KIB, peer_limit=2, connect_limit=2)
    three = Settings(channels=3, chunk=16 * KIB, budget=256 * KIB, peer_limit=2, connect_limit=2)
    sent, got = Pair(source, destination, settings=two, destination_settings=three).run(tmp_path)
    assert "the source opened 2 of 3 multifd channels" in got.error
    assert "both ends need the same number of channels" in got.error
    assert sent.outcome is State.FAILED
    assert all(device.running for device in source)


def test_a_budget_below_a_page_a_device_says_what_it_takes(tmp_path: Path) -> None:
    source, destination = machines()
    tight = Settings(channels=2, budget=3 * 4 * KIB, peer_limit=2)
    sent, got = migrate(tmp_path, source, destination, settings=tight)
    assert "raise it to 16384 at least" in got.error
    assert sent.outcome is State.FAILED


def test_a_source_without_credits_completes_while_the_budget_suffices(tmp_path: Path) -> None:
    source, destination = machines()
    old = Settings(channels=2, chunk=16 * KIB, budget=1024 * KIB, peer_limit=20, credits=False)
    sent, got = migrate(tmp_path, source, destination, settings=old)
    assert (sent.error, got.error) == ("", "")
    assert sent.clock == "return-path"


def test_a_source_without_credits_fails_on_the_budget_with_a_clear_error(tmp_path: Path) -> None:
    source = [Scripted(number, contents(400 * KIB, number)) for number in range(2)]
    destination = [Scripted(number) for number in range(2)]
    pair = Pair(
        source,
        destination,
        settings=Settings(channels=2, chunk=16 * KIB, budget=64 * KIB, peer_limit=20, credits=False),
        models=(PerDeviceScheduler, InlineScheduler),
    )
    sent, got = pair.run(tmp_path)
    assert got.outcome is State.FAILED
    assert "no room, all 4 chunks of 16384 bytes hold state that is not loaded yet" in got.error
    assert "the source knows no credits: raise the memory budget" in got.error
    assert sent.outcome is State.FAILED
    assert all(device.running for device in source)


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        pytest.param(lambda: [Scripted(0), Scripted(0)], "two devices are called device-0", id="twice"),
        pytest.param(lambda: [Scripted(0, name="ü")], "1 to 255 ASCII characters", id="not ASCII"),
        pytest.param(lambda: [Scripted(0, name="x" * 300)], "1 to 255 ASCII characters", id="too long"),
    ],
)
def test_a_machine_without_clear_names_is_refused(devices: object, words: str) -> None:
    made: list[Device] = devices()  # type: ignore[operator]
    with pytest.raises(UsageError, match=words):
        Machine("machine", made)


@pytest.mark.parametrize("more", [0, 1])
def test_a_config_fits_into_a_chunk_or_is_refused_to_the_byte(tmp_path: Path, more: int) -> None:
    source, destination = Scripted(0, contents(KIB)), Scripted(0)
    source.config = bytes(16 * KIB - CONFIG_FRAME + more)
    sent, got = migrate(tmp_path, [source], [destination])
    if more:
        assert "does not fit into a chunk of 16384" in sent.error
    else:
        assert (sent.error, got.error) == ("", "")


@pytest.mark.parametrize("length", [-1, 16 * KIB + 1])
def test_a_device_that_says_it_filled_what_cannot_be_is_named(tmp_path: Path, length: int) -> None:
    class Liar(Scripted):
        def save_state(self, buffer: memoryview) -> int:
            super().save_state(buffer)
            return length

    sent, _ = migrate(tmp_path, [Liar(0, contents(KIB))], [Scripted(0)])
    assert sent.error.startswith(
        f"device-0, chunk 0: its save_state returned {length}: it must return the number of bytes"
    )
