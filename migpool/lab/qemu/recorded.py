"""What a recording says of a migration: how large everything was; without trace logs also how long its phases took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from migpool.errors import UsageError
from migpool.lab.qemu.measured import MeasuredMachine, MeasuredPart, full_name
from migpool.lab.qemu.source import RAM
from migpool.streams.envelope.opening import open_path
from migpool.streams.inspect.reading import Inspection
from migpool.streams.record.explain import explain
from migpool.streams.record.explanation import Explanation
from migpool.wire.ram import RamSectionEnd
from migpool.wire.sections import Kind, Section, SectionHead
from migpool.wire.stream import PassedSection

_CONFIG = 1
"""The flag of the packet that is a device's config."""


@dataclass(slots=True)
class RecordedSizes:
    """Bytes on the wire, heads included; by the devices' names.

    Attributes:
        state: of iterable devices, after the stop.
        configs: of the others, and of iterable devices' configs.
        iterable: the iterable devices, RAM not among them, in the order of their sections.
        ram: of RAM's last round.
        transfer: whether device state went over multifd channels.
        complete: whether every section's size is known.
    """

    state: dict[str, int] = field(default_factory=dict)
    configs: dict[str, int] = field(default_factory=dict)
    iterable: list[str] = field(default_factory=list)
    ram: int = 0
    transfer: bool = False
    complete: bool = True


def recorded_sizes(found: Explanation) -> RecordedSizes:
    """Walk a recording's main channel.

    Arguments:
        found: what a recording explains.
    """
    sizes = RecordedSizes(transfer=bool(found.devices))
    main = next(one for one in found.channels if one.channel is None)
    ended = 0
    with open_path(Path(found.directory) / f"{main.number:03}-source.bytes") as opened:
        inspection = Inspection(opened)
        for event in inspection:
            size, ended = inspection.offset - ended, inspection.offset
            match event:
                case Section(head) | PassedSection(head) if head.kind is Kind.FULL:
                    sizes.configs[_name(head)] = size
                case Section(head) | PassedSection(head) if head.kind is Kind.START:
                    sizes.iterable.append(_name(head))
                case Section(head) | PassedSection(head) if head.kind is Kind.END:
                    sizes.state[_name(head)] = size
                case RamSectionEnd(head) if head.kind is Kind.END:
                    sizes.ram = size
                case _:
                    pass
        sizes.complete = inspection.summary().problem is None
    begin = found.switchover.begin or 0
    over_multifd: dict[str, list[int]] = {}
    for packet in found.device_packets:
        if packet.when >= begin:
            kept = over_multifd.setdefault(full_name(packet.idstr, packet.instance_id), [0, 0])
            kept[packet.flags & _CONFIG] += packet.size
    for name, (state, config) in over_multifd.items():
        sizes.state[name], sizes.configs[name] = state, config
    carried = sum(one.switchover_bytes for one in found.channels if one.channel is not None)
    sizes.ram += max(0, carried - sum(sum(one) for one in over_multifd.values()))
    return sizes


def add_sizes(machine: MeasuredMachine, directory: Path) -> None:
    """Have a machine that trace logs measured its sizes from a recording of the same migration, or of one like it.

    Raises:
        UsageError: it is no recording, or of another machine.
    """
    found = _explained(directory)
    sizes = recorded_sizes(found)
    known = [one for one in machine.parts if full_name(one.name, one.instance) in sizes.configs]
    if not known:
        raise UsageError(f"{directory} has no section of any device that the logs name: it is of another machine")
    for part in machine.parts:
        name = full_name(part.name, part.instance)
        if part.name == RAM:
            part.size = sizes.ram
            continue
        part.size = sizes.state.get(name, part.size) if part.iterable else None
        part.config_size = sizes.configs.get(name, part.config_size)
    machine.machine = found.machine
    # What stands last is said of the sizes as the logs told them.
    machine.notes = [note for note in machine.notes if not note.startswith(("config_size", "  each may"))]
    machine.notes.append(f"sizes: as recorded in {directory.name}, heads included: exact")
    if not sizes.complete:
        machine.notes.append("  but for those whose end the recording does not show")


def recorded(directory: Path) -> MeasuredMachine:
    """A machine from a recording alone: its phases' times, shared out among the devices that each has.

    Raises:
        UsageError: it is no recording, or has no whole switchover.
    """
    found = _explained(directory)
    switchover = found.switchover
    begin, end = switchover.begin, switchover.shut
    ram_end, eof = switchover.ram_end, switchover.eof
    if begin is None or ram_end is None or eof is None:
        raise UsageError(f"{directory} has no whole switchover: a scenario needs one")
    if end is None:
        raise UsageError(f"{directory} has no last word of the destination: record with the capability return-path")
    sizes = recorded_sizes(found)
    if not sizes.configs:
        raise UsageError(f"{directory} has no device's section that could be walked: a scenario needs some")
    channels = sum(one.channel is not None for one in found.channels)
    ram = MeasuredPart(RAM, 0, iterable=True, size=sizes.ram, read=ram_end - begin)
    names = dict.fromkeys([*sizes.iterable, *sizes.state, *sizes.configs])
    parts = [_part(name, sizes, iterable=name in sizes.state) for name in names if name != RAM]
    saved = ram_end  # from then on nothing but sections is saved
    if sizes.transfer:
        for part in parts:
            name = full_name(part.name, part.instance)
            times = [one.when for one in found.device_packets if full_name(one.idstr, one.instance_id) == name]
            passed = min(max(times, default=begin), eof)
            part.read, saved = max(0, passed - begin), max(saved, passed)
    _share_out(eof - saved, [one for one in parts if not (one.iterable and sizes.transfer)], "save")
    _share_out(end - eof, [one for one in parts if one.config_size], "load")
    machine = MeasuredMachine([ram, *parts], end - begin, channels, transfer=sizes.transfer, machine=found.machine)
    machine.notes += [
        "times: what passed when, from the word that the machine has stopped: so its stop is missing, and its start",
        "  is in the loads. Only the sum of each phase was seen: RAM's last round until its end passed; the saves from",
        "  then until all sections' end, shared out evenly; the loads from then until the destination's last word.",
        "  The trace logs of both QEMUs say each device's own.",
        f"sizes: as recorded in {directory.name}, heads included: exact",
    ]
    return machine


def _part(name: str, sizes: RecordedSizes, *, iterable: bool) -> MeasuredPart:
    idstr, number, instance = name.rpartition("#")
    named = (idstr, int(instance)) if number and instance.isdecimal() else (name, 0)
    size = sizes.state.get(name) if iterable else None
    return MeasuredPart(*named, iterable=iterable, size=size, config_size=sizes.configs.get(name, 0))


def _share_out(spent: int, parts: Sequence[MeasuredPart], what: str) -> None:
    for part in parts:
        setattr(part, what, max(0, spent) // len(parts))


def _explained(directory: Path) -> Explanation:
    found = explain(directory)
    if not any(one.channel is None for one in found.channels):
        raise UsageError(f"{directory} has no main channel")
    return found


def _name(head: SectionHead) -> str:
    return full_name(head.idstr, head.instance_id)
