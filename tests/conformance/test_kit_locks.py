"""The kit and devices that declare what lock their config needs: what is right passes, what shares is caught."""

from __future__ import annotations

import hashlib
import itertools
import threading
from typing import ClassVar

import pytest

from migpool.conformance.check import CheckResult, Outcome, run_check
from migpool.conformance.devices import Subject, checks
from migpool.device import ConfigLock, Device, DeviceContext, DeviceError
from migpool.scenario.plugins import load_device_plugin

LIMIT = 60.0
WORDS = 4


class Card(Device):
    """A device with some words of state, and nothing that it shares."""

    idstr = "card"
    save_lock: ConfigLock = "own"
    load_lock: ConfigLock = "own"

    def __init__(self, number: int, seed: int) -> None:
        self.instance_id = number
        self.words = [number * 10 + seed * 50 + word if seed else 0 for word in range(WORDS)]

    def save_config(self) -> bytes:
        return bytes(self.words)

    def load_config(self, data: bytes) -> None:
        self.words = list(data)

    def fingerprint(self) -> bytes:
        return hashlib.sha256(bytes(self.words)).digest()


SCRATCH = bytearray(WORDS)
position = 0
lock = threading.Lock()
calls = itertools.count()


class SavesThroughAScratchBuffer(Card):
    def save_config(self) -> bytes:
        for place, word in enumerate(self.words):
            SCRATCH[place] = word
        return bytes(SCRATCH)


class LoadsThroughAScratchBuffer(Card):
    def load_config(self, data: bytes) -> None:
        SCRATCH[:] = data
        self.words = list(SCRATCH)


class CountsForAll(Card):
    def save_config(self) -> bytes:
        global position
        position = 0
        written = bytearray(WORDS)
        for word in self.words:
            written[position % WORDS] = word
            position += 1
        return bytes(written)


class KeepsItInTheClass(Card):
    current: ClassVar[Card | None] = None

    def load_config(self, data: bytes) -> None:
        KeepsItInTheClass.current = self
        for place, word in enumerate(data):
            assert KeepsItInTheClass.current is not None
            KeepsItInTheClass.current.words[place] = word


class RefusesCompany(Card):
    busy: ClassVar[bool] = False

    def save_config(self) -> bytes:
        if RefusesCompany.busy:
            raise DeviceError("busy")
        RefusesCompany.busy = True
        saved = super().save_config()
        RefusesCompany.busy = False
        return saved


class CountsForItself(Card):
    position = 0

    def save_config(self) -> bytes:
        self.position = 0
        written = bytearray(WORDS)
        for word in self.words:
            written[self.position % WORDS] = word
            self.position += 1
        return bytes(written)


class LocksForItself(SavesThroughAScratchBuffer):
    def save_config(self) -> bytes:
        with lock:
            return super().save_config()

    def load_config(self, data: bytes) -> None:
        with lock:
            super().load_config(data)


class SavesANumber(Card):
    def save_config(self) -> bytes:
        return super().save_config() + bytes([next(calls) % 256])

    def load_config(self, data: bytes) -> None:
        super().load_config(data[:-1])


class SavesOnce(Card):
    saved = False

    def save_config(self) -> bytes:
        if self.saved:
            raise DeviceError("it has been saved")
        self.saved = True
        return super().save_config()


def found(kind: type[Card], *, needs: ConfigLock = "own", count: int = 2) -> CheckResult:
    def make(context: DeviceContext) -> list[Device]:
        cards = [kind(number, context.seed * (context.side == "source")) for number in range(context.count)]
        for card in cards:
            card.save_lock = card.load_lock = needs
        return list(cards)

    return looked_at(Subject("cards", make, {}, count))


def looked_at(subject: Subject) -> CheckResult:
    check = next(one for one in checks("inline") if one.name == "config-locks")
    return run_check(subject, check, LIMIT)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (SavesThroughAScratchBuffer, "its save_config gave other bytes than alone"),
        (LoadsThroughAScratchBuffer, "its load_config left another state than the source's"),
        (CountsForAll, "its save_config"),
        (KeepsItInTheClass, "its load_config left another state than the source's"),
        (RefusesCompany, "its save_config raised DeviceError"),
    ],
)
def test_what_devices_share_is_found(kind: type[Card], words: str, count: int) -> None:
    finding = found(kind, count=count)
    assert finding.outcome is Outcome.FAILED, finding.text
    assert words in finding.text
    assert "test_kit_locks.py:" in finding.text
    assert '_lock = "own" is too little' in finding.text


@pytest.mark.parametrize("needs", ["own", "none"])
@pytest.mark.parametrize("kind", [Card, LocksForItself, SavesANumber, SavesOnce])
def test_what_shares_nothing_passes(kind: type[Card], needs: ConfigLock) -> None:
    finding = found(kind, needs=needs)
    assert finding.outcome is Outcome.PASSED, finding.text


def test_a_count_of_the_devices_own_needs_its_own_lock() -> None:
    assert found(CountsForItself).outcome is Outcome.PASSED
    finding = found(CountsForItself, needs="none")
    assert finding.outcome is Outcome.FAILED
    assert "with the same call" in finding.text
    assert '"none" is too little' in finding.text


def test_under_the_big_lock_there_is_nothing_to_find() -> None:
    assert found(SavesThroughAScratchBuffer, needs="big").outcome is Outcome.SKIPPED


def test_one_device_beside_one_under_the_big_lock_is_looked_at() -> None:
    def make(context: DeviceContext) -> list[Device]:
        cards = [SavesThroughAScratchBuffer(number, context.seed * (context.side == "source")) for number in range(2)]
        cards[0].save_lock = cards[0].load_lock = "big"
        return list(cards)

    assert looked_at(Subject("cards", make, {}, 2)).outcome is Outcome.FAILED


def test_vcpus_pass() -> None:
    finding = looked_at(Subject("vcpu", load_device_plugin("vcpu"), {"backend": "unicorn"}, 2))
    assert finding.outcome is Outcome.PASSED, finding.text
    assert "meetings" in finding.text
