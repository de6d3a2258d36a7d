"""About how much longer a downtime would have been without pre-copy."""

from __future__ import annotations

from dataclasses import dataclass

from migpool.core.effects import Wait
from migpool.lab.analysis.span_index import covered
from migpool.migration.report import SideReport


@dataclass(slots=True)
class _Moving:
    """When one device's state moved after the stop, in nanoseconds; ``end`` is 0 if none did."""

    begin: int = 0
    end: int = 0
    reads: int = 0


def precopy_saving(source: SideReport, destination: SideReport | None = None) -> float | None:
    """About how much longer the downtime would have been without pre-copy, in milliseconds.

    What a device sent before the stop, less what changed afterwards and had to be sent anew, would have had to move
    after it. It is taken to move as fast as the device's state did after the stop in the same run: the bytes of that
    state over the time from the begin of its first read to the end of its last send, or of its last write where the
    destination's times are on the same clock. Devices move at the same time as far as they did: the sum of their times
    is divided by how many of them moved at once on average.

    Returns:
        The estimate; ``None`` if nothing was pre-copied, or no such device had any state left to measure by. A device
        that had none left is not counted.
    """
    clocked = destination is not None and source.clock in ("monotonic", "exchanges")
    moving = _moving(source, destination if clocked else None)
    alone = 0.0
    known = False
    for slot, device in enumerate(source.devices):
        after = device.bytes_after_stop - device.config
        if device.bytes_before_stop and after > 0 and slot in moving:
            known = True
            seconds = (moving[slot].end - moving[slot].begin) / 1e9
            alone += max(0, device.bytes_before_stop - device.redone) * seconds / after
    if not known:
        return None
    times = [(one.begin, one.end) for one in moving.values()]
    at_once = sum(end - begin for begin, end in times) / covered(times)
    return alone * 1e3 / at_once


def _moving(source: SideReport, destination: SideReport | None) -> dict[int, _Moving]:
    found: dict[int, _Moving] = {}
    for span in source.spans:
        if span.wait is Wait.READ:
            one = found.setdefault(span.slot, _Moving(span.begin))
            one.begin = min(one.begin, span.begin)
            one.reads = max(one.reads, span.index)
    ends = [span for span in source.spans if span.wait is Wait.SEND]
    if destination is not None:
        ends += [span for span in destination.spans if span.wait is Wait.WRITE]
    for span in ends:
        # The last read finds nothing more; the config is sent under its index, and is no state.
        if span.slot in found and span.index < found[span.slot].reads:
            found[span.slot].end = max(found[span.slot].end, span.end)
    return {slot: one for slot, one in found.items() if one.end > one.begin}
