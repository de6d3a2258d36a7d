"""The kit for device authors: good devices pass, and for each promise a device that breaks it is caught."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ringnic import RingNic
from ringnic import devices as ring_devices

from migpool.conformance.check import Check, CheckResult, Outcome, run_check
from migpool.conformance.devices import Subject, checks
from migpool.device import Device, DeviceContext, DeviceError, OptionValue, Side
from migpool.scenario.plugins import load_device_plugin
from tests.support import LONG
from tests.support.amounts import less_of_the_same
from tests.support.commandline import here, migpool
from tests.support.new_package import announce, run_pytest

MODEL = "per-device+receiver"
TAGGED = ("part-tags", "parts-in-any-order", "parts-at-once", "aborts-several")
OF_ENGINES = {*TAGGED, "saves-and-loads", "aborts", "keeps-no-buffer", "gives-back", "round-trip", "cancels", "errors"}
"""Checks that go another way for a device whose parts have tags."""
LATE: dict[Side, tuple[str, ...]] = {
    "source": ("save_setup", "save_state", "save_part", "save_config"),
    "destination": ("load_state", "load_part", "start"),
}
"""Methods that fail when most of a device's others were called: there is most to be given back."""
LIMIT = 100.0
NOT_OF_A_RING = {"spliced", "config-locks", "live-jobs", *TAGGED}
"""Checks that have nothing to look at in it: it has no descriptor, and its config is under the big lock."""


def found(name: str, make: Callable[[DeviceContext], list[Device]], limit: float = LIMIT) -> CheckResult:
    """What one check finds in the devices that ``make`` makes."""
    check = next(one for one in checks(MODEL) if one.name == name)
    return run_check(Subject("broken", make, {"ring": 200_000}, 2), check, limit)


def broken(kind: type[RingNic]) -> Callable[[DeviceContext], list[Device]]:
    """Devices of a class that breaks a promise."""

    def make(context: DeviceContext) -> list[Device]:
        made: list[Device] = []
        for device in ring_devices(context):
            assert isinstance(device, RingNic)
            made.append(kind(device.instance_id, device.ring))
        return made

    return make


