"""The destination's threads during a downtime.

=====================================================  =========================================================
what QEMU says                                         what it becomes
=====================================================  =========================================================
a section that was sent before the stop                "pre-copied"
a section that is not there yet                        "starved" on the migration's own thread
``vmstate_downtime_load`` of RAM                       "device write"; in it "sync" (until every channel came to
                                                       its SYNC)
``vmstate_downtime_load`` of the rest                  "load config" (of an iterable one "device write")
VFIO's own thread                                      "starved" until a buffer comes, "device write", "lock"
                                                       before the config, "load config"
from ``dst-precopy-loadvm-completed`` on               "start"; in it each VFIO device's "wake" and "start"
a multifd packet                                       no piece: only its arrival is known
=====================================================  =========================================================
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from migpool.lab.qemu.actors import Actor, Piece, partition
from migpool.lab.qemu.log import Event, SideLog, device_name
from migpool.lab.qemu.source import MAIN, RAM, states

NOTICED = 20_000
"""Nanoseconds from which on a section that was not read at once had not come; less is the time of reading."""
DOUBTFUL = 0.01
"""The share of what was done since the wait before up to which a wait is no wait: a thread is held up, too, and had it
been one, source and destination were as long as each other but for that."""
A_LOCK = 1_000_000
"""Nanoseconds from which on a thread that has everything waits for the big lock: that it loads the config QEMU says
once it has it. Less may be anything."""

BEHIND = 1_000_000
"""Nanoseconds after which a section that had been written was not read since the destination was behind: less is the
way through the network."""

_PART = "2"


@dataclass(slots=True)
class DestinationActors:
    """The destination's threads.

    Attributes:
        main: the migration's own.
        threads: VFIO's, which load a device.
        joined: between which moments the migration's own thread waits for VFIO's.
        heard: when it had heard of the stop.
    """

    main: Actor
    threads: list[Actor]
    joined: tuple[int, int]
    heard: int


def destination_actors(log: SideLog, begin: int, end: int, written: int | None) -> DestinationActors:
    """What is known of them; the log's times must be of the source's clock.

    Arguments:
        written: when the source had written everything; ``None`` if that is not known.
    """
    if written is None:
        written = _package(log)
    pieces = [*states(log, "wake", "start"), *_loads(log, written), *_syncs(log)]
    pieces += _unread(log, pieces, begin, written)
    heard = switched(log)
    behind = max((one.end for one in pieces if one.kind == "pre-copied" and begin < one.end <= heard), default=heard)
    loads = heard if _waits(behind, heard, begin, written) else behind
    told = any(event.event == "vmstate_downtime_load" for event in log.events)
    if not told and written is not None:
        loads = max(begin, written)  # nothing but checkpoints is traced: from then on all is there to be loaded
    main = Actor("destination", MAIN, partition(pieces, _phases(log, begin, loads), begin, end))
    arrivals = {
        (log.device(event.said["name"]), int(event.said["index"])): event.time
        for event in log.events
        if event.event == "vfio_load_state_device_buffer_incoming"
    }
    completed = log.checkpoints.get("dst-precopy-loadvm-completed", end)
    loading = (event.time for event in log.own() if event.event in _LOADING and event.time <= completed)
    last = max(loading, default=0) if told else completed
    return DestinationActors(main, _threads(log, arrivals, begin, end), (last, completed), heard)


_LOADING = frozenset({"vmstate_downtime_load", "qemu_loadvm_state_post_main"})


def switched(log: SideLog) -> int:
    """When the destination had heard that the machine has stopped: all that it loads from then on was sent since."""
    for event in log.events:
        if event.said.get("command") == "SWITCHOVER_START":
            return event.time
    first = next((event for event in log.events if event.event == "vmstate_downtime_load"), None)
    if first is not None:
        return first.time - int(first.said["took"]) * 1000
    return next(iter(log.checkpoints.values()))


def _package(log: SideLog) -> int | None:
    """When a post-copy's package began to be read, in which all sections are; ``None`` without one."""
    told = (event.time for event in log.events if event.said.get("command") == "PACKAGED")
    return next((time + 1 for time in told), None)


def _phases(log: SideLog, begin: int, loads: int) -> list[tuple[int, str]]:
    """Of which kind is what nothing is said of; ``loads``: when what was sent after the stop began to be loaded."""
    points = log.checkpoints
    completed = next((time for point, time in points.items() if point.endswith("loadvm-completed")), None)
    entered = next((time for point, time in points.items() if point.endswith("bh-enter")), None)
    known = [
        (begin, "starved"),
        (loads, "load config"),
        (completed if completed is not None else entered, "start"),
    ]
    return sorted(((time, kind) for time, kind in known if time is not None), key=lambda phase: phase[0])


