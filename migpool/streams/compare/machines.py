"""What a stream says of a machine outside of its devices' fields, compared as a destination would.

Read off real loads: QEMU refuses another machine type, block name, page size, a block of another size unless it can be
resized, a section or a command that it does not know, and footers that are missing or not expected.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final
from uuid import UUID

from migpool.streams.inspect.summary import BlockSummary, SectionSummary, StreamSummary
from migpool.units import format_size
from migpool.vmsd.diff import ALWAYS_READ, Hazard, Verdict
from migpool.vmsd.known import release_of
from migpool.vmsd.layout import device_key
from migpool.wire.configuration import Configuration

_RESIZABLE: Final = "/rom@"
"""Blocks of firmware files have room to grow; how much, a stream does not say."""
_TABLES: Final = "/rom@etc/acpi/tables"
_TABLES_LIMIT: Final = 2 << 20
_NEW_COMMANDS: Final = {"SWITCHOVER_START": (10, 0)}
"""The release that first knew a command; the others are known since 2.5."""
_BITMAPS: Final = "dirty-bitmap"


def machine_hazards(source: StreamSummary, destination: StreamSummary, covered: AbstractSet[str]) -> Iterator[Hazard]:
    """What can go wrong before and beside the devices' descriptions, in one direction.

    Arguments:
        source: who writes.
        destination: what the destination itself wrote.
        covered: the devices whose descriptions are compared elsewhere.
    """
    for side, stream in (("source", source), ("destination", destination)):
        if stream.problem is not None:
            reason = f"the {side}'s stream could be read up to byte {stream.walked} only: {stream.problem}"
            yield Hazard(f"stream of the {side}", "problem", Verdict.CANNOT_TELL, reason)
    yield from _configurations(source.configuration, destination.configuration)
    told = source.described is not None and destination.described is not None
    if told and source.page_size != destination.page_size:
        reason = f"pages of {source.page_size} bytes are written, the destination's have {destination.page_size}"
        yield Hazard("page size", "page size", Verdict.BREAKS, reason)
    if None not in (source.footers, destination.footers) and source.footers != destination.footers:
        reason = "only one side has footers behind sections (send-section-footer)"
        yield Hazard("section footers", "footers", Verdict.BREAKS, reason)
    yield from _memory(source, destination)
    yield from _commands(source, destination)
    yield from _sections(source, destination, covered)


def _configurations(source: Configuration | None, destination: Configuration | None) -> Iterator[Hazard]:
    if source is None or destination is None:
        if source is not destination:
            reason = "only one side has a configuration section (send-configuration)"
            yield Hazard("configuration", "presence", Verdict.BREAKS, reason)
        return
    if source.machine != destination.machine:
        reason = f"the source is a {source.machine}, the destination a {destination.machine}"
        yield Hazard("machine type", "machine type", Verdict.BREAKS, reason)
    if source.page_bits != destination.page_bits:
        bits = [
            "the least of its target" if each is None else f"2^{each}"
            for each in (source.page_bits, destination.page_bits)
        ]
        reason = f"pages have {bits[0]} bytes at the source and {bits[1]} at the destination"
        yield Hazard("page size", "page bits", Verdict.BREAKS, reason)
    ours, theirs = set(source.capabilities or ()), set(destination.capabilities or ())
    if ours != theirs:
        names = ", ".join(sorted(ours ^ theirs))
        reason = f"only one side migrates with the capability {names}: set it at both ends"
        yield Hazard("capabilities", "capabilities", Verdict.BREAKS, reason)
    yield from _uuids(source.uuid, destination.uuid)


def _uuids(source: bytes | None, destination: bytes | None) -> Iterator[Hazard]:
    if source is None or source == destination:
        return
    own = "does not say its own" if destination is None else f"has {UUID(bytes=destination)}"
    reason = f"the source has {UUID(bytes=source)} and asks for the same; the destination {own}"
    yield Hazard("uuid", "uuid", Verdict.CANNOT_TELL if destination is None else Verdict.BREAKS, reason)


def _memory(source: StreamSummary, destination: StreamSummary) -> Iterator[Hazard]:
    theirs = {block.name: block for block in destination.blocks}
    if not source.blocks or not theirs:
        return
    for block in source.blocks:
        path = f"memory {block.name}"
        other = theirs.get(block.name)
        if other is None:
            yield Hazard(path, "block", Verdict.BREAKS, "the destination has no block of this name")
        elif block.used_length != other.used_length:
            yield _sizes(path, block, other)
        elif None not in (block.gpa, other.gpa) and block.gpa != other.gpa:
            reason = f"it is at {block.gpa:#x} in the source's guest and at {other.gpa:#x} in the destination's"
            yield Hazard(path, "place", Verdict.BREAKS, reason)


def _sizes(path: str, source: BlockSummary, destination: BlockSummary) -> Hazard:
    said = (
        f"{format_size(source.used_length)} at the source and {format_size(destination.used_length)} at the destination"
    )
    if not source.name.startswith(_RESIZABLE):
        return Hazard(path, "size", Verdict.BREAKS, said)
    if source.used_length < destination.used_length or (source.name == _TABLES and source.used_length <= _TABLES_LIMIT):
        return Hazard(path, "size", Verdict.LOADS, f"{said}; the destination resizes it")
    return Hazard(path, "size", Verdict.CANNOT_TELL, f"{said}; a stream does not say how far it can grow")


def _commands(source: StreamSummary, destination: StreamSummary) -> Iterator[Hazard]:
    sent = {command.name for command in destination.commands}
    release = release_of(destination.configuration.machine) if destination.configuration else None
    for name in dict.fromkeys(command.name for command in source.commands):
        first = _NEW_COMMANDS.get(name)
        if first is not None and name not in sent and (release is None or release < first):
            reason = f"the destination does not send it; QEMU older than {first[0]}.{first[1]} refuses it"
            yield Hazard(f"command {name}", "command", Verdict.CANNOT_TELL, reason)


def _sections(source: StreamSummary, destination: StreamSummary, covered: AbstractSet[str]) -> Iterator[Hazard]:
    """Sections that no description covers: those of iterable devices, or all where there is none."""
    theirs = {device_key(each.idstr, each.instance_id): each for each in destination.sections}
    seen = set(covered)
    for section in source.sections:
        key = device_key(section.idstr, section.instance_id)
        if key in seen:
            continue
        seen.add(key)
        if key in theirs:
            yield from _versions(key, section, theirs[key])
        elif destination.problem is None and key not in ALWAYS_READ:
            yield _unknown(section)


def _unknown(section: SectionSummary) -> Hazard:
    key = device_key(section.idstr, section.instance_id)
    if section.idstr == _BITMAPS:
        reason = "the destination sends no bitmaps; a stream does not say whether it has disks of these names"
        return Hazard(key, "device", Verdict.CANNOT_TELL, reason)
    return Hazard(key, "device", Verdict.BREAKS, "the destination has no such device")


def _versions(key: str, source: SectionSummary, destination: SectionSummary) -> Iterator[Hazard]:
    written, newest = source.version, destination.version
    if written > newest:
        reason = f"the source writes version {written}, the destination reads up to {newest}"
        yield Hazard(key, "version", Verdict.BREAKS, reason)
    elif written < newest:
        reason = f"the source writes version {written}; a stream does not say whether {newest} reads it"
        yield Hazard(key, "version", Verdict.CANNOT_TELL, reason)
