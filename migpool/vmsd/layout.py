"""What two descriptions are compared by: names, versions, sizes, conditions. Read from any of the forms they come in.

Two forms are known: the JSON at the end of a stream (exactly what was in that stream, without conditions and minimum
versions), and the JSON that ``-dump-vmstate`` writes (all that an executable knows, whatever a machine has).
"""

from __future__ import annotations

import gzip
import json
import mmap
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from migpool.errors import DescriptionError
from migpool.vmsd.jsonform import stream_description

_DUMP_MACHINE = "vmschkmachine"


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """One field, or an array of them.

    Arguments:
        name: its name.
        size: how many bytes one element takes on the wire; ``None`` if that varies or is not known.
        length: how many elements there are; ``None`` if that varies or is not known.
        since: the version in which it appeared.
        conditional: something besides the version decides whether it is there.
        inner: what it consists of, for a structure.
    """

    name: str
    size: int | None
    length: int | None
    since: int
    conditional: bool
    inner: Layout | None

    @property
    def unused(self) -> bool:
        """Nobody looks at its bytes."""
        return self.name.partition("[")[0] == "unused"

    @property
    def total(self) -> int | None:
        """How many bytes it takes on the wire, if known."""
        return None if self.size is None or self.length is None else self.size * self.length


@dataclass(frozen=True, slots=True)
class Layout:
    """A structure, section or subsection.

    Arguments:
        name: its name in descriptions.
        version: the version that is written.
        minimum_version: the oldest that is read; ``None`` if not known.
        fields: in the order of the wire.
        subsections: by name.
    """

    name: str
    version: int
    minimum_version: int | None
    fields: Sequence[FieldLayout]
    subsections: Mapping[str, Layout]


@dataclass(frozen=True, slots=True)
class LayoutSet:
    """The descriptions of one side.

    Arguments:
        devices: by idstr (and instance id, other than 0), or by the device's type in a ``-dump-vmstate`` file.
        machine: these are the devices of a machine; otherwise those an executable knows, which no machine need have.
    """

    devices: Mapping[str, Layout]
    machine: bool


def read_layouts(path: Path) -> LayoutSet:
    """Read the descriptions in a file: a recorded stream (also gzipped), its JSON, or a ``-dump-vmstate`` file.

    Raises:
        DescriptionError: it cannot be read, or is none of these.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == b"QEVM":
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
                    return from_json(stream_description(stream, str(path))[1], str(path))
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DescriptionError(f"{path}: cannot be read: {error}") from None
    if data[:4] == b"QEVM":
        return from_json(stream_description(data, str(path))[1], str(path))
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DescriptionError(f"{path}: is neither a migration stream nor JSON: {error}") from None
    return from_json(document, str(path))


def from_json(document: object, where: str) -> LayoutSet:
    """The descriptions in a parsed JSON document: of a stream if it has ``devices``, else of ``-dump-vmstate``.

    Arguments:
        document: the document.
        where: how to call it in an error.

    Raises:
        DescriptionError: it is not of either form.
    """
    try:
        if not isinstance(document, dict):
            raise TypeError("expected an object")
        if "devices" in document:
            return LayoutSet(dict(_stream_device(entry) for entry in document["devices"]), machine=True)
        devices = {name: _dumped(entry) for name, entry in document.items() if name != _DUMP_MACHINE}
        return LayoutSet(devices, machine=False)
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DescriptionError(f"{where}: is no description of a stream or of -dump-vmstate: {what}") from None


def _stream_device(entry: Mapping[str, object]) -> tuple[str, Layout]:
    instance = _int(entry, "instance_id")
    name = str(entry["name"])
    return f"{name} ({instance})" if instance else name, _stream_layout(entry)


def _stream_layout(entry: Mapping[str, object]) -> Layout:
    fields: list[FieldLayout] = []
    for item in _objects(entry, "fields"):
        inner = item.get("struct")
        layout = _stream_layout(inner) if isinstance(inner, dict) else None
        length = _int(item, "array_len") if "array_len" in item else 1
        name = f"{item['name']}[{item['index']}]" if "index" in item else str(item["name"])
        fields.append(FieldLayout(name, _int(item, "size"), length, 0, False, layout))
    subsections = {str(part["vmsd_name"]): _stream_layout(part) for part in _objects(entry, "subsections", True)}
    version = _int(entry, "version") if "version" in entry else 0
    return Layout(str(entry.get("vmsd_name", "")), version, None, tuple(fields), subsections)


def _dumped(entry: Mapping[str, object]) -> Layout:
    inner = entry.get("Description", entry)
    if not isinstance(inner, dict):
        raise TypeError("expected an object as Description")
    fields: list[FieldLayout] = []
    for item in _objects(inner, "Fields", True):
        layout = _dumped(item) if "Description" in item else None
        size = None if layout else _int(item, "size")
        length = _int(item, "num") if "num" in item else 1
        conditional = item.get("field_exists") is True
        since = _int(item, "version_id")
        fields.append(FieldLayout(str(item["field"]), size, length, since, conditional, layout))
    parts = [_dumped(part) for part in _objects(inner, "Subsections", True)]
    name = inner.get("vmsd_name", inner.get("Name", entry.get("Name")))
    return Layout(
        str(name),
        _int(inner, "version_id"),
        _int(inner, "minimum_version_id"),
        tuple(fields),
        {part.name: part for part in parts},
    )


def _objects(entry: Mapping[str, object], key: str, optional: bool = False) -> Sequence[Mapping[str, object]]:
    value = entry.get(key, ()) if optional else entry[key]
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict) for item in value):
        raise TypeError(f"expected a list of objects as {key}")
    return value


def _int(entry: Mapping[str, object], key: str) -> int:
    value = entry[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected a number as {key}")
    return value
