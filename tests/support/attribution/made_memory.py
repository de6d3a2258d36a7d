"""Made-up migrations of a machine with memory: a round of pages after the stop, shared by jobs, ended by a SYNC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from migpool.core.effects import Wait
from migpool.migration.report import DeviceReport, SideReport
from tests.support.attribution.attribution_spans import MS
from tests.support.attribution.made_downtimes import MANY, Arrival, Places, Process, Rules, World

EARLIER = 1000
"""How many packets went in the rounds before the stop."""
LAST_LOOK = 0.01
"""Milliseconds to see that a round is over."""


@dataclass(frozen=True)
class Pages:
    """The memory's last round: how many packets, and ms for each thing that is done.

    ``receive`` is what the channel's thread needs for one packet once it has been sent; ``alone`` has the devices wait
    until the round is over.
    """

    packets: int = 60
    jobs: int = 3
    look: float = 4.0
    scan: float = 1.0
    send: float = 2.0
    receive: float = 0.7
    sync: float = 0.5
    alone: bool = False

    def but(self, **changes: object) -> Pages:
        """The same with something else."""
        return replace(self, **changes)  # type: ignore[arg-type]


class MemoryWorld(World):
    """Carries out one made-up migration of a machine with memory."""

    def __init__(self, rules: Rules, pages: Pages) -> None:
        super().__init__(rules)
        self._pages = pages
        self._memory = len(rules.devices)
        self._left = iter(range(pages.packets))
        self._receiving = [Places(1 if rules.channels < MANY else MANY) for _ in range(min(4, rules.channels))]
        self._received = [Arrival() for _ in range(pages.packets)]
        self._jobs_done = [Arrival() for _ in range(pages.jobs + len(rules.devices))]
        self._loads_done = [Arrival() for _ in rules.devices]
        self._synced = Arrival()
        self._last_on: dict[int, float] = {}

    def run(self) -> tuple[SideReport, SideReport]:
        """Both sides' reports."""
        self._at(0.0, self._own_at_source())
        self._at(0.0, self._own_at_destination())
        for number, device in enumerate(self._rules.devices):
            self._at(0.0, self._ending(self._load(number, device), self._loads_done[number]))
        self._whole()
        devices = (
            *(DeviceReport(f"d{n}", "", iterable=True) for n in range(self._memory)),
            DeviceReport("ram", "", False),
        )
        return self._reports(devices)

    def _ending(self, process: Process, done: Arrival) -> Process:
        yield from process
        self._come(done)

    def _own_at_source(self) -> Process:
        yield self._pages.look
        self._span("source", Wait.SCAN, self._memory, -1, 0.0, "main")
        of_pages, of_devices = self._jobs_done[: self._pages.jobs], self._jobs_done[self._pages.jobs :]
        for done in of_pages:
            self._at(self._now, self._ending(self._page_job(self._now), done))
        if self._pages.alone:
            yield from self._joined("source", of_pages)
        for number, (device, done) in enumerate(zip(self._rules.devices, of_devices, strict=True)):
            self._at(self._now, self._ending(self._save(number, device, self._now), done))
        yield from self._joined("source", self._jobs_done)
        begin = self._now
        yield self._pages.sync
        self._span("source", Wait.SYNC, self._memory, -1, begin, "main")
        self._come(self._synced)

    def _own_at_destination(self) -> Process:
        yield self._synced
        begin = self._now
        yield from self._received
        for channel in range(len(self._receiving)):
            last = self._last_on.get(channel, begin)
            self._span("destination", Wait.SYNC, self._memory, -1, max(begin, last), f"channel-{channel}")
        self._span("destination", Wait.SYNC, self._memory, -1, begin, "main")
        yield from self._joined("destination", self._loads_done)

    def _joined(self, side: str, done: Sequence[Arrival]) -> Process:
        begin = self._now
        yield from done
        self._span(side, Wait.JOIN, -1, -1, begin, "main")  # type: ignore[arg-type]

    def _page_job(self, submitted: float) -> Process:
        yield self._workers["source"]
        thread = self._thread("source")
        self._span("source", Wait.QUEUED, self._memory, -1, submitted, thread)
        index = 0
        for number in self._left:
            begin = self._now
            yield self._pages.scan
            self._span("source", Wait.SCAN, self._memory, index, begin, thread)
            yield from self._send_pages(number, index, thread)
            index += 1
        begin = self._now
        yield LAST_LOOK
        self._span("source", Wait.SCAN, self._memory, index, begin, thread)
        self._idle["source"].append(thread)
        self._give(self._workers["source"])

    def _send_pages(self, number: int, index: int, thread: str) -> Process:
        begin = self._now
        yield self._channels
        got = self._now
        yield self._pages.send if self._rules.link else 0.0
        self._give(self._channels)
        if got > begin:
            self._span("source", Wait.CHANNEL, self._memory, index, begin, thread, got)
        self._span("source", Wait.SEND, self._memory, EARLIER + number, begin, thread)
        self._at(self._now, self._receive(number))

    def _receive(self, number: int) -> Process:
        channel = number % len(self._receiving)
        yield self._receiving[channel]
        begin = self._now
        yield self._pages.receive if self._rules.link else 0.0
        self._give(self._receiving[channel])
        self._span("destination", Wait.RECEIVE, self._memory, EARLIER + number, begin, f"channel-{channel}")
        self._last_on[channel] = self._now
        self._come(self._received[number])


def made(rules: Rules, pages: Pages) -> tuple[SideReport, SideReport]:
    """The traces of a migration by these rules."""
    return MemoryWorld(rules, pages).run()


def downtime(rules: Rules, pages: Pages) -> float:
    """How long it takes, in ms."""
    source, destination = made(rules, pages)
    return (destination.running - source.stopped) / MS
