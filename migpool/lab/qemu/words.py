"""What is said of a QEMU's downtime: what limits it, and what each thing out of the way would be worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

from migpool.device import Side
from migpool.lab.analysis.attribution import Attribution
from migpool.lab.analysis.why import WORTH_NAMING, instead, listed
from migpool.lab.qemu.source import RAM
from migpool.lab.qemu.whatif import LOADED, SAVED, Without
from migpool.units import count_of, format_duration

WEIGHTS: Final = {"pre-copied": 1.2, "big lock": 1.2, "all like the first": 1.0, "network": 0.0}
"""How what is specific counts against what is not: with nothing on its way, almost anything would be shorter. (Where
more of the critical path was on its way than anything else is worth, it is named all the same.)"""
ALL_DEVICES: Final = 0.7
"""The same for all devices side by side, which holds whatever one kind of them is worth."""
NOTABLE_TRACING: Final = 0.1
"""The share of the downtime from which on it is said what the lines of the trace themselves took."""
ONE_SIDE: Final = 0.9
"""The share of what both sides are good for from which on one of them is the reason by itself."""


def culprit(found: Sequence[Without], whole: Attribution) -> Without | None:
    """What to call the reason; ``None`` if nothing is worth a twentieth of the downtime.

    What may be the tracing itself does not count: where that is worth more than anything else without it, it is named.
    """
    downtime = whole.downtime
    tracing = next((one for one in found if one.resource == "tracing"), None)
    worth = [one for one in found if one.untraced >= WORTH_NAMING * downtime]
    best = max((one for one in worth if _weight(one)), key=_weight, default=None)
    if tracing is not None and tracing.shorter >= max(NOTABLE_TRACING * downtime, best.untraced if best else 0):
        return tracing
    late = next((one for one in worth if one.resource == "network"), None)
    if late is not None and whole.nanoseconds.get("network", 0) > (best.untraced if best is not None else 0):
        return late
    if best is None:
        return None
    sides = [one for one in worth if one.side and (one.resource, one.devices) == (best.resource, best.devices)]
    return next((one for one in sides if one.untraced >= ONE_SIDE * best.untraced), best)


def _weight(one: Without) -> float:
    return one.untraced * (
        ALL_DEVICES if one.resource == "in parallel" and not one.kind else WEIGHTS.get(one.resource, 1)
    )


def because(found: Sequence[Without], whole: Attribution, missing: Side | Literal[""] = "") -> str:
    """What limits the downtime, in a sentence or two; how much of it may be the tracing itself, if that is notable.

    Arguments:
        missing: the side without a log. Where this one waited for it for longer than for anything else, and than
            anything here is worth, nothing here is the reason.
    """
    first = culprit(found, whole)
    elsewhere = whole.nanoseconds.get(_WAITED_FOR.get(missing, ""), 0)
    if elsewhere == max(whole.nanoseconds.values(), default=-1) and elsewhere > (first.untraced if first else 0):
        share = 100 * elsewhere / whole.downtime
        return (
            f"nothing that this log says. For {format_duration(elsewhere / 1e9)} ({share:.0f} %) it waited for the "
            f"{missing}, whose log says why."
        )
    traced = sum(one.shorter for one in found if one.resource == "tracing")
    unsure = ""
    if traced >= NOTABLE_TRACING * whole.downtime and (first is None or first.resource != "tracing"):
        unsure = f" Not sure: at least {format_duration(traced / 1e9)} of it are the tracing itself."
    if first is not None and first.shorter < _unnamed(whole) and (first.resource, first.kind) != ("step", LOADED):
        first = None
    if first is not None:
        if missing == "destination" and first.resource in ("device", "in parallel"):
            unsure += " Not sure: a save waits, too, where the destination is late to read, which its log says."
        said = says(first, whole)
        return f"{said}. {instead((whole.downtime - first.shorter) / 1e6, whole.downtime / 1e6)}{unsure}"
    kind, spent = next(iter(whole.nanoseconds.items()), ("other", 0))
    share = 100 * spent / max(1, whole.downtime)
    return f"no one thing. The largest part is {kind}, {format_duration(spent / 1e9)} ({share:.0f} %).{unsure}"


def _unnamed(whole: Attribution) -> int:
    """How long something was saved or loaded of which the log names no device, where nothing but checkpoints is
    traced; nanoseconds."""
    spent = Counter[str]()
    for link in whole.links:
        if not link.device and link.kind in (SAVED, LOADED):
            spent[link.kind] += link.duration
    return max(spent.values(), default=0)


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
        case "tracing":
            return "the lines of the trace themselves, more than anything else that is known"
        case "pre-copied":
            return "the destination is still loading what was sent before the stop"
        case _:
            return "what is sent is read late (the link, or a destination that is kept from running)"


_WAITED_FOR: Final = {"destination": "other", "source": "starved"}
"""Of which kind the wait for a side without a log is."""
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
