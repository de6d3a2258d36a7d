"""Descriptions as the JSON at the end of a migration stream carries them (VMDESC).

That JSON says exactly what is in **its** stream: a field whose condition did not hold is missing, an array counted by
a field has the length it had, and a subsection that was not needed is not mentioned. So a structure made from it
decodes payloads of that shape and no other, with one exception: subsections it does mention may be absent.

The forms, read off real streams: ``array_len`` is a run of elements like the first; an array whose elements differ has
one entry for each, all under one name, with ``index`` on all but the last; a null pointer is a ``nullptr``; names that
would occur twice are numbered with ``[n]``; ``tmp`` and ``vstruct`` hold their fields directly, ``struct`` in a
``struct``. A type that is not known here is taken as raw bytes of the size it had.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TypeAlias, TypeVar

from migpool.errors import DescriptionError, ProtocolError
from migpool.vmsd.access import RECORDS
from migpool.vmsd.arrays import Array, Parts
from migpool.vmsd.cells import SCALARS, bytes_cell
from migpool.vmsd.codec import Codec
from migpool.vmsd.steps import Field
from migpool.vmsd.structure import Nested, Structure, Subsection, Temporary
from migpool.wire.stream import EOF
from migpool.wire.vmdesc import find

StreamBytes: TypeAlias = "bytes | mmap.mmap"
"""A whole stream."""

_Value = TypeVar("_Value", int, str)
_LARGEST = 2**32 - 1


def stream_description(data: StreamBytes, where: str) -> tuple[int, Mapping[str, object]]:
    """Find the description at the end of a stream.

    Arguments:
        data: the stream.
        where: how to call it in an error.

    Returns:
        The offset of the EOF byte before it, and the JSON.

    Raises:
        DescriptionError: there is none.
    """
    try:
        at, text = find(data)
    except ProtocolError:
        at, text = 0, b""
    if not at or data[at - 1] != EOF:
        raise DescriptionError(
            f"{where}: the stream has no description at its end (VMDESC); record it without suppress-vmdesc"
        )
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DescriptionError(f"{where}: the description at byte {at} is no JSON: {error}") from None
    if not isinstance(described, dict):
        raise DescriptionError(f"{where}: the description at byte {at} is no JSON object")
    return at - 1, described


def section_structure(entry: Mapping[str, object], version: int) -> Structure:
    """The structure of one entry of the JSON's ``devices``.

    Arguments:
        entry: the entry; one without ``vmsd_name`` was registered in the old style and is raw bytes of known length.
        version: the version in the section's header, for one that has none of its own.

    Raises:
        DescriptionError: the entry is not of this form.
    """
    name = _get(entry, "name", str, "a device")
    try:
        if "vmsd_name" in entry:
            return structure_from_json(entry, f"device {name}")
        members = tuple(_members(_list(entry, "fields", f"device {name}"), f"device {name}"))
        return Structure(_ascii(name, f"device {name}"), version, version, members, (), RECORDS)
    except RecursionError:
        raise DescriptionError(f"device {name}: the description is nested too deeply") from None


def structure_from_json(entry: Mapping[str, object], where: str) -> Structure:
    """The structure of a JSON object with ``vmsd_name``, ``version``, ``fields`` and perhaps ``subsections``.

    Arguments:
        entry: the object.
        where: how to call it in an error.

    Raises:
        DescriptionError: it is not of this form.
    """
    name = _ascii(_get(entry, "vmsd_name", str, where), where)
    version = _get(entry, "version", int, where)
    members = tuple(_members(_list(entry, "fields", where), where))
    taken = {member.name for member in members}
    subsections: list[Subsection] = []
    for item in _list(entry, "subsections", where, optional=True):
        structure = structure_from_json(item, f"{where}, a subsection")
        if structure.name in taken:
            raise DescriptionError(f"{where}: the name {structure.name} occurs twice")
        if not structure.name.startswith(name) or structure.name == name:
            raise DescriptionError(f"{where}: subsection {structure.name} does not begin with its parent's name {name}")
        taken.add(structure.name)
        subsections.append(Subsection(structure))
    return Structure(name, version, version, members, subsections, RECORDS)


def payload_size(entry: Mapping[str, object]) -> int:
    """How many bytes the payload took that an entry of ``devices`` (or a subsection) describes."""
    where = f"device {entry.get('name', entry.get('vmsd_name', ''))!r:.60}"
    size = 0
    for item in _list(entry, "fields", where):
        size += _get(item, "size", int, where) * _get(item, "array_len", int, where, default=1)
    for item in _list(entry, "subsections", where, optional=True):
        size += 6 + len(_get(item, "vmsd_name", str, where)) + payload_size(item)
    return size


def _members(entries: Sequence[Mapping[str, object]], where: str) -> Iterator[Field]:
    seen: set[str] = set()
    for name, same in groupby(entries, lambda entry: _get(entry, "name", str, where)):
        if not name:
            raise DescriptionError(f"{where}: a field has no name")
        if name in seen:
            raise DescriptionError(f"{where}: the name {name} occurs twice")
        seen.add(name)
        codec = _field(list(same), f"{where}, field {name}")
        yield Field(name, codec, "", name)


def _field(entries: Sequence[Mapping[str, object]], where: str) -> Codec:
    """The codec of all entries under one name."""
    first = entries[0]
    if len(entries) == 1 and "index" not in first:
        codec = _codec(first, where)
        return Array(codec, _array_len(first, where)) if "array_len" in first else codec
    pieces: list[tuple[Codec, int, Mapping[str, object]]] = []
    done = 0
    for entry in entries:
        if _get(entry, "index", int, where, default=done) != done:
            raise DescriptionError(f"{where}: expected index {done}, it is {entry['index']}")
        length = _array_len(entry, where)
        place = {key: entry[key] for key in ("array_len", "index") if key in entry}
        pieces.append((_codec(entry, where), length, place))
        done += length
    return Parts(pieces)


def _array_len(entry: Mapping[str, object], where: str) -> int:
    length = _get(entry, "array_len", int, where, default=1)
    if length < 1:
        raise DescriptionError(f"{where}: expected an array_len of 1 or more, it is {length}")
    return length


def _codec(entry: Mapping[str, object], where: str) -> Codec:
    """The codec of one element that an entry describes."""
    kind = _get(entry, "type", str, where)
    size = _get(entry, "size", int, where)
    codec: Codec
    if kind == "struct" and entry.get("struct") != {}:
        inner = entry.get("struct")
        if not isinstance(inner, dict):
            raise DescriptionError(f"{where}: a struct without its description")
        codec = Nested(structure_from_json(inner, where), dict)
    elif kind == "vstruct" and "fields" in entry:
        structure = structure_from_json(entry, where)
        codec = Nested(structure, dict, structure.version)
    elif kind == "tmp" and "fields" in entry:
        codec = Temporary(structure_from_json(entry, where), lambda _: {}, kept=True)
    else:
        codec = SCALARS.get(kind) or bytes_cell(size, kind)
    if codec.size is not None and codec.size != size:
        raise DescriptionError(f"{where}: the size of {kind} is given as {size}, its parts make {codec.size} bytes")
    return codec


def _get(
    entry: Mapping[str, object], key: str, kind: type[_Value], where: str, *, default: _Value | None = None
) -> _Value:
    value = entry.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DescriptionError(f"{where}: expected {key!r} as {kind.__name__}, it is {value!r:.60}")
    if isinstance(value, str) and not value.isprintable():
        raise DescriptionError(f"{where}: expected {key!r} without control characters, it is {value!a:.60}")
    if isinstance(value, int) and not 0 <= value <= _LARGEST:
        raise DescriptionError(f"{where}: expected {key!r} from 0 to {_LARGEST}, it is {value}")
    return value


def _list(
    entry: Mapping[str, object], key: str, where: str, *, optional: bool = False
) -> Sequence[Mapping[str, object]]:
    value = entry.get(key, () if optional else None)
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict) for item in value):
        raise DescriptionError(f"{where}: expected a list of objects as {key!r}, it is {value!r:.60}")
    return value


def _ascii(name: str, where: str) -> str:
    if not name.isascii() or not 0 < len(name) < 256:
        raise DescriptionError(f"{where}: expected a name of 1 to 255 ASCII characters, it is {name!r:.60}")
    return name
