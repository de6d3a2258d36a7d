"""One side of a comparison: what is known of a machine by a stream of its own, or of an executable by its dump."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from migpool.errors import DescriptionError, ProtocolError, UsageError
from migpool.streams.compare.machines import machine_hazards
from migpool.streams.compare.payloads import payload_hazards
from migpool.streams.envelope.opening import open_path
from migpool.streams.envelope.source import DamagedData, Source
from migpool.streams.inspect.reading import Inspection
from migpool.streams.inspect.summary import StreamSummary
from migpool.units import format_size
from migpool.vmsd.diff import UNSTATED, Change, Hazard, Verdict, hazards, joined
from migpool.vmsd.layout import Extent, FieldLayout, LayoutSet, from_json
from migpool.wire.vmdesc import parse

_SHOWN: Final = 5
_JSON_LIMIT: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Side:
    """One side.

    Arguments:
        where: how to call it.
        layouts: the descriptions; without any device if a stream has no description.
        stream: all else that the stream says; None of a description alone.
        described: the stream's description as JSON; empty if there is none.
    """

    where: str
    layouts: LayoutSet
    stream: StreamSummary | None = None
    described: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

    Arguments:
        changes: the differences, in the order of the devices.
        unseen: what was not looked at, since the sides do not tell it, a sentence each.
    """

    changes: list[Change]
    unseen: list[str]


def read_side(path: Path) -> Side:
    """Read a stream, in any envelope that can be inspected; or its JSON; or a file that ``-dump-vmstate`` wrote.

    Raises:
        DescriptionError: it is none of these.
        UsageError: it cannot be read.
    """
    file = path
    if path.is_dir():
        from migpool.streams.record.index import main_channel  # whose parser takes long to import

        file = main_channel(path)
    with open_path(file) as opened:
        if opened.first.lstrip()[:1] in (b"{", b"[", b'"'):
            return Side(str(path), from_json(_json(opened.source, path), str(path)))
        known = opened.description()
        summary = Inspection(opened, lambda *_: True).summary()
    if summary.header_version is None:
        found = summary.problem or "nothing that a stream begins with"
        raise DescriptionError(f"{path}: is neither a migration stream nor JSON: {found}")
    layouts, described = LayoutSet({}, machine=True), None
    if summary.described is not None:
        described = json.loads(summary.described)
        layouts = from_json(described, str(path))
    elif known is not None:
        with suppress(DescriptionError, ProtocolError):  # behind what could not be walked
            layouts = from_json(parse(known[1]), str(path))
    machine_type = summary.configuration.machine if summary.configuration else None
    return Side(str(path), replace(layouts, machine_type=machine_type), summary, described)


def _json(source: Source, path: Path) -> object:
    """What JSON has, in any wrapping."""
    try:
        text = source.exactly(_JSON_LIMIT + 1)
    except DamagedData as error:
        raise DescriptionError(f"{path}: cannot be read: {error}") from None
    if len(text) > _JSON_LIMIT:
        raise DescriptionError(f"{path}: is longer than {format_size(_JSON_LIMIT)}, which no description of state is")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DescriptionError(f"{path}: is neither a migration stream nor JSON: {error}") from None


def _only_unstated(change: Change) -> bool:
    return change.reason == UNSTATED and change.forward is change.backward is Verdict.LOADS


def compare_sides(old: Side, new: Side) -> Comparison:
    """Compare two sides of the same form.

    Raises:
        UsageError: one is of a machine, the other all that an executable knows.
    """
    if old.layouts.machine != new.layouts.machine:
        stream, dump = (old, new) if old.layouts.machine else (new, old)
        raise UsageError(
            f"{stream.where} describes the devices of one machine and {dump.where} all that an executable knows: "
            f"compare two streams, or two files that -dump-vmstate wrote"
        )
    changes = joined(_hazards(old, new), _hazards(new, old))
    unstated = [change.path for change in changes if _only_unstated(change)]
    unseen = _unseen(old, new)
    if unstated:
        unseen.append(f"the counts of arrays that only one side states: {_listed(unstated)}")
    return Comparison([change for change in changes if not _only_unstated(change)], unseen)


def _hazards(source: Side, destination: Side) -> Iterator[Hazard]:
    ours, theirs = source.layouts, destination.layouts
    if source.stream is None or destination.stream is None:
        yield from hazards(ours, theirs)
        return
    described = bool(ours.devices) and bool(theirs.devices)
    yield from machine_hazards(source.stream, destination.stream, ours.devices.keys() if described else frozenset())
    if described:
        yield from hazards(ours, theirs)
        yield from payload_hazards(source.stream, source.described, destination.stream, destination.described)
    else:
        reason = "a stream has no description of them (suppress-vmdesc)"
        yield Hazard("fields of all devices", "description", Verdict.CANNOT_TELL, reason)


def _unseen(old: Side, new: Side) -> list[str]:
    """What was not looked at."""
    if not old.layouts.machine:
        found = [
            "which devices a machine has, and in which slots",
            "memory",
            "values of fields, and what devices check of them",
        ]
        types = [side.layouts.machine_type for side in (old, new)]
        if None not in types and types[0] != types[1]:
            found.insert(
                0, f"what differs between machine types: the files were written with {types[0]} and {types[1]}"
            )
        return found
    found = ["values of fields, features that the guest has taken, and what devices check once they are loaded"]
    if old.stream is None or new.stream is None:
        found.insert(0, "machine type, capabilities, page size and memory: a description alone does not have them")
    opaque = sorted({f"{name}.{field.name}" for side in (old, new) for name, field in _opaque(side)})
    if opaque:
        found.append(f"what is inside of opaque fields: {_listed(opaque)}")
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _opaque(side: Side) -> Iterator[tuple[str, FieldLayout]]:
    for name, layout in side.layouts.devices.items():
        for field in layout.fields:
            if field.extent is Extent.OPAQUE:
                yield name, field
