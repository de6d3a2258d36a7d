"""What each device's own work takes: as declared, or as the runs show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.device import StateCosts
from migpool.errors import UsageError
from migpool.lab.analysis.page_jobs import memory_of
from migpool.lab.analysis.span_index import covered
from migpool.migration.report import SideReport
from migpool.migration.states import State
from migpool.units import count_of


@dataclass(frozen=True, slots=True)
class DeviceCosts:
    """One device's own work, when nothing is in its way. Times are in seconds.

    Arguments:
        bytes: of its state and config, without what was sent before the stop.
        iterable: whether it has state besides its config.
        quiesce, stop, save_config, load_config: one call each.
        read: all calls of ``save_state`` together.
        write: all calls of ``load_state`` together.
        write_last: the last of them.
        receive_last: the last chunk comes out of its socket.
        start: one call each of ``wake`` and ``start``.
        read_lock: the lock outside the migration that its reads hold; empty without one.
        look: of a memory, one look at which pages have been written.
        sync: the SYNCs at its end.
        page_rate: the most bytes of its pages that any run sent, and received, in a second; 0 for all other devices.
        save_locked, load_locked: whether its config needs the big lock.
        measured: whether the device declares nothing. A declared ``read`` may begin when the device has been stopped, a
            measured one was counted from when all had been.
    """

    name: str
    bytes: int = 0
    iterable: bool = True
    quiesce: float = 0.0
    stop: float = 0.0
    read: float = 0.0
    write: float = 0.0
    write_last: float = 0.0
    receive_last: float = 0.0
    save_config: float = 0.0
    load_config: float = 0.0
    start: float = 0.0
    read_lock: str = ""
    look: float = 0.0
    sync: float = 0.0
    page_rate: float = 0.0
    measured: bool = False
    save_locked: bool = True
    load_locked: bool = True


def device_costs(
    runs: Sequence[tuple[SideReport, SideReport]],
    costs: Sequence[StateCosts | None] = (),
) -> list[DeviceCosts]:
    """Every device's costs, by slot.

    Arguments and errors are those of :func:`~migpool.lab.analysis.bound.lower_bound`.
    """
    completed = [
        (source, destination)
        for source, destination in runs
        if source.outcome is State.COMPLETED and source.stopped and destination.running
    ]
    if not completed:
        raise UsageError("a lower bound rests on runs that completed, and there is none")
    names = [device.name for device in completed[0][0].devices]
    if any([device.name for device in report.devices] != names for run in completed for report in run):
        raise UsageError("the runs are of different machines: give those of one scenario")
    if costs and len(costs) != len(names):
        raise UsageError(f"costs of {count_of(len(costs), 'device')}, but the machine has {len(names)}")
    shown = [_Shown(source, destination) for source, destination in completed]
    found = []
    for slot, name in enumerate(names):
        size = min(source.devices[slot].bytes_after_stop for source, _ in completed)
        known = _least(shown, slot, name, size, completed[0][0].devices[slot].iterable)
        ours = costs[slot] if costs else None
        if ours is not None and any(source.devices[slot].bytes_before_stop for source, _ in completed):
            # How much is left after the stop differs from run to run: no run may be told more than it had to do.
            ours = replace(ours, read=min(ours.read, known.read), write=min(ours.write, known.write))
        if slot == memory_of(completed[0][0]):
            known = _with_memory_costs(known, completed)
        elif ours is not None:
            known = replace(
                known,
                stop=ours.stop,
                read=ours.read,
                write=ours.write,
                write_last=min(_last_write(ours), known.write_last),
                save_config=ours.save_config,
                load_config=ours.load_config,
                read_lock=ours.shared_lock,
                measured=False,
            )
        found.append(known)
    return found


def _last_write(costs: StateCosts) -> float:
    """The last chunk is what the whole ones before it leave of all writes; it may be shorter than they are."""
    if costs.write_chunk <= 0 or costs.write <= 0:
        return 0.0
    # A remainder of next to nothing is a whole chunk that rounding has split.
    before = ceil(costs.write / costs.write_chunk - 1e-9) - 1
    return max(0.0, costs.write - before * costs.write_chunk)


def _with_memory_costs(known: DeviceCosts, runs: Sequence[tuple[SideReport, SideReport]]) -> DeviceCosts:
    """What the memory's part of a downtime takes at least.

    How fast pages can cross at most is what no trace says. What it says is how long at least one packet was on its way
    into a socket, and out of one; the pages of the rounds before the stop, and those after it, over these times are
    rates that were reached. The best of all runs bounds those runs, and is as good an estimate for others as the runs
    are many.
    """
    looks, syncs, sent, received = [], [], [0.0], [0.0]
    for source, destination in runs:
        memory = memory_of(source)
        own = [span for span in source.spans if span.slot == memory and span.begin >= source.stopped]
        looks.append(min((one.duration for one in own if one.wait is Wait.SCAN and one.index < 0), default=0))
        syncs.append(min((one.duration for one in own if one.wait is Wait.SYNC), default=0))
        sends = {one.index: one for one in source.spans if one.slot == memory and one.wait is Wait.SEND}
        receives = {one.index: one for one in destination.spans if one.slot == memory and one.wait is Wait.RECEIVE}
        told = source.devices[memory]
        for late, size in ((False, told.bytes_before_stop), (True, told.bytes_after_stop)):
            numbers = [number for number, one in sends.items() if (one.begin >= source.stopped) is late]
            sent.append(_rate(size, (sends[number] for number in numbers)))
            received.append(_rate(size, (receives[number] for number in numbers if number in receives)))
    return replace(known, look=min(looks) / 1e9, sync=min(syncs) / 1e9, page_rate=min(max(sent), max(received)))


def _rate(size: int, spans: Iterable[Span]) -> float:
    """Bytes a second, over the time in which at least one of the spans was going on."""
    whole = covered((span.begin, span.end) for span in spans)
    return size / (whole / 1e9) if whole else 0.0


class _Shown:
    """What one run shows, in nanoseconds: for each kind of work and device the sum, and the last piece."""

    def __init__(self, source: SideReport, destination: SideReport) -> None:
        self.sums: Counter[tuple[Wait, int]] = Counter()
        self.last: dict[tuple[Wait, int], int] = {}
        self.locked = {
            report.side: {span.slot for span in report.spans if span.wait is Wait.LOCK}
            for report in (source, destination)
        }
        last_chunk: dict[int, int] = {}
        received: dict[tuple[int, int], int] = {}
        for span in (*source.spans, *destination.spans):
            self.sums[span.wait, span.slot] += span.duration
            if span.wait is Wait.RECEIVE:
                received[span.slot, span.index] = span.duration
            elif span.wait is Wait.WRITE and span.index >= last_chunk.get(span.slot, 0):
                last_chunk[span.slot] = span.index
                self.last[Wait.WRITE, span.slot] = span.duration
        for slot, index in last_chunk.items():
            self.last[Wait.RECEIVE, slot] = received.get((slot, index), 0)


def _least(runs: Sequence[_Shown], slot: int, name: str, size: int, iterable: bool) -> DeviceCosts:
    """The least that any run shows of one device, as if it declared nothing."""

    def whole(wait: Wait) -> float:
        return min(run.sums[wait, slot] for run in runs) / 1e9

    def last(wait: Wait) -> float:
        return min(run.last.get((wait, slot), 0) for run in runs) / 1e9

    return DeviceCosts(
        name=name,
        bytes=size,
        iterable=iterable,
        quiesce=whole(Wait.QUIESCE),
        stop=whole(Wait.STOP),
        read=whole(Wait.READ),
        write=whole(Wait.WRITE),
        write_last=last(Wait.WRITE),
        receive_last=last(Wait.RECEIVE),
        save_config=whole(Wait.SAVE_CONFIG),
        load_config=whole(Wait.LOAD_CONFIG),
        start=whole(Wait.WAKE) + whole(Wait.START),
        measured=True,
        save_locked=any(slot in run.locked["source"] for run in runs),
        load_locked=any(slot in run.locked["destination"] for run in runs),
    )
