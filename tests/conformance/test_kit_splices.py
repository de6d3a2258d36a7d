"""The kit and devices with a descriptor for splice(2): what works passes, what loses count is caught."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

import pytest

from migpool.conformance.check import CheckResult, Outcome, run_check
from migpool.conformance.devices import Subject, checks
from migpool.device import Device, DeviceContext, DeviceError
from tests.support.thinned import every_value

SIZE = 500_000
LIMIT = 60.0


class InMemory(Device):
    """A device whose state is in a memfd; its offset says how much of it has gone or come."""

    idstr = "in-memory"
    iterable = True

    def __init__(self, context: DeviceContext) -> None:
        self.fd = os.memfd_create("state")
        if context.side == "source":
            os.write(self.fd, bytes(range(250)) * (SIZE // 250))

    def stop(self) -> None:
        os.lseek(self.fd, 0, os.SEEK_SET)

    def splice_fd(self) -> int | None:
        return self.fd

    def save_state(self, buffer: memoryview) -> int:
        return os.readv(self.fd, [buffer])

    def load_state(self, data: memoryview) -> None:
        os.write(self.fd, data)

    def save_config(self) -> bytes:
        return b"config"

    def load_config(self, data: bytes) -> None:
        if data != b"config" or self.loaded() != SIZE:
            raise DeviceError(f"{self.loaded()} bytes have come")

    def loaded(self) -> int:
        return os.lseek(self.fd, 0, os.SEEK_CUR)

    def fingerprint(self) -> bytes:
        return hashlib.sha256(os.pread(self.fd, SIZE, 0)).digest()

    def close(self) -> None:
        os.close(self.fd)


class CountsItsCalls(InMemory):
    """Counts what ``load_state`` was given, as if nothing could come by another way."""

    count = 0

    def load_state(self, data: memoryview) -> None:
        super().load_state(data)
        self.count += len(data)

    def loaded(self) -> int:
        return self.count


class StaysAtTheBeginning(InMemory):
    """Writes at a place of its own, not at the descriptor's offset."""

    at = 0

    def load_state(self, data: memoryview) -> None:
        self.at += os.pwrite(self.fd, data, self.at)

    def loaded(self) -> int:
        return SIZE


def found(name: str, model: str, kind: Callable[[DeviceContext], Device]) -> CheckResult:
    check = next(one for one in checks(model) if one.name == name)
    return run_check(Subject("in-memory", lambda context: [kind(context)], {}, 1), check, LIMIT)


@pytest.mark.parametrize(
    ("model", "name"),
    every_value(["inline", "pool:2+receiver", "blocking-aware"], ["round-trip", "spliced", "leaves-nothing"]),
)
def test_a_device_with_a_descriptor_passes(name: str, model: str) -> None:
    finding = found(name, model, InMemory)
    assert finding.outcome is Outcome.PASSED, finding.text


def test_a_device_that_counts_its_calls_is_caught() -> None:
    assert found("round-trip", "pool:2+receiver", CountsItsCalls).outcome is Outcome.PASSED
    finding = found("spliced", "pool:2+receiver", CountsItsCalls)
    assert finding.outcome is Outcome.FAILED
    assert "bytes have come" in finding.text


def test_a_device_that_goes_by_a_place_of_its_own_is_caught() -> None:
    assert found("round-trip", "pool:2+receiver", StaysAtTheBeginning).outcome is Outcome.PASSED
    # When a chunk comes decides which way it goes. Without the interpreter lock all go the same way in some checks.
    findings = (found("spliced", "pool:2+receiver", StaysAtTheBeginning) for _ in range(30))
    finding = next((one for one in findings if one.outcome is Outcome.FAILED), None)
    assert finding is not None
    assert "is not the source's" in finding.text or "is not what was sent" in finding.text
