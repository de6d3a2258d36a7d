"""A QEMU's downtime, read from the lines of its two logs in another way than the product does: forwards, and of the
checkpoints and loads alone. It must be of one clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

PARTS: Mapping[str, frozenset[str]] = {
    "stop": frozenset({"device stop", "quiesce"}),
    "ram": frozenset({"send", "scan", "sync", "device read", "device write", "pre-copied"}),
    "save": frozenset({"save config", "section"}),
    "load": frozenset({"load config", "network", "starved"}),
    "start": frozenset({"start", "wake"}),
}
"""What a downtime is split into here, and which kinds of the critical path that is."""
IDLE = 50
"""Microseconds without a load from which on the destination waited for the source."""
SURE = 0.01
"""... and the share of what it had done since it waited last: else it would have had to wait no longer than that."""
BEHIND = 1000
"""Microseconds for which all was there before the destination took it up: it was still at what it had before."""
_SAYS = re.compile(r"(multifd_recv_sync_main_wait|multifd_recv_sync_main|com=SWITCHOVER_START|vmstate_downtime_load) ")
TIE, EDGE = 0.05, 100
"""The share of the downtime, or the microseconds, by which two parts must differ for one to be the larger: each reading
has its own edges."""
_CHECKPOINT = re.compile(r"vmstate_downtime_checkpoint (\S+)")
_LOAD = re.compile(r"vmstate_downtime_load type=(\S+) .* downtime=(\d+)")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the logs say.

    Arguments:
        begin, end: of the guest's downtime, in microseconds since 1970.
        told: the source's own, to its last checkpoint.
        parts: the time of each part along the critical path, in microseconds; they add up.
    """

    begin: int
    end: int
    told: int
    parts: Mapping[str, int]

    @property
    def downtime(self) -> int:
        """Microseconds."""
        return self.end - self.begin

    def is_largest(self, attribution: Mapping[str, float]) -> bool:
        """Whether the largest part of a critical path is the largest here, too, or as large as that."""
        parts = grouped(attribution)
        theirs = max(parts, key=lambda part: parts[part])
        return max(self.parts.values()) - self.parts.get(theirs, 0) <= max(EDGE, TIE * self.downtime)


def microseconds(line: str) -> int:
    """The time of a line."""
    old = re.match(r"\d+@(\d+)\.(\d+):", line)
    if old:
        return int(old[1]) * 10**6 + int(old[2])
    stamp, _, rest = line.partition(" ")[0].rstrip("Z").partition(".")
    return int(datetime.fromisoformat(f"{stamp}+00:00").timestamp()) * 10**6 + int(rest)


def checkpoints(lines: Sequence[str]) -> dict[str, int]:
    """When each was."""
    return {found[1]: microseconds(line) for line in lines if (found := _CHECKPOINT.search(line))}


def grouped(attribution: Mapping[str, float]) -> dict[str, float]:
    """The kinds of a critical path as the parts that are read here; what is of none stands for itself."""
    found: dict[str, float] = {}
    for kind, spent in attribution.items():
        part = next((part for part, kinds in PARTS.items() if kind in kinds), kind)
        found[part] = found.get(part, 0.0) + spent
    return found


def read_downtime(source: Sequence[str], destination: Sequence[str]) -> Reading:
    """The source is at work until the destination waits for it no more; from then on the destination is."""
    ours, theirs = checkpoints(source), checkpoints(destination)
    begin, end = ours["src-downtime-start"], _first(theirs, "-bh-vm-started")
    stopped, saved = ours["src-vm-stopped"], ours["src-iterable-saved"]
    completed, written = _first(theirs, "-loadvm-completed", "-bh-enter"), ours["src-non-iterable-saved"]
    loads = [(stopped, until, True) for until in [_behind(destination, stopped, written)] if until > stopped]
    for line in destination:
        if found := _LOAD.search(line):
            loads.append((microseconds(line) - int(found[2]), microseconds(line), found[1] == "iterable"))  # noqa: PERF401
    over, free, since = stopped, stopped, stopped
    # When the source handed over, from when on the destination had nothing to load, and since when it had had.
    for began, ended, _ in sorted(loads):
        if began >= stopped:
            if began - free > max(IDLE, (free - since) * SURE) and free < written:
                over = since = began
            free = max(free, ended)
    over = min(over, written)  # what had been written and was read later was on its way
    memory = sum(max(0, ended - max(began, over)) for began, ended, iterable in loads if iterable)
    parts = {
        "stop": stopped - begin,
        "ram": max(0, min(over, saved) - stopped) + memory,
        "save": max(0, over - max(saved, stopped)),
        "load": completed - over - memory,
        "start": end - completed,
    }
    return Reading(begin, end, ours["src-downtime-end"] - begin, parts)


def _first(checkpoints: Mapping[str, int], *ends: str) -> int:
    """The first of a downtime's checkpoints that ends so: post-copy has its own."""
    return next(time for point, time in checkpoints.items() if point.endswith(ends))


def _behind(destination: Sequence[str], stopped: int, written: int) -> int:
    """Until when the destination was at what had been sent before the stop; 0 if it was not."""
    waiting = until = 0
    for line in destination:
        found = _SAYS.search(line)
        if found is None:
            continue
        now = microseconds(line)
        if found[1] == "multifd_recv_sync_main_wait":
            waiting = waiting or now
        elif found[1] == "multifd_recv_sync_main":
            until = now if waiting < stopped < now else until
            waiting = 0
        elif now > stopped:  # it has heard of the stop, or where nothing says so it loads what came after it
            return now if now - written > BEHIND else until
    return until
