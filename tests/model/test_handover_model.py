"""The real ends come to what the model of the hand-over says that they can, and to nothing else.

``handover.pml`` is searched by ``make model``, which writes down in ``endings.txt`` what both ends can come to. Here
something goes wrong with a real source and a real destination at each of their steps. At no instant do two machines
run; every ending stands in the list; and each of the list is seen, or the model would be of something else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from migpool.device import Device, DeviceError
from migpool.migration import incoming
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.transport import accept
from tests.model.__main__ import ENDINGS, MISTAKES, PROPERTIES, VARIANTS
from tests.support.certificates import Certificates
from tests.support.handover_line import HandoverLine
from tests.support.rig import KIB, LIMIT, Pair, Scripted, contents

STATE: Final = contents(9 * KIB)
WORDS: Final = {
    State.COMPLETED: "completed",
    State.UNCONFIRMED: "unconfirmed",
    State.FAILED: "back",
    State.CANCELLED: "back",
}


class Machines:
    """What runs at both ends just now.

    Attributes:
        two: whether devices of both ever ran at once.
        started: whether one ever ran at the destination.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, set[str]] = {"source": set(), "destination": set()}
        self.two = self.started = False

    def note(self, side: str, device: str, runs: bool) -> None:
        with self._lock:
            (self._runs[side].add if runs else self._runs[side].discard)(device)
            self.two = self.two or all(self._runs.values())
            self.started = self.started or bool(self._runs["destination"])

    def run(self, side: str) -> bool:
        with self._lock:
            return bool(self._runs[side])


class Watched(Scripted):
    """A device that says when it runs."""

    def __init__(self, number: int, side: str, machines: Machines) -> None:
        iterable = number == 0
        super().__init__(number, (STATE if side == "source" else b"") if iterable else None)
        self._side = side
        self._machines = machines
        if side == "source":
            machines.note(side, self.idstr, True)

    def stop(self) -> None:
        super().stop()
        self._machines.note(self._side, self.idstr, False)

    def resume(self) -> None:
        self._machines.note(self._side, self.idstr, True)
        super().resume()

    def start(self) -> None:
        super().start()
        self._machines.note(self._side, self.idstr, True)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Arguments:
        at: when: with a message (see the line), or in a device's call, as "destination:start:0".
        do: what then: a method of the line's, or "cancel".
        fails: a call of one of the destination's devices that fails.
        waits: whether the destination proves its devices only then.
    """

    at: str = ""
    do: str = ""
    fails: str = ""
    waits: bool = False


FAULTS: Final[Mapping[str, Fault]] = {
    "nothing": Fault(),
    "a device cannot be saved": Fault(fails="source:save_config:1"),
    "cut while devices are saved": Fault("source:save_config:1", "cut"),
    "cut before the end of the stream": Fault("EOF", "cut"),
    "cancelled while the end of the stream is held": Fault("EOF", "hold+cancel"),
    "cancelled behind the end of the stream": Fault("EOF'", "cancel", waits=True),
    "cut before any device starts": Fault("destination:wake:0", "cut"),
    "no device can start": Fault(fails="destination:wake:0"),
    "no device can start, and that is not heard": Fault("EOF", "hold_back", fails="destination:wake:0"),
    "a device cannot start": Fault(fails="destination:start:0"),
    "a device cannot start, and that is not heard": Fault("EOF", "hold_back", fails="destination:start:0"),
    "cut while a device cannot start": Fault("destination:start:0", "cut", fails="destination:start:0"),
    "silence": Fault("EOF'", "hold_back"),
    "cut before RUNNING": Fault("RUNNING", "cut", waits=True),
    "cut in the proof": Fault("destination:verify:1", "cut"),
    "RUNNING late": Fault("RUNNING", "hold_back_until_asked"),
    "RUNNING not heard": Fault("RUNNING", "hold_back"),
    "a proof fails": Fault(fails="destination:verify:1"),
    "a proof fails, and nothing is heard": Fault("RUNNING", "hold_back", fails="destination:verify:1"),
    "RUNNING changed on its way": Fault("RUNNING", "change"),
    "the last word is not heard": Fault("SHUT", "hold_back"),
    "cut before the last word": Fault("SHUT", "cut"),
    "cut behind the last word": Fault("SHUT'", "cut"),
    "cut in the proof, RUNNING heard": Fault("RUNNING'", "cut", waits=True),
}


@dataclass
class Course:
    """A migration in which a fault comes about."""

    fault: Fault
    settings: Settings
    encrypted: bool
    end: int = 0
    machines: Machines = field(default_factory=Machines)
    started_then: bool | None = None
    is_cut: bool = False
    _done: threading.Event = field(default_factory=threading.Event)

    def run(self, folder: Path) -> None:
        """Run it; what came of it is in the attributes."""
        source, destination = self._devices("source"), self._devices("destination")
        self.line = HandoverLine(
            folder / "line",
            lambda: list(self._devices("copy")),
            self._reached,
            encrypted=self.encrypted,
            end=self.end,
        )
        self.pair = Pair(source, destination, self.settings, through=self.line, listen=None)
        try:
            self.sent, self.got = self.pair.run(folder)
        finally:
            self._done.set()
            self.line.close()

    def _devices(self, side: str) -> Sequence[Device]:
        devices = [Watched(number, side, self.machines) for number in range(3)] if side != "copy" else None
        if devices is None:
            return [Scripted(number, b"" if number == 0 else None) for number in range(3)]
        for device in devices:
            for call in ("save_config", "wake", "start", "verify"):
                name = f"{side}:{call}:{device.idstr.rpartition('-')[2]}"
                device.before[call] = self._before(name)
        return devices

    def _before(self, name: str) -> Callable[[], None]:
        def called() -> None:
            self._reached(name)
            if self.fault.waits and self.settings.credits and ":verify:" in name:
                self._done.wait(LIMIT)
            if name == self.fault.fails:
                raise DeviceError(f"told to fail: {name}")

        return called

    def _reached(self, point: str) -> None:
        if point != self.fault.at or self._done.is_set():
            return
        for action in self.fault.do.split("+"):
            if action == "cancel":
                self.pair.sender.cancel()
                continue
            if action in ("cut", "hold_back"):
                self.started_then, self.is_cut = self.machines.started, action == "cut"
            getattr(self.line, action)()
        self._done.set()

    def endings(self) -> list[str]:
        """What both ends came to. Of whom nothing more is heard may have died, as far as the other one can see."""
        source = f"source {_ended(self.sent)}{' (heard)' if self.sent.running else ''}"
        destination = f"destination {_ended(self.got)}{' (started)' if self.machines.started else ''}"
        endings = [] if self.one_is_dead else [f"{source}, {destination}"]
        if self.started_then is not None:
            endings.append(f"{source}, destination died{' (started)' if self.started_then else ''}")
        if self.is_cut:
            endings.append(f"source died, {destination}")
        return endings

    @property
    def one_is_dead(self) -> bool:
        """Within one host nobody cuts a connection: there is only the death of a process."""
        return self.is_cut and not self.encrypted


def _ended(report: SideReport) -> str:
    return WORDS[report.outcome]


def listed(variant: str) -> set[str]:
    _, _, behind = ENDINGS.read_text("utf-8").partition(f"[{variant}]\n")
    return set(behind.partition("\n[")[0].split("\n")) - {""}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    pytest.importorskip("cryptography")
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def hesitant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of a busy machine has more than a second to say what it is: else it is taken for a stranger."""
    monkeypatch.setattr(accept, "HESITATION", LIMIT)
    monkeypatch.setattr(incoming, "accept_all", partial(accept.accept_all, silence=LIMIT))


