"""What each device of a QEMU's migration took, by the trace logs of both sides: the parts of a scenario.

Everything is a turn: on a thread that saves, or loads, one device after the other, from the end of the one before to
its own end, without what was waited for. So what lies between QEMU's own measures (heads of sections, lines of the
trace) is in it, and all turns add up to what the thread did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from migpool.device import Side
from migpool.errors import UsageError
from migpool.lab.qemu.actors import Actor
from migpool.lab.qemu.explain import Explained
from migpool.lab.qemu.log import Event, SideLog, device_name
from migpool.lab.qemu.source import RAM, states
from migpool.sim.world import BUFFER

GUESSED = BUFFER // 8
"""Bytes of a device's state of which nothing is known."""
NOTABLE = 300_000
"""Nanoseconds for which the destination must stand idle to be said to wait for QEMU's buffer."""
_WAITS = frozenset({"starved", "sync", "pre-copied"})
_NO_SECTION = 10_000
"""Nanoseconds: what was saved for less, and is not loaded, has no section."""
_OF_THREADS = {"device read": "read", "save config": "save", "device write": "write", "load config": "load"}


@dataclass(slots=True)
class MeasuredPart:
    """A device. Times are in nanoseconds, sizes in bytes.

    Attributes:
        name: as in the stream.
        instance: its instance id.
        iterable: whether it has state besides its config.
        size, config_size: of its state after the stop, and of its config; ``None`` if nothing says it.
        stop, read, save, write, load, start: as in ``migpool_plugins/measured.py``.
        channel: what the end of RAM's last round took for each channel.
    """

    name: str
    instance: int = 0
    iterable: bool = False
    size: int | None = None
    config_size: int | None = None
    stop: int = 0
    read: int = 0
    save: int = 0
    write: int = 0
    load: int = 0
    start: int = 0
    channel: int = 0

    @property
    def ram(self) -> bool:
        """Whether it is the memory's last round."""
        return self.name == RAM


@dataclass(slots=True)
class MeasuredMachine:
    """All that a migration says.

    Attributes:
        parts: the memory, the iterable devices, the others, each in the order in which they were saved.
        downtime: in nanoseconds.
        channels: of multifd; 0 for none.
        notes: where numbers come from, and how far they may be off; a line each.
        transfer: whether VFIO's devices went over the multifd channels.
        machine: the machine's type; empty if nothing says it.
    """

    parts: list[MeasuredPart]
    downtime: int
    channels: int
    notes: list[str] = field(default_factory=list)
    transfer: bool = False
    machine: str = ""

    def part(self, name: str) -> MeasuredPart | None:
        """The device that has this name, with ``#`` and the instance if that is not 0."""
        return next((one for one in self.parts if full_name(one.name, one.instance) == name), None)


def full_name(name: str, instance: int) -> str:
    """A device's name as everywhere in migpool."""
    return f"{name}#{instance}" if instance else name


def measured(explained: Explained) -> MeasuredMachine:
    """What the logs of both sides say.

    Raises:
        UsageError: one of them is missing.
    """
    if explained.source is None or explained.destination is None:
        raise UsageError("a scenario needs what both sides took: give the source's log and the destination's")
    return _Measuring(explained, explained.source, explained.destination).whole()