def _loads(log: SideLog, written: int | None) -> list[Piece]:
    """What was loaded. What had been sent before the stop: as far as anything is said of it, or all the time until the
    next section, if the source had written that long before. All others as long as QEMU says."""
    heard = switched(log)
    found = []
    part: Event | None = None
    kind = ""
    done = 0
    for event in log.own():
        if event.event == "qemu_loadvm_state_section":
            if part is not None:
                behind = written is not None and event.time - written > BEHIND
                done = event.time if behind else done
                found.append(Piece(part.time, done, "pre-copied", log.sections.get(part.said["id"], "")))
            part, kind = None, event.said["kind"]
        elif event.event == "qemu_loadvm_state_section_partend" and kind == _PART and event.time < heard:
            part = event
        elif event.event == "vmstate_downtime_load":
            device = device_name(event.said)
            what = "device write" if event.said["type"] == "iterable" else "load config"
            found.append(Piece(event.time - int(event.said["took"]) * 1000, event.time, what, device))
        done = event.time
    return found


def _syncs(log: SideLog) -> list[Piece]:
    """Until every channel has come to its SYNC; that of a round from before the stop is a part of loading it."""
    heard = switched(log)
    found = []
    waiting: Event | None = None
    for event in log.events:
        if event.event == "multifd_recv_sync_main_wait" and waiting is None:
            waiting = event
        elif event.event == "multifd_recv_sync_main":
            if waiting is not None:
                kind = "sync" if event.time > heard else "pre-copied"
                found.append(Piece(waiting.time, event.time, kind, RAM, int(event.said["packet"])))
            waiting = None
    return found


def _unread(log: SideLog, loads: list[Piece], begin: int, written: int | None) -> list[Piece]:
    """When the migration's own thread stood at a section that had not come: from the last that it said to the section's
    first byte. Where nothing is said of sections, from the end of a load to the begin of the next. Once the source has
    written everything it is no wait for it any more."""
    own = [event for event in log.own() if event.time >= begin]
    at, found, since = begin, [], begin
    before = [one for one in loads if one.kind == "pre-copied"]
    if any(event.event == "qemu_loadvm_state_section" for event in own):
        for event in own:
            waited = _waits(at, event.time, since, written) and not any(
                one.begin <= at and one.end >= event.time for one in before
            )
            if event.event == "qemu_loadvm_state_section" and waited:
                found.append(Piece(at, event.time, "starved"))
                since = event.time
            at = event.time
        return found
    for piece in sorted(
        (one for one in loads if one.kind in ("load config", "device write")), key=lambda one: one.begin
    ):
        if _waits(at, piece.begin, since, written):
            found.append(Piece(at, piece.begin, "starved"))
            since = piece.begin
        at = max(at, piece.end)
    return found


def _waits(begin: int, end: int, since: int, written: int | None) -> bool:
    """Whether the destination waited for the source between two moments; ``since``: when it did so before."""
    return end - begin > max(NOTICED, DOUBTFUL * (begin - since)) and (written is None or written > begin)


def _threads(log: SideLog, arrivals: dict[tuple[str, int], int], begin: int, end: int) -> list[Actor]:
    """VFIO's threads that load a device which came over the multifd channels."""
    of_it: defaultdict[str, list[Event]] = defaultdict(list)
    for event in log.events:
        if event.event in _OF_THREADS:
            of_it[event.said["name"]].append(event)
    found = []
    for name, events in of_it.items():
        starts = [event.time for event in events if event.event == "vfio_load_bufs_thread_start"]
        ends = [event.time for event in events if event.event == "vfio_load_bufs_thread_end"]
        if not starts or not ends or ends[-1] <= starts[0]:
            continue
        device = log.device(name)
        pieces = partition(_thread_pieces(device, events, arrivals), [(starts[0], "cpu")], starts[0], ends[-1])
        made = [piece for piece in pieces if piece.end > begin and piece.begin < end]
        if made:
            found.append(Actor("destination", f"load {device}", made, device))
    return found


_OF_THREADS = frozenset(
    {
        "vfio_load_bufs_thread_start",
        "vfio_load_bufs_thread_end",
        "vfio_load_state_device_buffer_starved",
        "vfio_load_state_device_buffer_load_start",
        "vfio_load_state_device_buffer_load_end",
        "vfio_load_device_config_state_start",
        "vfio_load_device_config_state_end",
    }
)


def _thread_pieces(device: str, events: list[Event], arrivals: dict[tuple[str, int], int]) -> list[Piece]:
    found = []
    begun: Event | None = None
    before = events[0].time
    for event in events:
        step = event.event
        if step.endswith("starved"):
            came = arrivals.get((device, int(event.said["index"])))
            if came is not None and came > event.time:
                found.append(Piece(event.time, came, "starved", device, int(event.said["index"])))
                before = came
                continue
        elif step.endswith("_start") and not step.endswith("thread_start"):
            if step.endswith("config_state_start") and event.time - before > A_LOCK:
                found.append(Piece(before, event.time, "lock", device))
            begun = event
        elif begun is not None and step.endswith("_end") and not step.endswith("thread_end"):
            config = step.endswith("config_state_end")
            index = -1 if config else int(event.said["index"])
            found.append(Piece(begun.time, event.time, "load config" if config else "device write", device, index))
            begun = None
        before = event.time
    return found