@pytest.mark.usefixtures("hesitant")
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_real_ends_come_to_what_the_model_says(tmp_path: Path, certificates: Certificates, variant: str) -> None:
    encrypted, own = "LOCAL" not in VARIANTS[variant], "PLAIN" not in VARIANTS[variant]
    settings = Settings(channels=1, chunk=16 * KIB, budget=256 * KIB, peer_limit=2, credits=own)
    if encrypted:
        settings = replace(settings, tls=str(certificates.good))
    # What is not encrypted anybody can change.
    faults = {name: fault for name, fault in FAULTS.items() if encrypted or fault.do != "change"}
    end = 0
    if encrypted:
        undisturbed = Course(FAULTS["nothing"], settings, encrypted)
        undisturbed.run(tmp_path)
        end = undisturbed.line.end_seen
    courses = {name: Course(fault, settings, encrypted, end) for name, fault in faults.items()}
    places = {name: tmp_path / str(number) for number, name in enumerate(courses)}
    for place in places.values():
        place.mkdir()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: courses[name].run(places[name]), courses))
    allowed, seen = listed(variant), set()
    for name, course in courses.items():
        told = f"{name}: {course.sent.outcome.value} ({course.sent.error}), {course.got.outcome.value}"
        # Who is dead, as a cut within one host has it, runs nothing.
        assert not course.machines.two or course.one_is_dead, f"{told}: two machines ran"
        # It runs at the source if that says so; and at the destination from its start on, unless that was taken back.
        assert course.machines.run("source") == (_ended(course.sent) == "back"), told
        assert course.machines.run("destination") == (_ended(course.got) != "back"), told
        if _ended(course.sent) == "unconfirmed" and not course.sent.running:
            # On a busy machine it may be told besides which thread took longer than the limit to end.
            assert "it stays stopped here; look there before you resume it" in course.sent.error, told
        assert set(course.endings()) <= allowed, f"{told}: {course.endings()}"
        seen.update(course.endings())
    assert seen == allowed


def test_the_model_is_the_one_whose_search_can_fail() -> None:
    model = ENDINGS.with_name("handover.pml").read_text("utf-8")
    assert len(PROPERTIES) == 7
    assert {name for _, name in MISTAKES.values()} | {"back_is_back"} == set(PROPERTIES)
    assert all(model.count(name) for name in MISTAKES)
