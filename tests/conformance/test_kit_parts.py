"""The kit and devices whose parts have tags: a good one passes; what breaks a promise is found by its own check."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import pytest
from ringnic import RingNic
from ringnic import devices as ring_devices

from migpool.conformance.check import Check, CheckResult, Outcome, run_check
from migpool.conformance.devices import Subject, checks
from migpool.device import Device, DeviceContext, DeviceError, Part, Pending, TaggedDevice, VerificationError
from tests.support import LONG
from tests.support.amounts import less_of_the_same

MODEL = "per-device"
LIMIT = 60.0
PIECE = 4096
PARTS = 24


class Pages(TaggedDevice):
    """A device whose parts are pages with a number."""

    idstr = "pages"
    engines = 4

    def __init__(self, context: DeviceContext) -> None:
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.pages: dict[int, bytes] = {}
        if context.side == "source":
            self.pages = {number: bytes([number + 1]) * PIECE for number in range(PARTS)}
        self.left: list[int] = []

    def stop(self) -> None:
        self.left = list(self.pages)

    def save_part(self, buffer: memoryview) -> Part | None:
        with self.lock:
            if self.ended.is_set():
                raise DeviceError("aborted")
            if not self.left:
                return None
            number = self.left.pop(0)
        buffer[:PIECE] = self.pages[number]
        return Part(number, PIECE)

    def load_part(self, tag: int, data: memoryview) -> None:
        with self.lock:
            if self.ended.is_set():
                raise DeviceError("aborted")
            self.pages[tag] = bytes(data)

    def save_config(self) -> bytes:
        return hashlib.sha256(self.whole()).digest()

    def load_config(self, data: bytes) -> None:
        if data != hashlib.sha256(self.whole()).digest():
            raise VerificationError("this is not the state that was saved")

    def whole(self) -> bytes:
        return b"".join(data for _, data in sorted(self.pages.items()))

    def fingerprint(self) -> bytes:
        return hashlib.sha256(self.whole()).digest()

    def resume(self) -> None:
        self.ended.clear()

    def wake(self) -> None:
        self.ended.clear()

    def abort(self) -> None:
        self.ended.set()


class GivesATagTwice(Pages):
    def save_part(self, buffer: memoryview) -> Part | None:
        part = super().save_part(buffer)
        return part if part is None or part.tag != 5 else Part(4, part.length)


class GivesAnEmptyPart(Pages):
    def save_part(self, buffer: memoryview) -> Part | None:
        part = super().save_part(buffer)
        return part and Part(part.tag, 0)


class FillsMoreThanThereIs(Pages):
    def save_part(self, buffer: memoryview) -> Part | None:
        part = super().save_part(buffer)
        return part and Part(part.tag, len(buffer) + 1)


class TagsWithText(Pages):
    def save_part(self, buffer: memoryview) -> Part | None:
        part = super().save_part(buffer)
        return part and Part(part.tag + (1 << 32), part.length)


class GoesOnAfterTheEnd(Pages):
    def save_part(self, buffer: memoryview) -> Part | None:
        part = super().save_part(buffer)
        if part is None:
            self.left = [0]
        return part


class WantsThemInOrder(Pages):
    """Each part builds upon the one before, as in a stream."""

    def load_part(self, tag: int, data: memoryview) -> None:
        if tag != len(self.pages):
            raise DeviceError(f"part {tag} came, and {len(self.pages)} must be next")
        super().load_part(tag, data)


class PutsThemAsTheyCome(WantsThemInOrder):
    def load_part(self, tag: int, data: memoryview) -> None:
        Pages.load_part(self, len(self.pages), data)
        del tag

    def load_config(self, data: bytes) -> None:
        del data


class SavesForOneCaller(Pages):
    """Which part is next is kept while it is copied: the second caller is given the same."""

    inside = 0

    def save_part(self, buffer: memoryview) -> Part | None:
        with self.lock:
            self.inside += 1
        try:
            threading.Event().wait(0.001)
            if self.inside > 1 and self.left:
                buffer[:PIECE] = self.pages[self.left[0]]
                return Part(self.left[0], PIECE)
            return super().save_part(buffer)
        finally:
            with self.lock:
                self.inside -= 1


class LoadsForOneCaller(Pages):
    inside = 0

    def load_part(self, tag: int, data: memoryview) -> None:
        with self.lock:
            self.inside += 1
        try:
            threading.Event().wait(0.001)
            if self.inside == 1:
                super().load_part(tag, data)
        finally:
            with self.lock:
                self.inside -= 1


class EndsOneCallOnly(Pages):
    """An abort that wakes one of those who wait, and leaves the others waiting."""

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context)
        self.woken = threading.Semaphore(0)

    def save_part(self, buffer: memoryview) -> Part | None:
        self.woken.acquire(timeout=5)
        return super().save_part(buffer)

    def abort(self) -> None:
        if not self.ended.is_set():
            self.woken.release()
        super().abort()


class ComesToNothing(Pages):
    engines = 0


def found(name: str, kind: Callable[[DeviceContext], Device]) -> CheckResult:
    check = next(one for one in checks(MODEL) if one.name == name)
    return run_check(Subject("pages", lambda context: [kind(context)], {}, 1), check, LIMIT)


@pytest.mark.parametrize("check", checks(f"{MODEL},pool:2" if LONG else MODEL), ids=str)
def test_a_good_device_passes(check: Check[Subject], monkeypatch: pytest.MonkeyPatch) -> None:
    less_of_the_same(monkeypatch, FAILED=(0,))  # every second call fails where a ring is checked
    finding = run_check(Subject("pages", lambda context: [Pages(context)], {}, 1), check, LIMIT)
    skipped = check.name in ("spliced", "two-jobs", "live-jobs", "config-locks")
    assert finding.outcome is (Outcome.SKIPPED if skipped else Outcome.PASSED), finding.text


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("part-tags", GivesATagTwice, "save_part gave the tag 4 twice"),
        ("part-tags", GivesAnEmptyPart, "a length of 1 to 65536 bytes"),
        (
            "part-tags",
            FillsMoreThanThereIs,
            "its save_part returned Part(tag=0, length=65537): it must return None, or",
        ),
        ("part-tags", TagsWithText, "a Part with a tag of 32 bits"),
        ("part-tags", GoesOnAfterTheEnd, "gave the tag 0 after it had returned None"),
        ("parts-in-any-order", WantsThemInOrder, "with its parts loaded backwards it fails: pages: part 23 came"),
        ("parts-in-any-order", PutsThemAsTheyCome, "with its parts loaded backwards its state is not the source's"),
        ("parts-at-once", SavesForOneCaller, "twice, with several callers at once"),
        ("parts-at-once", LoadsForOneCaller, "with 4 callers at once it fails: pages: this is not the state"),
        ("parts-at-once", ComesToNothing, "engines is 0"),
        ("aborts-several", EndsOneCallOnly, "with 4 callers save_part went on for 2 s after abort()"),
    ],
)
def test_a_broken_promise_is_found_by_its_own_check(
    name: str, kind: Callable[[DeviceContext], Device], words: str
) -> None:
    finding = found(name, kind)
    assert finding.outcome is Outcome.FAILED
    assert words in finding.text


class ReadsOnOneThread(RingNic):
    """Keeps what it reads by to the thread that began."""

    reader = 0

    def save_state(self, buffer: memoryview) -> int:
        self.reader = self.reader or threading.get_ident()
        if self.reader != threading.get_ident():
            raise DeviceError("another thread began to read")
        return super().save_state(buffer)


class IteratesOnOneThread(RingNic):
    """Gives its first bytes while it runs, and only to the thread that set it up."""

    setter = 0

    def pending(self) -> Pending:
        return Pending(precopy=max(0, 1000 - self.moved), stopcopy=2000)

    def save_setup(self) -> bytes:
        self.setter = threading.get_ident()
        return super().save_setup()

    def iterate(self, buffer: memoryview) -> int:
        if self.setter != threading.get_ident():
            raise DeviceError("another thread set it up")
        return super().save_state(buffer[: max(0, 1000 - self.moved)])


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("two-jobs", ReadsOnOneThread, "another thread began to read"),
        ("live-jobs", IteratesOnOneThread, "another thread set it up"),
    ],
)
def test_a_ring_that_keeps_to_one_thread_is_found_by_its_own_check(name: str, kind: type[RingNic], words: str) -> None:
    def make(context: DeviceContext) -> list[Device]:
        made = ring_devices(context)
        return [kind(device.instance_id, device.ring) for device in made if isinstance(device, RingNic)]

    for check in checks(MODEL):
        if check.name in ("round-trip", name):
            finding = run_check(Subject("ring", make, {"ring": 3_000_000}, 2), check, LIMIT)
            assert finding.outcome is (Outcome.FAILED if check.name == name else Outcome.PASSED), finding.text
            assert check.name != name or words in finding.text
