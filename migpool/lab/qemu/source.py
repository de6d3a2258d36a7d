"""The source's threads during a downtime.

=====================================================  =========================================================
what QEMU says                                         what it becomes
=====================================================  =========================================================
a change of a VFIO device's state                      "quiesce" (to a P2P state) or "device stop" of the device
until ``src-vm-stopped``, besides                      "device stop": vCPUs, block devices, clocks
``vmstate_downtime_save`` of RAM                       "send"; in it "scan" (the dirty bitmap) and "sync" (a
                                                       channel that is waited for)
``vmstate_downtime_save`` of another iterable device   "device read"
VFIO's own thread                                      "device read" until the config has been saved, then "save
                                                       config"
``vmstate_downtime_save`` of the rest                  "save config"
a multifd packet                                       "send" on its channel's thread
after ``src-non-iterable-saved``                       "section" until all is written, then the wait for the
                                                       destination
=====================================================  =========================================================
"""

from __future__ import annotations

from collections import defaultdict

from migpool.lab.qemu.actors import Actor, Piece, partition
from migpool.lab.qemu.log import Event, SideLog, device_name

MAIN = "migration"
RAM = "ram"


def source_actors(log: SideLog, begin: int, end: int) -> tuple[Actor, list[Actor], list[Actor]]:
    """The migration's own thread, those of VFIO's devices, those of the channels."""
    points = log.checkpoints
    pieces = [*states(log, "quiesce", "device stop"), *_saves(log), *_memory(log)]
    main = Actor("source", MAIN, partition(pieces, _phases(points, log), begin, end))
    return main, _threads(log, begin, end), _channels(log, begin, end)


def written(log: SideLog) -> int:
    """When the source had written everything."""
    saved = log.checkpoints["src-non-iterable-saved"]
    later = (event.time for event in log.events if event.event == "migration_return_path_end_before")
    return max(saved, min(later, default=saved))


def _phases(points: dict[str, int], log: SideLog) -> list[tuple[int, str]]:
    known = [
        (points.get("src-downtime-start"), "device stop"),
        (points.get("src-vm-stopped"), "send"),
        (points.get("src-iterable-saved"), "save config"),
        (points.get("src-non-iterable-saved"), "section"),
        (written(log), "other"),
    ]
    return sorted(((time, kind) for time, kind in known if time is not None), key=lambda phase: phase[0])


def states(log: SideLog, towards_others: str, whole: str) -> list[Piece]:
    """Each change of a device's state."""
    begun: dict[str, Event] = {}
    found = []
    for event in log.events:
        if event.event == "vfio_migration_set_state":
            begun[event.said["name"]] = event
        elif event.event == "vfio_migration_set_device_state":
            began = begun.pop(event.said["name"], None)
            if began is not None:
                kind = towards_others if "P2P" in event.said["state"] else whole
                found.append(Piece(began.time, event.time, kind, log.device(event.said["name"])))
    return found


def _saves(log: SideLog) -> list[Piece]:
    found = []
    for event in log.events:
        if event.event != "vmstate_downtime_save":
            continue
        device = device_name(event.said)
        ours = "send" if device == RAM else "device read"
        kind = ours if event.said["type"] == "iterable" else "save config"
        found.append(Piece(event.time - int(event.said["took"]) * 1000, event.time, kind, device))
    return found


def _memory(log: SideLog) -> list[Piece]:
    """The last round of RAM: the log of dirty pages, and the channels that are waited for."""
    found = []
    synced: int | None = None
    waiting: Event | None = None
    for event in log.events:
        name = event.event
        if name == "migration_bitmap_sync_start":
            synced = event.time
        elif name == "migration_bitmap_sync_end" and synced is not None:
            found.append(Piece(synced, event.time, "scan", RAM))
            synced = None
        elif name in ("multifd_send_sync_main_wait", "multifd_send_sync_main"):
            if waiting is not None:
                found.append(Piece(waiting.time, event.time, "sync", RAM, int(waiting.said["channel"])))
            waiting = event if name == "multifd_send_sync_main_wait" else None
    return found


def _threads(log: SideLog, begin: int, end: int) -> list[Actor]:
    """VFIO's threads that save a device over the multifd channels."""
    of_it: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for event in log.events:
        if (
            event.event.startswith("vfio_save_complete_precopy_thread")
            or event.event == "vfio_save_device_config_state"
        ):
            of_it[event.said["name"]][event.event.rpartition("_")[2]] = event.time
    found = []
    for name, times in of_it.items():
        if "start" in times and "end" in times and times["end"] > times["start"]:
            config = min(max(times.get("state", times["end"]), times["start"]), times["end"])
            device = log.device(name)
            pieces = [
                Piece(times["start"], config, "device read", device),
                Piece(config, times["end"], "save config", device),
            ]
            made = [piece for piece in pieces if piece.begin < min(piece.end, end) and piece.end > begin]
            if made:
                found.append(Actor("source", f"save {device}", made, device))
    return found


def _channels(log: SideLog, begin: int, end: int) -> list[Actor]:
    """The threads of the channels: a packet is sent until the next one is ready, or RAM has been saved."""
    of_it: defaultdict[str, list[Event]] = defaultdict(list)
    for event in log.events:
        if event.event == "multifd_send_fill":
            of_it[event.said["channel"]].append(event)
    saved = log.checkpoints.get("src-iterable-saved", end)
    found = []
    for channel, events in sorted(of_it.items(), key=lambda pair: int(pair[0])):
        times = [event.time for event in events] + [max(events[-1].time, saved)]
        pieces = [
            Piece(from_, to, "send", RAM, int(event.said["packet"]))
            for event, from_, to in zip(events, times, times[1:], strict=False)
            if begin <= from_ < to <= end
        ]
        if pieces:
            found.append(Actor("source", f"multifd {channel}", pieces))
    return found
