"""Whether state written by one version of a description can be read by another: before a migration, not in it.

The rules are those of loading. A section's version must be one that the reader's description accepts. The writer's
fields of that version and the reader's must then be the same bytes in the same order: nothing on the wire says where a
field begins. A nested structure has no version on the wire, so each side uses its own. A subsection may always be
missing, but one that comes must be known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import IntEnum

from migpool.vmsd.layout import FieldLayout, Layout, LayoutSet


class Risk(IntEnum):
    """What a change does to a migration in one direction."""

    SAFE = 0
    DEPENDS = 1
    """It breaks in some states or configurations of the machine."""
    BREAKS = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between an old and a new description.

    Arguments:
        path: device, field or subsection, from the outside in.
        forward: what it does to a migration from the old side to the new one.
        backward: what it does to a migration from the new side to the old one.
        reason: why, in one line.
    """

    path: str
    forward: Risk
    backward: Risk
    reason: str


@dataclass(frozen=True, slots=True)
class Compatibility:
    """The worst of many changes, in each direction."""

    forward: Risk
    backward: Risk


@dataclass(frozen=True, slots=True)
class _Hazard:
    path: str
    topic: str
    risk: Risk
    reason: str


def compare(old: LayoutSet, new: LayoutSet) -> list[Change]:
    """All differences that matter to a migration between the two, or that one might think do.

    Arguments:
        old: the descriptions of one side; see :func:`~migpool.vmsd.layout.read_layouts`.
        new: those of the other side, of the same form.

    Returns:
        The changes in the order of the devices; empty if there are none.
    """
    forward = {(hazard.path, hazard.topic): hazard for hazard in _sets(old, new)}
    backward = {(hazard.path, hazard.topic): hazard for hazard in _sets(new, old)}
    changes: list[Change] = []
    for key in [*forward, *(key for key in backward if key not in forward)]:
        ahead, back = forward.get(key), backward.get(key)
        changes.append(
            Change(
                key[0],
                ahead.risk if ahead else Risk.SAFE,
                back.risk if back else Risk.SAFE,
                _reason(ahead, back),
            )
        )
    return changes


def compatibility(changes: Sequence[Change]) -> Compatibility:
    """What all changes together do."""
    return Compatibility(
        max((change.forward for change in changes), default=Risk.SAFE),
        max((change.backward for change in changes), default=Risk.SAFE),
    )


def _reason(ahead: _Hazard | None, back: _Hazard | None) -> str:
    if ahead and back:
        return ahead.reason if ahead.reason == back.reason else f"forward: {ahead.reason}; backward: {back.reason}"
    only = ahead or back
    assert only is not None
    return only.reason


def _sets(source: LayoutSet, destination: LayoutSet) -> Iterator[_Hazard]:
    """What can go wrong when ``destination`` reads what ``source`` writes."""
    machine = source.machine and destination.machine
    for name, layout in source.devices.items():
        other = destination.devices.get(name)
        if other is None:
            risk = Risk.BREAKS if machine else Risk.DEPENDS
            reason = "the destination has no such device" + ("" if machine else ", if a machine has one")
            yield _Hazard(name, "device", risk, reason)
        elif not machine and layout.name != other.name:
            reason = f"the section is called {layout.name} at the source and {other.name} at the destination"
            yield _Hazard(name, "name", Risk.BREAKS, reason)
        else:
            yield from _section(name, layout, other)


def _section(path: str, source: Layout, destination: Layout) -> Iterator[_Hazard]:
    """A section or subsection, whose version is on the wire."""
    version = source.version
    if version > destination.version:
        reason = f"the source writes version {version}, the destination reads up to {destination.version}"
        yield _Hazard(path, "version", Risk.BREAKS, reason)
        return
    oldest = destination.minimum_version
    if oldest is not None and version < oldest:
        reason = f"the source writes version {version}, the destination reads from {oldest} on"
        yield _Hazard(path, "version", Risk.BREAKS, reason)
        return
    if oldest is None and version < destination.version:
        reason = f"the source writes version {version}; a stream does not say whether {destination.version} reads it"
        yield _Hazard(path, "version", Risk.DEPENDS, reason)
        return
    yield from _contents(path, source, destination, version, version)


