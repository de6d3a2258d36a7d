"""Decodes the fields of sections by the description that came with the stream."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from migpool.errors import DescriptionError, DeviceError
from migpool.streams.inspect.summary import OVER_MULTIFD, KeptSection, SectionSummary, StreamSummary
from migpool.streams.inspect.vfiostate import shown
from migpool.streams.inspect.walk import Wanted
from migpool.vmsd.codec import Fault, Reader, Shown
from migpool.vmsd.jsonform import section_structure
from migpool.vmsd.structure import Structure
from migpool.wire.vmdesc import MULTIFD_DEVICES


@dataclass(frozen=True, slots=True)
class DecodedSection:
    """The fields of one section.

    Arguments:
        section: whose they are.
        fields: by name, as a decoder prints them; None if they cannot be decoded. Of an iterable device, the pieces in
            which its state crossed, and its config as far as it is known.
        exact: whether the fields, encoded again, are the payload byte for byte.
        fault: why they cannot be decoded.
        payload: the bytes.
    """

    section: SectionSummary
    fields: Mapping[str, Shown] | None
    exact: bool
    fault: str | None
    payload: bytes


def wanted_by(patterns: Sequence[str]) -> Wanted:
    """Which sections patterns ask for.

    Arguments:
        patterns: each an idstr, or idstr#instance; an exact one, or with ``*``, ``?`` and ``[...]``.
    """

    def wanted(idstr: str, instance_id: int) -> bool:
        names = idstr, f"{idstr}#{instance_id}"
        return any(name == pattern or fnmatchcase(name, pattern) for name in names for pattern in patterns)

    return wanted


def decode(summary: StreamSummary, over_multifd: Sequence[KeptSection] = ()) -> list[DecodedSection]:
    """Decode all sections that were kept, in the order of the stream.

    Arguments:
        summary: of the stream, whose description has all layouts.
        over_multifd: configs that crossed beside it.
    """
    described = json.loads(summary.described) if summary.described else {}
    lists = {"FULL": described.get("devices", []), OVER_MULTIFD: described.get(MULTIFD_DEVICES, [])}
    entries: dict[tuple[str, object, object], dict[str, object]] = {}
    for kind, devices in lists.items():
        for entry in devices:
            entries.setdefault((kind, entry["name"], entry["instance_id"]), entry)
    return [_decoded(kept, entries) for kept in (*summary.kept, *over_multifd)]


def _decoded(kept: KeptSection, entries: Mapping[tuple[str, object, object], Mapping[str, object]]) -> DecodedSection:
    section = kept.summary
    if kept.pieces:
        return DecodedSection(section, shown(kept.pieces, kept.payload), True, None, kept.payload)
    entry = entries.get((section.kind, section.idstr, section.instance_id))
    if entry is None:
        return DecodedSection(section, None, False, "the stream has no description of it", kept.payload)
    try:
        return _by_structure(kept, section_structure(entry, section.version))
    except (DescriptionError, DeviceError) as error:
        return DecodedSection(section, None, False, str(error), kept.payload)


def _by_structure(kept: KeptSection, structure: Structure) -> DecodedSection:
    state: dict[str, object] = {}
    written = bytearray()
    try:
        structure.load(Reader(kept.payload, complete=True), state, structure.version)
        structure.write(state, structure.version, written, None)
        fields = structure.show(state, structure.version)
    except Fault as fault:
        raise fault.as_device_error(structure.name) from fault.__cause__
    return DecodedSection(kept.summary, fields, written == kept.payload, None, kept.payload)