@pytest.mark.parametrize("check", checks(f"{MODEL},pool:1" if LONG else MODEL), ids=str)
def test_a_good_device_passes(check: Check[Subject]) -> None:
    finding = run_check(Subject("ringnic", ring_devices, {"ring": 200_000}, 2), check, LIMIT)
    assert finding.outcome is (Outcome.SKIPPED if check.name in NOT_OF_A_RING else Outcome.PASSED), finding.text


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("plugin", "options"),
    [
        ("vcpu", {} if LONG else {"halt_ms": 2.0}),  # else each keeps a processor busy until it is stopped
        ("vmsd", {"machine": "microvm-smp2"}),
        ("vfio", {"profile": "tiny"}),
        ("vfio", {"profile": "tiny", "engines": 3}),
        ("measured", {"size": 200_000, "config_size": 100, "read": 1e-3, "load": 1e-3}),
    ],
    ids=["vcpu", "vmsd", "vfio", "vfio with engines", "measured"],
)
@pytest.mark.parametrize("check", checks(MODEL), ids=str)
def test_migpools_own_devices_conform(
    plugin: str, options: dict[str, OptionValue], check: Check[Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the long profile every method fails, twice; all methods of a ring ever do.
    less_of_the_same(monkeypatch, FAILED=(0,), FAILING=LATE)
    if "engines" in options and check.name not in OF_ENGINES and not LONG:
        pytest.skip("nothing in it depends on tags; the long profile has it")
    finding = run_check(Subject(plugin, load_device_plugin(plugin), options), check, LIMIT)
    assert finding.outcome is not Outcome.FAILED, finding.text


class LosesBytes(RingNic):
    def load_state(self, data: memoryview) -> None:
        super().load_state(data)
        self.ring[self.moved - 1] ^= 1


class LosesTheEnd(RingNic):
    def save_state(self, buffer: memoryview) -> int:
        length = super().save_state(buffer)
        return 0 if self.moved == len(self.ring) else length


class KeepsTheBuffer(RingNic):
    kept: memoryview

    def save_state(self, buffer: memoryview) -> int:
        self.kept = buffer[:1]
        return super().save_state(buffer)


class RaisesAnything(RingNic):
    def load_config(self, data: bytes) -> None:
        super().load_config(bytes([data[0], *data[1:]]))


class IgnoresWhatIsMissing(RingNic):
    def load_config(self, data: bytes) -> None:
        self.head = int.from_bytes(data[8:16], "big")

    def fingerprint(self) -> bytes:
        return b"always the same"


class LosesItsCounter(RingNic):
    """Its config has a counter that its fingerprint leaves out, and that it throws away."""

    def save_config(self) -> bytes:
        return super().save_config() + bytes(range(32))

    def load_config(self, data: bytes) -> None:
        super().load_config(data[:-32])

    def fingerprint(self) -> bytes:
        return hashlib.sha256(self.ring).digest()


class CannotBeAborted(RingNic):
    def save_state(self, buffer: memoryview) -> int:
        leave.wait(10)
        return super().save_state(buffer)


class DoesNotResume(RingNic):
    def resume(self) -> None:
        return None


class FailsToResume(RingNic):
    def resume(self) -> None:
        raise DeviceError("cannot go on")


class LeavesAThread(RingNic):
    def close(self) -> None:
        threading.Thread(target=leave.wait, name="left", daemon=True).start()


class KeepsItsState(RingNic):
    def close(self) -> None:
        kept.append(bytes(self.ring))


class WantsBigBuffers(RingNic):
    def save_state(self, buffer: memoryview) -> int:
        if len(buffer) < 1 << 14:
            raise DeviceError("the buffer is too small")
        return super().save_state(buffer)


class OtherNames(RingNic):
    def __init__(self, number: int, ring: bytearray) -> None:
        super().__init__(number, ring)
        self.instance_id += 10 * any(ring)


leave = threading.Event()
kept: list[bytes] = []


@pytest.fixture(autouse=True)
def end_what_is_left() -> object:
    leave.clear()
    yield
    leave.set()
    kept.clear()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("round-trip", LosesBytes, "is not what was sent"),
        ("out-of-order", LosesBytes, "its state is not the source's"),
        ("saves-and-loads", LosesTheEnd, "it was given all that its save_state had given (test_kit.py:"),
        ("keeps-no-buffer", KeepsTheBuffer, "keeps a view"),
        ("damaged-config", RaisesAnything, "IndexError"),
        ("missing-state", IgnoresWhatIsMissing, "did not notice"),
        ("changed-config", LosesItsCounter, "the second half of its config"),
        ("aborts", CannotBeAborted, "after abort()"),
        ("cancels", DoesNotResume, "after a cancel at wait"),
        ("errors", FailsToResume, "did not resume"),
        ("leaves-nothing", LeavesAThread, "more threads"),
        ("leaves-nothing", KeepsItsState, "close() does not give up everything"),
        ("short-buffers", WantsBigBuffers, "the buffer is too small"),
        ("identity", OtherNames, "the same devices at both ends"),
    ],
)
def test_a_broken_promise_is_caught(name: str, kind: type[RingNic], words: str) -> None:
    finding = found(name, broken(kind))
    assert finding.outcome is Outcome.FAILED
    assert words in finding.text
    assert "\n" not in finding.text


class Dark(RingNic):
    def fingerprint(self) -> bytes | None:  # type: ignore[override]
        return None


class SaysThatItIsDark(Dark):
    comparable = False