def _contents(path: str, source: Layout, destination: Layout, written: int, read: int) -> Iterator[_Hazard]:
    """Fields and subsections, for the versions in which they are written and read."""
    ours = [field for field in source.fields if field.conditional or field.since <= written]
    theirs = [field for field in destination.fields if field.conditional or field.since <= read]
    names, other_names = [field.name for field in ours], [field.name for field in theirs]
    matcher = SequenceMatcher(None, names, other_names, autojunk=False)
    for tag, start, end, other_start, other_end in matcher.get_opcodes():
        if tag == "equal":
            for field, other in zip(ours[start:end], theirs[other_start:other_end], strict=True):
                yield from _field(f"{path}.{field.name}", field, other)
        else:
            yield from _block(path, ours[start:end], theirs[other_start:other_end], {*names} & {*other_names})
    yield from _subsections(path, source.subsections, destination.subsections)


def _subsections(path: str, source: Mapping[str, Layout], destination: Mapping[str, Layout]) -> Iterator[_Hazard]:
    for name, layout in source.items():
        if name in destination:
            yield from _section(f"{path}, subsection {name}", layout, destination[name])
        else:
            reason = "the destination does not know this subsection, which is an error whenever it is sent"
            yield _Hazard(f"{path}, subsection {name}", "subsection", Risk.DEPENDS, reason)
    for name in destination:
        if name not in source:
            reason = "the source does not send this subsection; it may be missing"
            yield _Hazard(f"{path}, subsection {name}", "subsection", Risk.SAFE, reason)


def _field(path: str, source: FieldLayout, destination: FieldLayout) -> Iterator[_Hazard]:
    """A field of the same name in the same place."""
    if source.conditional != destination.conditional:
        side, other = ("source", "destination") if source.conditional else ("destination", "source")
        reason = f"only the {side} makes it depend on a condition; it breaks when that fails and the {other} goes on"
        yield _Hazard(path, "condition", Risk.DEPENDS, reason)
    if source.inner and destination.inner:
        if source.length != destination.length:
            reason = _written(source.length, destination.length, "element")
            yield _Hazard(path, "length", Risk.BREAKS, reason)
        inner, other_inner = source.inner, destination.inner
        yield from _contents(path, inner, other_inner, inner.version, other_inner.version)
    elif source.total is None or destination.total is None:
        if (source.total is None) != (destination.total is None):
            reason = "its size is fixed at one end and varies at the other"
            yield _Hazard(path, "size", Risk.DEPENDS, reason)
    elif source.total != destination.total:
        reason = _written(source.total, destination.total, "byte")
        yield _Hazard(path, "size", Risk.BREAKS, reason)


def _written(written: int | None, read: int | None, thing: str) -> str:
    things = f"{thing} is" if written == 1 else f"{thing}s are"
    return f"{written} {things} written, {read} {'is' if read == 1 else 'are'} read"


def _block(
    path: str, source: Sequence[FieldLayout], destination: Sequence[FieldLayout], both: set[str]
) -> Iterator[_Hazard]:
    """Fields between two that agree, whose names do not."""
    if source and destination and _bytes(source) is not None and _bytes(source) == _bytes(destination):
        yield _same_bytes(path, source, destination)
        return
    for fields, lost in ((source, "the destination does not read it"), (destination, "the source does not write it")):
        for field in fields:
            if field.total == 0:
                continue
            if field.name in both:
                risk, reason = Risk.BREAKS, "it stands in another place among the fields"
            elif field.conditional:
                risk, reason = Risk.DEPENDS, f"{lost}; it breaks whenever the field's condition holds"
            else:
                risk, reason = Risk.BREAKS, lost
            yield _Hazard(f"{path}.{field.name}", "presence", risk, reason)


def _same_bytes(path: str, source: Sequence[FieldLayout], destination: Sequence[FieldLayout]) -> _Hazard:
    """Other fields of together the same size: read right as bytes, if not as meaning."""
    names = ", ".join(field.name for field in source)
    others = ", ".join(field.name for field in destination)
    where = f"{path}.{names} / {others}" if names < others else f"{path}.{others} / {names}"
    total = _bytes(source)
    if all(field.unused for field in source):
        return _Hazard(where, "bytes", Risk.SAFE, f"{total} unused bytes became fields; they are read as zeros")
    if all(field.unused for field in destination):
        return _Hazard(where, "bytes", Risk.SAFE, f"{total} bytes of fields became unused; they are skipped")
    if [field.total for field in source] == [field.total for field in destination]:
        return _Hazard(where, "bytes", Risk.SAFE, "renamed; the bytes are the same")
    return _Hazard(where, "bytes", Risk.DEPENDS, f"the same {total} bytes are cut into other fields")


def _bytes(fields: Sequence[FieldLayout]) -> int | None:
    """How many bytes the fields take together, if that is certain."""
    total = 0
    for field in fields:
        if field.conditional or field.total is None:
            return None
        total += field.total
    return total
