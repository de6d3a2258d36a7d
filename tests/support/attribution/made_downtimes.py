"""A small world in virtual time in which migrations are made up: what each would take without a resource is known.

It shares nothing with what it tests: processes are generators that yield a time to pass, or a :class:`Places` to have
one of, or an :class:`Arrival` to wait for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.device import Side
from migpool.migration.report import DeviceReport, SideReport
from tests.support.attribution.attribution_spans import MS, side_report

MANY = 1000


@dataclass(frozen=True)
class Made:
    """One device: how many chunks, and milliseconds for each read, send and write, and for a config at either side.

    Arguments:
        burst: how many times as long every other four reads take, and the writes of the four between them.
    """

    chunks: int = 12
    read: float = 5.0
    send: float = 0.5
    write: float = 4.0
    config: float = 2.0
    burst: float = 1.0


@dataclass(frozen=True)
class Rules:
    """What the devices share; ``MANY`` of a thing is as good as no bound on it.

    Arguments:
        workers, loaders: threads at the source, and at the destination; 0: as many as there.
        rooms: how many chunks of a device the destination holds.
        compute: milliseconds for which a thread computes before each read.
        behind: until when the destination loads what was sent before the stop.
        sections: how long the config of each device takes that is a section, at either side.
    """

    devices: tuple[Made, ...]
    workers: int = MANY
    loaders: int = 0
    rooms: int = MANY
    compute: float = 0.0
    behind: float = 0.0
    sections: tuple[float, ...] = ()
    channels: int = MANY
    read_lock: bool = False
    write_lock: bool = False
    big_lock: bool = True
    link: bool = True

    def but(self, **changes: object) -> Rules:
        """The same with something else."""
        return replace(self, **changes)  # type: ignore[arg-type]


class Places:
    """So many of something."""

    def __init__(self, count: int) -> None:
        self.free = count
        self.waiting: deque[Process] = deque()


class Arrival:
    """Something that comes once."""

    def __init__(self) -> None:
        self.come = False
        self.waiting: list[Process] = []


Process = Generator["float | Places | Arrival", None, None]


class World:
    """Carries out one made-up migration."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._now = 0.0
        self._turn = 0
        self._events: list[tuple[float, int, Process]] = []
        self._spans: dict[Side, list[Span]] = {"source": [], "destination": []}
        self._workers: dict[Side, Places] = {
            "source": Places(rules.workers),
            "destination": Places(rules.loaders or rules.workers),
        }
        self._idle: dict[Side, list[str]] = {"source": [], "destination": []}
        self._free: dict[Side, float] = {"source": 0.0, "destination": 0.0}
        self._channels = Places(rules.channels)
        self._read_lock = Places(1 if rules.read_lock else MANY)
        self._write_lock = Places(1 if rules.write_lock else MANY)
        self._big: dict[Side, Places] = {side: Places(1 if rules.big_lock else MANY) for side in self._workers}
        self._loaded = {(n, i): Arrival() for n, device in enumerate(rules.devices) for i in range(device.chunks)}
        self._heard = Arrival()
        self._written = [Arrival() for _ in rules.sections]
        self._came = {(n, i): Arrival() for n, device in enumerate(rules.devices) for i in range(device.chunks + 1)}

    def run(self) -> tuple[SideReport, SideReport]:
        """Both sides' reports."""
        for number, device in enumerate(self._rules.devices):
            self._at(0.0, self._save(number, device))
            self._at(0.0, self._load(number, device))
        self._at(0.0, self._own("source"))
        self._at(0.0, self._own("destination"))
        self._whole()
        end = self._now
        saved = max(span.end for span in self._spans["source"]) / MS - 1000
        self._span("source", Wait.JOIN, -1, -1, self._free["source"], "main", saved)
        self._span("destination", Wait.JOIN, -1, -1, self._free["destination"], "main", end)
        devices = [DeviceReport(f"d{n}", "", iterable=True) for n in range(len(self._rules.devices))]
        sections = [DeviceReport(f"s{n}", "", iterable=False) for n in range(len(self._rules.sections))]
        return self._reports((*devices, *sections))

    def _own(self, side: Side) -> Process:
        """What the migration's own thread does: it loads what came before the stop, and the sections."""
        if side == "destination":
            yield self._rules.behind
            if self._rules.behind:
                self._span(side, Wait.PRECOPIED, 0, -1, 0.0, "main")
            self._come(self._heard)
        for number, took in enumerate(self._rules.sections):
            slot = len(self._rules.devices) + number
            if side == "destination":
                yield self._written[number]
            begin = self._now
            yield self._big[side]
            self._span(side, Wait.LOCK, slot, -1, begin, "main")
            begin = self._now
            yield took
            self._give(self._big[side])
            wait = Wait.SAVE_CONFIG if side == "source" else Wait.LOAD_CONFIG
            self._span(side, wait, slot, -1, begin, "main")
            if side == "source":
                begin = self._now
                yield 0.01
                self._span(side, Wait.SECTION, slot, -1, begin, "main")
                self._come(self._written[number])
        self._free[side] = self._now

    def _whole(self) -> None:
        while self._events:
            self._now, _, process = heappop(self._events)
            self._step(process)

    def _reports(self, devices: tuple[DeviceReport, ...]) -> tuple[SideReport, SideReport]:
        reports = []
        for side, spans in self._spans.items():
            bare = side_report(side, running=self._now)
            spans.sort(key=lambda span: (span.begin, span.end))
            stopped = 1000 * MS if side == "source" else 0
            reports.append(replace(bare, stopped=stopped, devices=devices, spans=tuple(spans)))
        return reports[0], reports[1]

    def _at(self, time: float, process: Process) -> None:
        self._turn += 1
        heappush(self._events, (time, self._turn, process))

    def _step(self, process: Process) -> None:
        for wanted in process:
            if isinstance(wanted, Places):
                if not wanted.free:
                    wanted.waiting.append(process)
                    return
                wanted.free -= 1
            elif isinstance(wanted, Arrival):
                if not wanted.come:
                    wanted.waiting.append(process)
                    return
            else:
                self._at(self._now + wanted, process)
                return

    def _give(self, places: Places) -> None:
        if places.waiting:
            self._at(self._now, places.waiting.popleft())
        else:
            places.free += 1

    def _come(self, arrival: Arrival) -> None:
        arrival.come = True
        for process in arrival.waiting:
            self._at(self._now, process)

    def _span(
        self, side: Side, wait: Wait, slot: int, index: int, begin: float, thread: str, end: float | None = None
    ) -> None:
        end = self._now if end is None else end
        times = [round((time + 1000) * MS) for time in (begin, end)]
        self._spans[side].append(Span(wait, slot, index, times[0], times[1], thread))

    def _thread(self, side: Side) -> str:
        idle = self._idle[side]
        self._turn += 1
        return idle.pop() if idle else f"{side}-{self._turn}"

    def _save(self, number: int, device: Made, submitted: float = 0.0) -> Process:
        yield self._workers["source"]
        thread = self._thread("source")
        self._span("source", Wait.QUEUED, number, -1, submitted, thread)
        for index in range(device.chunks):
            yield self._rules.compute
            begin = self._now
            yield self._read_lock
            yield device.read * (device.burst if index // 4 % 2 else 1)
            self._give(self._read_lock)
            self._span("source", Wait.READ, number, index, begin, thread)
            if index >= self._rules.rooms:
                begin = self._now
                yield self._loaded[number, index - self._rules.rooms]
                yield 0.02  # the word is on its way
                self._span("source", Wait.CREDIT, number, index, begin, thread)
            yield from self._send(number, index, device.send, thread)
        yield from self._config("source", number, device, thread)
        yield from self._send(number, device.chunks, 0.0, thread)
        self._idle["source"].append(thread)
        self._give(self._workers["source"])

    def _send(self, number: int, index: int, time: float, thread: str) -> Process:
        begin = self._now
        yield self._channels
        got = self._now
        yield time if self._rules.link else 0.0
        self._give(self._channels)
        if got > begin:
            self._span("source", Wait.CHANNEL, number, index, begin, thread, got)
        self._span("source", Wait.SEND, number, index, begin, thread)
        self._span(
            "destination",
            Wait.RECEIVE,
            number,
            index,
            got,
            f"channel-{number % min(max(4, len(self._rules.devices)), self._rules.channels)}",
        )
        self._come(self._came[number, index])

    def _config(self, side: Side, number: int, device: Made, thread: str) -> Process:
        begin = self._now
        yield self._big[side]
        self._span(side, Wait.LOCK, number, device.chunks, begin, thread)
        begin = self._now
        yield device.config
        self._give(self._big[side])
        wait = Wait.SAVE_CONFIG if side == "source" else Wait.LOAD_CONFIG
        self._span(side, wait, number, device.chunks, begin, thread)

    def _load(self, number: int, device: Made) -> Process:
        if self._rules.behind:
            yield self._heard
        submitted = self._now
        yield self._workers["destination"]
        thread = self._thread("destination")
        self._span("destination", Wait.QUEUED, number, -1, submitted, thread)
        for index in range(device.chunks + 1):
            begin = self._now
            yield self._came[number, index]
            self._span("destination", Wait.STARVED, number, index, begin, thread)
            if index == device.chunks:
                break
            begin = self._now
            yield self._write_lock
            yield device.write * (1 if index // 4 % 2 else device.burst)
            self._give(self._write_lock)
            self._span("destination", Wait.WRITE, number, index, begin, thread)
            self._span("destination", Wait.LOADED, number, index, self._now, thread)
            self._come(self._loaded[number, index])
        yield from self._config("destination", number, device, thread)
        self._idle["destination"].append(thread)
        self._give(self._workers["destination"])


def made(rules: Rules) -> tuple[SideReport, SideReport]:
    """The traces of a migration by these rules."""
    return World(rules).run()


def downtime(rules: Rules) -> float:
    """How long it takes, in ms."""
    source, destination = made(rules)
    return (destination.running - source.stopped) / MS


def alike(count: int, **what: float) -> tuple[Made, ...]:
    """Devices, a little apart, so that nothing falls on one moment by chance."""
    base = Made(**what)  # type: ignore[arg-type]
    return tuple(replace(base, read=base.read * (1 + n / 97), write=base.write * (1 + n / 83)) for n in range(count))


def names(devices: Sequence[Made]) -> tuple[str, ...]:
    """What they are called."""
    return tuple(f"d{n}" for n in range(len(devices)))
