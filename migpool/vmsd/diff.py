"""Whether state written by one version of a description can be read by another: before a migration, not in it.

The rules are those of loading. A section's version must be one that the reader's description accepts. The writer's
fields of that version and the reader's must then be the same bytes in the same order: nothing on the wire says where a
field begins. A nested structure has no version on the wire, so each side uses its own. A subsection may always be
missing, but one that comes must be known.

A form that does not tell what decides is no ground for a verdict: then it is :attr:`Verdict.CANNOT_TELL`, with what is
missing. A stream has no conditions, no minimum versions and no subsections that were not needed that day; a dump has
no counts that are in the state, and does not say which devices a machine has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from enum import IntEnum
from typing import Final

from migpool.vmsd.known import is_known
from migpool.vmsd.layout import Extent, FieldLayout, Layout, LayoutSet

ALWAYS_READ: Final = frozenset({"globalstate"})
"""Sections that QEMU has on every machine, and sends only when there is something to say."""


MACHINE_LEVEL: Final = "spapr/cap/"
"""Subsections of POWER's machines, one for each level that is not the usual one; a higher one is refused."""
UNSTATED: Final = "only one side states how many elements it has"
"""The reason of a change that is none: older QEMUs dump no counts."""

_UNREAD: Final = "the destination does not read it"
_UNWRITTEN: Final = "the source does not write it"


