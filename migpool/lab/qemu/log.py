"""What is kept of one side's trace log: the lines of its last downtime, and what names and clocks need of the rest.

Memory is bounded by the lines of one downtime, whatever the log is: of what came before only names, the last packets
and the last rounds are kept; of a downtime no more than ``MOST`` lines, the packets of RAM first to be left out.

What is wanted of a line stands in ``tracepoints.py``: an event with other arguments, as another version may have it, is
counted and passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeVar

from migpool.device import Side
from migpool.errors import UsageError
from migpool.lab.qemu.lines import Counts, read_lines
from migpool.lab.qemu.tracepoints import FORMS, OLDER

V = TypeVar("V")

MOST: Final = 300_000
PACKETS: Final = 4096
"""How many of the last packets each side keeps: those that both kept tie the clocks together."""
EARLIER: Final = 4096
"""How many lines a destination keeps of the time before it heard of the switchover: its downtime begins there."""
ROUNDS: Final = 8
NAMES: Final = 65536
"""How many sections and devices are told apart at the most."""

_BEFORE = frozenset({"multifd_recv_unfill", "multifd_send_fill", "flatview_new"})
"""What is of no interest before the machine stops but for the clocks."""


_OTHER_SIDE: Final[dict[Side, Side]] = {"source": "destination", "destination": "source"}
_SAID_BY: Final[dict[Side, tuple[str, ...]]] = {
    "source": (
        *(
            "vmstate_downtime_checkpoint src",
            "vmstate_downtime_save",
            "multifd_send",
            "migration_",
            "source_return_path",
        ),
        *("savevm_", "vmstate_save", "vfio_save"),
    ),
    "destination": (
        *("vmstate_downtime_checkpoint dst", "vmstate_downtime_load", "multifd_recv", "loadvm_", "qemu_loadvm"),
        *("migrate_send_rp_message", "vmstate_load", "vfio_load", "flatview_new"),
    ),
}
"""How what only this side says begins."""

LISTEN: Final = "POSTCOPY_LISTEN"
"""From then on the memory is loaded by a thread of its own, also after the machine runs."""
_OTHERS = (
    "multifd_send_fill",
    "multifd_recv_unfill",
    "source_return_path",
    "vfio_save_complete_precopy_thread",
    "vfio_load_bufs_thread",
    "vfio_load_state_device_buffer",
)


class Event(NamedTuple):
    """A line that is understood; ``said`` by the names in ``FORMS``."""

    time: int
    thread: str
    event: str
    said: Mapping[str, str]


@dataclass(slots=True)
class SideLog:
    """What one side said.

    Attributes:
        side: found by its checkpoints.
        events: of its last downtime, by time.
        checkpoints: of that downtime, in its order, in nanoseconds of the host's clock.
        sections: the devices' names by the number of their section.
        devices: the names by which VFIO calls its devices, and what the stream calls them.
        packets: when multifd packets were sent, or received, by number: the last ones.
        words: when the peer was told, or heard, what only one can have said first.
        rounds: of RAM before the stop, the last ones: when each ended, and how many pages were dirty.
        left_out: how many lines of the downtime were too many.
        downtimes: how many there are in the log, of which the last counts.
        both: whether it has downtimes of the other side, too.
    """

    path: Path
    side: Side
    counts: Counts
    events: list[Event] = field(default_factory=list)
    checkpoints: dict[str, int] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    packets: dict[int, int] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    rounds: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=ROUNDS))
    left_out: int = 0
    downtimes: int = 0
    both: bool = False

    def own(self) -> list[Event]:
        """The events of the migration's own thread: that of the checkpoints; without ids, what no other says."""
        threads = {event.thread for event in self.events if event.event == "vmstate_downtime_checkpoint"}
        found = []
        listening = False
        for event in self.events:
            listening |= event.said.get("command") == LISTEN
            others = event.event.startswith(_OTHERS) or (listening and event.said.get("type") == "iterable")
            if event.thread in threads and not (event.thread == "" and others):
                found.append(event)
        return found

    def device(self, name: str) -> str:
        """What the stream calls a device of VFIO; its own name, if the log does not say it."""
        return self.devices.get(name, name)