def test_a_device_without_a_fingerprint_has_failed_unless_it_can_have_none() -> None:
    (check,) = (one for one in checks(MODEL) if one.name == "fingerprints")
    dark = Subject("dark", broken(Dark), {"ring": 5000}, 2)
    finding = run_check(dark, check, LIMIT)
    assert finding.outcome is Outcome.FAILED
    assert "state and no fingerprint, so that no migration of it is ever verified" in finding.text
    for told in (replace(dark, comparable=False), replace(dark, plugin=broken(SaysThatItIsDark))):
        finding = run_check(told, check, LIMIT)
        assert finding.outcome is Outcome.PASSED
        assert finding.text.startswith("not compared: ")
    assert found("round-trip", broken(Dark)).text.startswith("completed, not compared: ")


class InOtherPieces(SaysThatItIsDark):
    """Gives the same bytes each time, in pieces of other lengths, as a read may."""

    random = random.Random(1)

    def save_state(self, buffer: memoryview) -> int:
        return super().save_state(buffer[: self.random.randint(1, len(buffer))])


def test_the_same_state_in_other_pieces_is_the_same_state() -> None:
    finding = found("aborts", broken(InOtherPieces))
    assert finding.outcome is Outcome.PASSED, finding.text


class Hangs(RingNic):
    def save_config(self) -> bytes:
        self._ended.wait(LIMIT)
        raise DeviceError("aborted")

    def __init__(self, number: int, ring: bytearray) -> None:
        super().__init__(number, ring)
        self._ended = threading.Event()

    def abort(self) -> None:
        self._ended.set()


def test_a_check_that_hangs_is_ended() -> None:
    finding = found("out-of-order", broken(Hangs), limit=1)
    assert finding.outcome is Outcome.FAILED
    assert finding.text.startswith("it did not end within 1 s: ringnic has been in save_config for ")
    assert finding.text.endswith("; abort() ended it")
    assert [frame.rpartition(" ")[2] for frame in finding.details.stack][:1] == ["save_config"]


def test_the_command_reports_and_writes(tmp_path: Path) -> None:
    markdown, as_json = tmp_path / "report.md", tmp_path / "report.json"
    done = migpool(
        "conformance",
        "ringnic",
        "-o",
        "ring=5000",
        "--models",
        "pool",
        "--markdown",
        str(markdown),
        "--json",
        str(as_json),
    )
    assert done.code == 0, done.err
    assert done.out.rstrip().endswith("ringnic (migpool-ringnic 1.2.3) conforms: 21 checks passed")
    assert "| round-trip | pool | passed | state verified |" in markdown.read_text()
    read = json.loads(as_json.read_text())
    assert read["conforms"]
    assert [one["check"] for one in read["checks"]][:2] == ["identity", "ends-when-aborted"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["conformance", "nothing"], "there is no device plug-in 'nothing'"),
        (["conformance", "ringnic", "-o", "ring"], "is no KEY=VALUE"),
        (["conformance", "vmsd"], "vmsd: give either machine"),
        (["conformance", "ringnic", "--models", "none"], "there is no threading model 'none'"),
        (["conformance", "ringnic", "--count", "0"], "ask for 1 device or more"),
        (["new-device", "My Device"], "is no name for a plug-in"),
        (["new-device", "vfio"], "is installed already"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], words: str) -> None:
    ended = here(*arguments)
    assert ended.code in (1, 2)
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_new_device_conforms_as_its_own_package(tmp_path: Path) -> None:
    made = migpool("new-device", "fast-nic", "--into", str(tmp_path))
    assert made.code == 0, made.err
    package = tmp_path / "fast-nic"
    announce(package)
    # Those three migrate a hundred times; in the short profile the devices of this process do.
    left_out = [] if LONG else ["-k", "not cancels and not errors and not leaves-nothing"]
    done = run_pytest(package, "--migpool-models", "pool:1", *left_out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{21 if LONG else 18} passed" in done.stdout
    again = here("new-device", "fast-nic", "--into", str(tmp_path))
    assert again.code == 2
    assert "is there already" in again.err