class _Measuring:
    def __init__(self, explained: Explained, source: SideLog, destination: SideLog) -> None:
        self._run = explained.result.runs[0]
        self._source, self._destination = source, destination
        self._actors = explained.threads.actors
        self._own: dict[Side, Actor] = {one.side: one for one in explained.threads.own}
        self._threads = {(one.side, one.device): one for one in self._actors if one.device}
        self._parts: dict[str, MeasuredPart] = {}
        self._saved: dict[str, int] = {}  # when each device that has a section was
        self._ends: dict[tuple[str, str], int] = {}  # when each had been saved, by its name and what it is
        self._loaded = {
            device_name(one.said): one.time
            for one in _said(destination.own(), "vmstate_downtime_load")
            if one.said["type"] != "iterable"
        }

    def whole(self) -> MeasuredMachine:
        self._saves()
        self._loads()
        self._of_threads()
        if not self._parts:
            raise UsageError("the logs name no device: a scenario needs some")
        self._stop_and_start()
        channels = self._syncs()
        self._state_sizes()
        machine = MeasuredMachine(
            sorted(self._parts.values(), key=lambda one: (not one.ram, not one.iterable)),
            round((self._run.downtime_ms or 0.0) * 1e6),
            channels,
            transfer=any(side == "destination" for side, _ in self._threads),
        )
        machine.notes += self._notes()
        self._config_sizes(machine)
        return machine

    def _part(self, event: Event) -> MeasuredPart:
        name = device_name(event.said)
        return self._parts.setdefault(name, MeasuredPart(event.said["idstr"], int(event.said["instance"])))

    def _saves(self) -> None:
        before = self._source.checkpoints.get("src-vm-stopped", self._source.checkpoints["src-downtime-start"])
        for event in _said(self._source.events, "vmstate_downtime_save"):
            name, iterable = device_name(event.said), event.said["type"] == "iterable"
            self._ends[name, event.said["type"]] = event.time
            thread = self._threads.get(("source", name))
            if thread is not None and name != RAM:
                # What is left of it on this thread is the wait for its own, and counts with the next device's.
                before = max(before, thread.end)
                self._part(event).iterable = True
                continue
            if not iterable and name not in self._loaded and int(event.said["took"]) * 1000 < _NO_SECTION:
                continue
            part, turn = self._part(event), max(0, event.time - before)
            part.iterable |= iterable
            if iterable:
                part.read += turn
            else:
                part.save += turn
                if name in self._loaded:
                    self._saved[name] = event.time
                else:
                    part.config_size = 0
            before = max(before, event.time)

    def _loads(self) -> None:
        own = self._own["destination"]
        before = own.begin
        for event in _said(self._destination.own(), "vmstate_downtime_load"):
            name = device_name(event.said)
            if ("destination", name) in self._threads:
                continue
            if name == RAM:
                # It is loaded while it is sent: what counts is how long after its end.
                saved = self._ends.get((RAM, "iterable"), own.begin)  # in post-copy nothing of it is saved here
                synced = any(_rounds(self._source))  # else nothing has it sent but a full buffer
                self._part(event).load += max(0, event.time - saved) if synced else _worked(own, saved, event.time)
            else:
                # While it is read, too, its end may not have come: only from then on it is work for sure.
                turn = _worked(own, max(before, self._ends.get((name, event.said["type"]), 0)), event.time)
                if event.said["type"] == "iterable":
                    self._part(event).write += turn
                else:
                    self._part(event).load += turn
            before = event.time
        completed = self._destination.checkpoints.get("dst-precopy-loadvm-completed", before)
        began = max(before, *(one.end for one in self._actors if one.side == "destination" and one.device), before)
        self._after = max(0, completed - began)

    def _of_threads(self) -> None:
        for (_, name), thread in self._threads.items():
            part = self._parts.setdefault(name, MeasuredPart(*_split(name), iterable=True))
            for piece in thread.pieces:
                if (kind := _OF_THREADS.get(piece.kind)) is not None:
                    setattr(part, kind, getattr(part, kind) + piece.duration)

    def _stop_and_start(self) -> None:
        """What no device of VFIO took is the vCPUs'."""
        source, destination = self._source.checkpoints, self._destination.checkpoints
        stopped = source.get("src-vm-stopped", source["src-downtime-start"]) - source["src-downtime-start"]
        running = next(time for point, time in destination.items() if point.endswith("vm-started"))
        started = self._after + running - destination.get("dst-precopy-loadvm-completed", running)
        completed = destination.get("dst-precopy-loadvm-completed", running)
        spans = {
            "stop": (source["src-downtime-start"], source.get("src-vm-stopped", 0)),
            "start": (completed, running),
        }
        for log, kind in ((self._source, "stop"), (self._destination, "start")):
            for piece in states(log, kind, kind):
                begun, ended = spans[kind]
                inside = begun <= piece.begin and piece.end <= ended
                if inside and piece.device in self._parts:
                    part = self._parts[piece.device]
                    setattr(part, kind, getattr(part, kind) + piece.duration)
        others = (one for one in self._parts.values() if not one.iterable)
        rest = self._parts.get("cpu") or next(others, next(iter(self._parts.values())))
        rest.stop += max(0, stopped - sum(one.stop for one in self._parts.values()))
        rest.start += max(0, started - sum(one.start for one in self._parts.values()))

    def _syncs(self) -> int:
        """How many channels there are; what the round's end takes is a part of RAM's turn."""
        ram = self._parts.get(RAM)
        rounds = list(_rounds(self._source))
        channels = max((len(waits) for _, waits, _ in rounds), default=0)
        if ram is None or not channels:
            return channels
        spent = sum(end - (signals or waits)[0] for signals, waits, end in rounds)
        each = 0
        if channels > 1:
            # The first wait is for all of them to come to their SYNC; what each of the others adds is its own.
            for signals, waits, _ in rounds:
                each += round(sum(median(_gaps(times)) for times in (signals, waits) if len(times) > 1))
        ram.read = max(0, ram.read - spent)
        ram.channel = each
        ram.save += max(0, spent - each * channels)
        return channels

    def _state_sizes(self) -> None:
        """Where a log says of a device's state, or of RAM's packets, how large they are."""
        sizes: defaultdict[str, int] = defaultdict(int)
        for event in self._source.events:
            if event.event == "vfio_save_block":
                sizes[self._source.device(event.said["name"])] += int(event.said["size"])
            elif event.event == "multifd_send_fill" and event.said.get("size"):
                sizes[RAM] += int(event.said["size"])
        for name, size in sizes.items():
            if name in self._parts and self._parts[name].iterable:
                self._parts[name].size = size

    def _notes(self) -> Iterator[str]:
        yield "times: each device's turn on the thread that saved, or loaded, it: from the end of the one before,"
        yield "  without what was waited for; of VFIO's own threads what they did. QEMU counts microseconds."
        if any("postcopy" in point for point in self._destination.checkpoints):
            yield "post-copy: QEMU sent all sections as one package; they are simulated as pre-copy's"
        if self._run.clock:
            yield f"clocks: {self._run.clock}"
        yield "stop, start: what no device of VFIO took stands with the vCPUs, and what came after the last load"
        yield "ram: read is the look for dirty pages and their sending; save and channel the end of the round, as it is"
        yield "  without a channel and for each; load what the destination took after that"
        if any(part.iterable and not part.ram for part in self._parts.values()):
            yield "processors: each thread has one here; where they are few threads are slower; `simulate` bounds it"
        yield from (f"remark: {remark}" for remark in self._run.remarks)

    def _config_sizes(self, machine: MeasuredMachine) -> None:
        """No log says how large a section is. But what had been saved while the destination stood idle had not been
        sent: so its waits tell how much QEMU gathered."""
        saved = list(self._saved.values())
        sent = [self._sent(name) for name in self._saved]
        sizes: list[int] = []
        # What is in the buffer already; each group of sections then fills it exactly, so that its last is sent whole.
        there = (
            0
            if machine.transfer
            else sum(GUESSED if one.size is None else one.size for one in machine.parts if one.iterable and not one.ram)
        )
        while (first := len(sizes)) < len(saved):
            when = sent[first]
            last = first if when is None else min(range(first, len(saved)), key=lambda at: abs(saved[at] - (when or 0)))
            together = last + 1 - first
            room = BUFFER - there % BUFFER
            if when is not None and last == len(saved) - 1 and when > saved[last]:
                sizes += [room // (together + 1)] * together  # the end had them sent, and no full buffer
            else:
                share = room // together
                sizes += [*[share] * (together - 1), room - share * (together - 1)]
            there = 0
        for name, size in zip(self._saved, sizes, strict=True):
            self._parts[name].config_size = size
        machine.notes.append("config_size: guessed, so that QEMU's buffer is full when the destination saw it sent;")
        machine.notes.append("  each may be off by any factor, and a recording of such a machine says it")

    def _sent(self, name: str) -> int | None:
        """When a section was sent, if that was notably later than it was saved."""
        saved, loaded = self._saved[name], self._loaded[name]
        waits = [piece for piece in self._own["destination"].pieces if piece.kind == "starved" and piece.end <= loaded]
        idle = [piece.end for piece in waits if min(piece.end - saved, piece.duration) > NOTABLE]
        return max(idle, default=None)


def _said(events: Sequence[Event], event: str) -> list[Event]:
    return [one for one in events if one.event == event]


def _split(name: str) -> tuple[str, int]:
    idstr, number, instance = name.rpartition("#")
    return (idstr, int(instance)) if number and instance.isdecimal() else (name, 0)


def _worked(own: Actor, begin: int, end: int) -> int:
    """What a thread did between two moments, without its waits."""
    return sum(
        max(0, min(piece.end, end) - max(piece.begin, begin)) for piece in own.pieces if piece.kind not in _WAITS
    )


def _gaps(times: Sequence[int]) -> Iterable[int]:
    return [later - sooner for sooner, later in pairwise(times)]


def _rounds(log: SideLog) -> Iterator[tuple[list[int], list[int], int]]:
    """The ends of RAM's rounds after the stop: when each channel was told, when waited for, and when all was over."""
    signals: list[int] = []
    waits: list[int] = []
    for event in log.events:
        if event.event == "multifd_send_sync_main_signal":
            signals.append(event.time)
        elif event.event == "multifd_send_sync_main_wait":
            waits.append(event.time)
        elif event.event == "multifd_send_sync_main":
            if waits:
                yield signals, waits, event.time
            signals, waits = [], []