def device_name(said: Mapping[str, str]) -> str:
    """A device's name as everywhere in migpool: its idstr, with the instance if that is not 0."""
    return said["idstr"] if int(said["instance"]) == 0 else f"{said['idstr']}#{said['instance']}"


ON: Final = (
    'before the migration, QMP {"execute": "trace-event-set-state", "arguments": {"name": "vmstate_downtime*", '
    '"enable": true}} or HMP "trace-event vmstate_downtime* on" (QEMU 8.2 or later)'
)


def read_log(path: Path, side: Side | None = None) -> SideLog:
    """Read one side's log.

    Arguments:
        side: the one to read of a QEMU that was both, which a machine came to and went on from; else the later one.

    Raises:
        UsageError: it cannot be read; it is no such log, has no times or no checkpoints, or its migration did not come
            to its end.
    """
    reading = _read(path)
    if len(reading.sides) < 2:
        return reading.whole()
    *_, later = reading.sides
    log = _read(path, side or later).whole()
    log.both = True
    return log


def _read(path: Path, side: Side | None = None) -> _Reading:
    counts = Counts()
    reading = _Reading(path, counts, "" if side is None else _OTHER_SIDE[side])
    for line in read_lines(path, frozenset(FORMS), counts):
        found = FORMS[line.event].fullmatch(line.text)
        if found is None:
            counts.strange += 1
        else:
            reading.take(Event(line.time, line.thread, OLDER.get(line.event, line.event), found.groupdict()))
    return reading