class Verdict(IntEnum):
    """What a destination does with a stream, as far as descriptions tell."""

    LOADS = 0
    CANNOT_TELL = 1
    """It depends on something that the two do not say."""
    BREAKS = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between an old and a new side.

    Arguments:
        path: device, field or subsection, from the outside in; or what of the machine it is.
        forward: what it does to a migration from the old side to the new one.
        backward: what it does to a migration from the new side to the old one.
        reason: why, in one line.
    """

    path: str
    forward: Verdict
    backward: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Compatibility:
    """The worst of many changes, in each direction."""

    forward: Verdict
    backward: Verdict


@dataclass(frozen=True, slots=True)
class Hazard:
    """What may go wrong in one direction.

    Arguments:
        path: where.
        topic: of what kind it is: hazards of the two directions with one path and topic are one change.
        verdict: what it does.
        reason: why.
    """

    path: str
    topic: str
    verdict: Verdict
    reason: str


def compare(old: LayoutSet, new: LayoutSet) -> list[Change]:
    """All differences that matter to a migration between the two, or that one might think do.

    Arguments:
        old: the descriptions of one side; see :func:`~migpool.vmsd.layout.read_layouts`.
        new: those of the other side, of the same form.

    Returns:
        The changes in the order of the devices; empty if there are none.
    """
    return joined(hazards(old, new), hazards(new, old))


def joined(ahead_hazards: Iterator[Hazard], back_hazards: Iterator[Hazard]) -> list[Change]:
    """The hazards of the two directions as changes, in their order."""
    forward = {(hazard.path, hazard.topic): hazard for hazard in ahead_hazards}
    backward = {(hazard.path, hazard.topic): hazard for hazard in back_hazards}
    changes: list[Change] = []
    for key in [*forward, *(key for key in backward if key not in forward)]:
        one, other = forward.get(key), backward.get(key)
        ahead, back = (each.verdict if each else Verdict.LOADS for each in (one, other))
        changes.append(Change(key[0], ahead, back, _reason(one, other)))
    return changes


def compatibility(changes: Sequence[Change]) -> Compatibility:
    """What all changes together do."""
    return Compatibility(
        max((change.forward for change in changes), default=Verdict.LOADS),
        max((change.backward for change in changes), default=Verdict.LOADS),
    )


def _reason(ahead: Hazard | None, back: Hazard | None) -> str:
    if ahead and back:
        return ahead.reason if ahead.reason == back.reason else f"forward: {ahead.reason}; backward: {back.reason}"
    only = ahead or back
    assert only is not None
    return only.reason


def hazards(source: LayoutSet, destination: LayoutSet) -> Iterator[Hazard]:
    """What can go wrong when ``destination`` reads what ``source`` writes."""
    return _Reading(source, destination).hazards()


class _Reading:
    """One direction.

    Arguments:
        source: who writes.
        destination: who reads.
    """

    def __init__(self, source: LayoutSet, destination: LayoutSet) -> None:
        self._source = source
        self._destination = destination
        self._machine = source.machine and destination.machine
        self._sent_by_destination = destination.subsections() if self._machine else frozenset()

    def hazards(self) -> Iterator[Hazard]:
        for name, layout in self._source.devices.items():
            other = self._destination.devices.get(name)
            if other is None:
                yield self._missing(name)
            elif not self._machine and layout.name != other.name:
                reason = f"the section is called {layout.name} at the source and {other.name} at the destination"
                yield Hazard(name, "name", Verdict.BREAKS, reason)
            else:
                yield from self._section(name, layout, other)

    def _missing(self, name: str) -> Hazard:
        if name in ALWAYS_READ:
            return Hazard(name, "device", Verdict.LOADS, "the destination reads it, and did not need to send it")
        if self._machine:
            return Hazard(name, "device", Verdict.BREAKS, "the destination has no such device")
        reason = "the destination has no such device; it depends on whether the machine has one"
        return Hazard(name, "device", Verdict.CANNOT_TELL, reason)

    def _section(self, path: str, source: Layout, destination: Layout) -> Iterator[Hazard]:
        """A section or subsection, whose version is on the wire."""
        version, oldest = source.version, destination.minimum_version
        if version > destination.version:
            reason = f"the source writes version {version}, the destination reads up to {destination.version}"
            yield Hazard(path, "version", Verdict.BREAKS, reason)
        elif oldest is not None and version < oldest:
            reason = f"the source writes version {version}, the destination reads from {oldest} on"
            yield Hazard(path, "version", Verdict.BREAKS, reason)
        elif oldest is None and version < destination.version:
            newest = destination.version
            reason = f"the source writes version {version}; a stream does not say whether {newest} reads it"
            yield Hazard(path, "version", Verdict.CANNOT_TELL, reason)
        else:
            yield from self._contents(path, source, destination, version, version)

    def _contents(self, path: str, source: Layout, destination: Layout, written: int, read: int) -> Iterator[Hazard]:
        """Fields and subsections, for the versions in which they are written and read."""
        ours = [field for field in source.fields if field.conditional or field.since <= written]
        theirs = [field for field in destination.fields if field.conditional or field.since <= read]
        names, other_names = [field.name for field in ours], [field.name for field in theirs]
        both = {*names} & {*other_names}
        # What stands between two fields that agree is compared as bytes.
        left: list[FieldLayout] = []
        right: list[FieldLayout] = []
        found: list[Hazard] = []
        for tag, start, end, other_start, other_end in SequenceMatcher(
            None, names, other_names, autojunk=False
        ).get_opcodes():
            if tag != "equal":
                left += ours[start:end]
                right += theirs[other_start:other_end]
                continue
            for field, other in zip(ours[start:end], theirs[other_start:other_end], strict=True):
                if _differ(field, other):
                    left.append(field)
                    right.append(other)
                    continue
                found += _block(path, left, right, both)
                left, right = [], []
                found += self._field(f"{path}.{field.name}", field, other)
        found += _block(path, left, right, both)
        yield from _made_up_for(found)
        yield from self._subsections(path, source, destination)

    def _subsections(self, path: str, source: Layout, destination: Layout) -> Iterator[Hazard]:
        for name, layout in source.subsections.items():
            where = f"{path}, subsection {name}"
            if name in destination.subsections:
                yield from self._section(where, layout, destination.subsections[name])
            elif (source.name, name) in self._sent_by_destination:
                reason = "the destination sends it for another device of this kind, so it knows it"
                yield Hazard(where, "subsection", Verdict.LOADS, reason)
            elif self._machine and (release := is_known(name, self._destination.machine_type)):
                reason = f"the destination did not need to send it; QEMU knows it since {release} at the latest"
                yield Hazard(where, "subsection", Verdict.LOADS, reason)
            elif self._machine:
                reason = "the destination did not send this subsection: it may not know it, and then refuses it"
                yield Hazard(where, "subsection", Verdict.CANNOT_TELL, reason)
            else:
                reason = "the destination does not know it; it depends on the machine's state whether it is sent"
                yield Hazard(where, "subsection", Verdict.CANNOT_TELL, reason)
        for name in destination.subsections:
            if name not in source.subsections:
                reason = "the source does not send this subsection; it may be missing"
                verdict = Verdict.LOADS
                if self._machine and name.startswith(MACHINE_LEVEL):
                    verdict = Verdict.CANNOT_TELL
                    reason = "the source does not send this level, and so has the usual one, which may be too high here"
                yield Hazard(f"{path}, subsection {name}", "subsection", verdict, reason)

    def _field(self, path: str, source: FieldLayout, destination: FieldLayout) -> Iterator[Hazard]:
        """A field of the same name in the same place, in which no size is known to differ."""
        if source.conditional != destination.conditional:
            side, other = ("source", "destination") if source.conditional else ("destination", "source")
            reason = (
                f"only the {side} makes it depend on a condition; it breaks when that fails and the {other} goes on"
            )
            yield Hazard(path, "condition", Verdict.CANNOT_TELL, reason)
        if Extent.OPAQUE in (source.extent, destination.extent):
            return
        if source.length != destination.length:
            yield _lengths(path, source, destination)
        if source.inner and destination.inner:
            inner, other_inner = source.inner, destination.inner
            yield from self._contents(path, inner, other_inner, inner.version, other_inner.version)
        elif (source.size is None) != (destination.size is None):
            reason = "its size is fixed at one end and varies at the other"
            yield Hazard(path, "size", Verdict.CANNOT_TELL, reason)
        elif source.size != destination.size:
            reason = f"{source.size} bytes are written and {destination.size} read; it may be a size in the state"
            yield Hazard(path, "size", Verdict.CANNOT_TELL, reason)


def _made_up_for(found: Sequence[Hazard]) -> Iterator[Hazard]:
    """Hazards of one structure: fields of one side that depend on conditions may stand for those of the other side."""
    presence = [hazard for hazard in found if hazard.topic == "presence"]
    sides = {hazard.reason.startswith(_UNREAD) for hazard in presence}
    unclear = len(sides) > 1 and any(hazard.verdict is Verdict.CANNOT_TELL for hazard in presence)
    for hazard in found:
        if unclear and hazard.topic == "presence" and hazard.verdict is Verdict.BREAKS:
            yield replace(
                hazard,
                verdict=Verdict.CANNOT_TELL,
                reason=f"{hazard.reason}, unless fields beside it that depend on conditions make up for that",
            )
        else:
            yield hazard


def _written(written: int | None, read: int | None, thing: str) -> str:
    things = f"{thing} is" if written == 1 else f"{thing}s are"
    return f"{written} {things} written, {read} {'is' if read == 1 else 'are'} read"


def _lengths(path: str, source: FieldLayout, destination: FieldLayout) -> Hazard:
    """Arrays of other lengths."""
    if source.length is None or destination.length is None:
        verdict = Verdict.LOADS if source.extent is destination.extent is Extent.FIXED else Verdict.CANNOT_TELL
        return Hazard(path, "length", verdict, UNSTATED)
    reason = _written(source.length, destination.length, "element")
    if Extent.COUNTED in (source.extent, destination.extent):
        reason = f"{reason}; the count may be in the state, or the machine's own"
        return Hazard(path, "length", Verdict.CANNOT_TELL, reason)
    return Hazard(path, "length", Verdict.BREAKS, reason)


def _differ(source: FieldLayout, destination: FieldLayout) -> bool:
    """Whether fields of one name are certainly not the same bytes, so that it matters what stands beside them."""
    if Extent.OPAQUE in (source.extent, destination.extent) or source.inner or destination.inner:
        return False
    if (source.length is None) != (destination.length is None):
        return False
    return None not in (source.total, destination.total) and source.total != destination.total


def _block(
    path: str, source: Sequence[FieldLayout], destination: Sequence[FieldLayout], both: set[str]
) -> Iterator[Hazard]:
    """Fields between two that agree."""
    if source and destination and _bytes(source) is not None and _bytes(source) == _bytes(destination):
        yield _same_bytes(path, source, destination)
        return
    unstated = source and destination and any(field.length is None for field in (*source, *destination))
    others = {field.name: field for field in destination}
    differing = {field.name: (field, others[field.name]) for field in source if field.name in others}
    for name, (field, other) in differing.items():
        reason = _written(field.total, other.total, "byte")
        verdict = Verdict.BREAKS
        if Extent.FIXED not in (field.extent, other.extent):
            verdict, reason = Verdict.CANNOT_TELL, f"{reason}; the size may be in the state, or the machine's own"
        yield Hazard(f"{path}.{name}", "size", verdict, reason)
    for fields, lost in ((source, _UNREAD), (destination, _UNWRITTEN)):
        for field in fields:
            if field.total == 0 or field.name in differing:
                continue
            if field.name in both:
                verdict, reason = Verdict.BREAKS, "it stands in another place among the fields"
            elif unstated:
                verdict, reason = Verdict.CANNOT_TELL, f"{lost}; a dump does not state all counts"
            elif field.conditional:
                verdict, reason = Verdict.CANNOT_TELL, f"{lost}; it breaks whenever the field's condition holds"
            elif field.conditional is None:
                verdict, reason = Verdict.CANNOT_TELL, f"{lost}; a stream does not say whether a condition decides that"
            else:
                verdict, reason = Verdict.BREAKS, lost
            yield Hazard(f"{path}.{field.name}", "presence", verdict, reason)


def _same_bytes(path: str, source: Sequence[FieldLayout], destination: Sequence[FieldLayout]) -> Hazard:
    """Other fields of together the same size: read right as bytes, if not as meaning."""
    names = ", ".join(field.name for field in source)
    others = ", ".join(field.name for field in destination)
    where = f"{path}.{names} / {others}" if names < others else f"{path}.{others} / {names}"
    total = _bytes(source)
    if all(field.unused for field in source):
        reason = f"{total} unused bytes became fields; they are read as zeros"
    elif all(field.unused for field in destination):
        reason = f"{total} bytes of fields became unused; they are skipped"
    elif [field.total for field in source] == [field.total for field in destination]:
        reason = "renamed; the bytes are the same"
    else:
        reason = f"the same {total} bytes, cut into other fields"
    return Hazard(where, "bytes", Verdict.LOADS, reason)


def _bytes(fields: Sequence[FieldLayout]) -> int | None:
    """How many bytes the fields take together, if that is certain."""
    totals = [None if field.conditional else field.total for field in fields]
    return None if None in totals else sum(filter(None, totals))
