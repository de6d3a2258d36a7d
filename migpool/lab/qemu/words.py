"""What is said of a QEMU's downtime: what limits it, and what each thing out of the way would be worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from migpool.lab.analysis.attribution import Attribution
from migpool.lab.analysis.why import WORTH_NAMING, instead, listed
from migpool.lab.qemu.source import RAM
from migpool.lab.qemu.whatif import Without
from migpool.units import count_of, format_duration

WEIGHTS: Final = {"pre-copied": 1.2, "big lock": 1.2, "all like the first": 1.0, "network": 0.0}
"""How what is specific counts against what is not: with nothing on its way, almost anything would be shorter."""
ALL_DEVICES: Final = 0.7
"""The same for all devices side by side, which holds whatever one kind of them is worth."""
ONE_SIDE: Final = 0.9
"""The share of what both sides are good for from which on one of them is the reason by itself."""


def culprit(found: Sequence[Without], downtime: int) -> Without | None:
    """What to call the reason; ``None`` if nothing is worth a twentieth of the downtime."""
    worth = [one for one in found if one.shorter >= WORTH_NAMING * downtime]
    if not worth:
        return None
    best = max(worth, key=_weight)
    sides = [one for one in worth if one.side and (one.resource, one.devices) == (best.resource, best.devices)]
    return next((one for one in sides if one.shorter >= ONE_SIDE * best.shorter), best)


def _weight(one: Without) -> float:
    return one.shorter * (
        ALL_DEVICES if one.resource == "in parallel" and not one.kind else WEIGHTS.get(one.resource, 1)
    )


def because(found: Sequence[Without], whole: Attribution) -> str:
    """What limits the downtime, in a sentence or two."""
    first = culprit(found, whole.downtime)
    if first is not None:
        said = says(first, whole)
        return f"{said}. {instead((whole.downtime - first.shorter) / 1e6, whole.downtime / 1e6)}"
    kind, spent = next(iter(whole.nanoseconds.items()), ("other", 0))
    share = 100 * spent / max(1, whole.downtime)
    return f"no one thing. The largest part is {kind}, {format_duration(spent / 1e9)} ({share:.0f} %)."


def says(one: Without, whole: Attribution) -> str:
    """The reason as a clause."""
    done = {"source": "saved", "destination": "loaded"}.get(one.side, "saved, then loaded,")
    what = f"the {len(one.devices)} {one.kind}" if one.kind else f"all {len(one.devices)} devices"
    match one.resource:
        case "in parallel":
            return f"{what} are {done} one after the other"
        case "all like the first":
            return f"each {one.kind} takes longer to load than the one before"
        case "device" if one.devices == (RAM,):
            return f"the last round of RAM takes {_on_path(RAM, whole)}"
        case "device":
            return f"{one.devices[0]} takes {_on_path(one.devices[0], whole)}"
        case "step":
            return f"{_STEPS[one.kind]} {format_duration(_of_step(one, whole) / 1e9)}"
        case "flat views":
            return f"while {count_of(len(one.devices), 'device')} are loaded QEMU builds the flat views of memory anew"
        case "channel":
            return f"the last round of RAM waits for multifd channel {listed(one.devices)}"
        case "big lock":
            return "configs of VFIO devices wait for the big lock"
        case "pre-copied":
            return "the destination is still loading what was sent before the stop"
        case _:
            return "what is sent takes its time to arrive"


_STEPS: Final = {
    "device stop": "the machine as a whole takes long to stop (vCPUs, block devices):",
    "start": "the machine as a whole takes long to start:",
    "load config": "after the last device QEMU is not done with loading for another",
}


def _of_step(one: Without, whole: Attribution) -> int:
    return (
        sum(link.duration for link in whole.links if (link.side, link.kind, link.device) == (one.side, one.kind, ""))
        if one.kind != "load config"
        else one.shorter
    )


def _on_path(device: str, whole: Attribution) -> str:
    return format_duration(sum(link.duration for link in whole.links if link.device == device) / 1e9)