class _Reading:
    """Takes events in the log's order.

    Arguments:
        not_of: the side whose events are passed over; empty for none.

    Attributes:
        sides: those that have checkpoints, the one with the last of them at the end.
    """

    def __init__(self, path: Path, counts: Counts, not_of: Side | Literal[""] = "") -> None:
        self._log = SideLog(path, "source", counts)
        self._not_of = _SAID_BY[not_of] if not_of else ()
        self.sides: dict[Side, None] = {}
        self._within = ""
        self._before: deque[Event] = deque(maxlen=EARLIER)
        self._open = self._listening = False
        self._section = self._saved = ""
        self._all_rounds: deque[tuple[int, int]] = deque(maxlen=ROUNDS)

    def take(self, event: Event) -> None:
        said = event.said
        if self._not_of and f"{event.event} {said.get('point', '')}".startswith(self._not_of):
            return
        self._note(event)
        if event.event == "vmstate_downtime_checkpoint":
            point = said["point"]
            side: Side = "source" if point.startswith("src") else "destination"
            self.sides.pop(side, None)
            self.sides[side] = None
            if point == "src-downtime-start":
                self._begin(with_earlier=False)
            elif side == "destination" and not self._open:
                self._begin(with_earlier=True)  # nothing but checkpoints is traced
            elif not self._open:
                self._within = self._within or point
        elif not self._open and self._begins(event):
            self._begin(with_earlier=True)
        if said.get("command") == LISTEN:
            self._listening = True
        elif event.event == "vmstate_downtime_load" and said["type"] == "iterable":
            self._listening = False
        if self._open:
            self._keep(event)
        elif event.event not in _BEFORE:
            self._before.append(event)

    def _begins(self, event: Event) -> bool:
        """Whether the destination has heard of a switchover."""
        if event.event != "vmstate_downtime_load":
            return event.said.get("command") == "SWITCHOVER_START"
        return not (self._listening and event.said["type"] == "iterable")  # the end of post-copy's memory

    def _begin(self, *, with_earlier: bool) -> None:
        """A downtime begins; of a log with several the last one counts."""
        log = self._log
        log.events = list(self._before) if with_earlier else []
        log.checkpoints, log.left_out, self._open = {}, 0, True
        log.downtimes += 1
        log.rounds = deque(self._all_rounds, maxlen=ROUNDS)
        self._before.clear()

    def _keep(self, event: Event) -> None:
        log = self._log
        if len(log.events) >= MOST or (event.event in _BEFORE and len(log.events) >= MOST // 2):
            log.left_out += 1
        else:
            log.events.append(event)
        if event.event == "vmstate_downtime_checkpoint":
            point = event.said["point"]
            log.checkpoints[point] = event.time
            if point == "src-downtime-end" or point.endswith("-vm-started"):
                self._open = False

    def _note(self, event: Event) -> None:
        """What names and clocks need, whenever it comes."""
        log, said = self._log, event.said
        match event.event:
            case "multifd_send_fill" | "multifd_recv_unfill":
                log.packets.pop(int(said["packet"]), None)
                log.packets[int(said["packet"])] = event.time
                if len(log.packets) > PACKETS:
                    del log.packets[next(iter(log.packets))]
            case "qemu_loadvm_state_section_startfull":
                self._section = device_name(said)
                _put(log.sections, said["id"], self._section)
            case "qemu_loadvm_state_section_partend":
                self._section = log.sections.get(said["id"], "")
            case "vfio_load_state" | "vfio_load_device_config_state_start":
                # With a thread of its own the device's config is loaded within no section of it.
                if self._section.rpartition("#")[0].endswith("vfio") or self._section.endswith("vfio"):
                    log.devices.setdefault(said["name"], self._section)
            case "vfio_save_complete_precopy_thread_start":
                _put(log.devices, said["name"], device_name(said))
            case "vfio_save_complete_precopy":
                self._saved = said["name"]
            case "vmstate_downtime_save" if self._saved:
                # Without a thread of its own a device's state is saved just before this is said of it.
                _put(log.devices, self._saved, device_name(said))
                self._saved = ""
            case "loadvm_process_command_ping" | "source_return_path_thread_pong":
                _put(log.words, f"ping {said['value']}", event.time)
            case "source_return_path_thread_shut":
                log.words["shut"] = event.time
            case "migrate_send_rp_message" if said["message"] == "1":
                log.words["shut"] = event.time
            case "migration_bitmap_sync_end" if not self._open:
                self._all_rounds.append((event.time, int(said["pages"])))
            case _:
                pass

    def whole(self) -> SideLog:
        """What was kept, if it is the log of a migration that ended.

        Raises:
            UsageError: it is not.
        """
        log, path, counts = self._log, self._log.path, self._log.counts
        if not counts.lines:
            raise UsageError(
                f'{path} is empty: start QEMU with -msg timestamp=on -D {path.name}, or say HMP "logfile", and {ON}'
            )
        if not counts.events:
            if counts.untimed:
                raise UsageError(f"{path} has no times: start QEMU with -msg timestamp=on")
            raise UsageError(f"{path} has no line of QEMU's trace: give what -D wrote with -msg timestamp=on; {ON}")
        if not self.sides:
            raise UsageError(f"{path} has no checkpoint of a downtime: {ON}")
        (log.side,) = self.sides
        last = next(reversed(log.checkpoints), "")
        if not last:
            raise UsageError(
                f"{path} has no begin of a downtime, its first checkpoint is {self._within}: the log was cut, or "
                "the tracepoints were switched on too late"
            )
        ends = "src-non-iterable-saved" if log.side == "source" else "-vm-started"
        if not any(point.endswith(ends) for point in log.checkpoints):
            raise UsageError(
                f"{path} has no whole downtime, its last checkpoint is {last}: the migration did not come to its end, "
                "or the log was cut"
            )
        log.events.sort(key=lambda event: event.time)
        return log


def _put(names: dict[str, V], key: str, value: V) -> None:
    if len(names) < NAMES:
        names[key] = value
