"""What two descriptions are compared by: names, versions, sizes, conditions. Read from any of the forms they come in.

Two forms are known: the JSON at the end of a stream (exactly what was in that stream, without conditions and minimum
versions), and the JSON that ``-dump-vmstate`` writes (all that an executable knows, whatever a machine has; a count
that another field holds is not stated, and neither is that a field is a single one).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from migpool.errors import DescriptionError
from migpool.vmsd.cells import SCALARS

_DUMP_MACHINE: Final = "vmschkmachine"
_NULL: Final = "(null)"


class Extent(Enum):
    """What decides how many bytes a field takes."""

    FIXED = "the description"
    COUNTED = "the description, or a count in the state or of the machine: the form does not tell"
    OPAQUE = "the code that writes it, and the state of that day"


_NULLS: Final = frozenset({"nullptr", "ptr-marker"})
_COUNTED_KINDS: Final = frozenset({"struct", "vstruct", "tmp", "buffer", "unused_buffer", "bitmap"})


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """One field, or an array of them.

    Arguments:
        name: its name.
        size: how many bytes one element takes on the wire; ``None`` if that varies or is not known.
        length: how many elements there are; ``None`` if that varies or is not known.
        since: the version in which it appeared.
        conditional: whether something besides the version decides if it is there; ``None`` if the form does not tell.
        inner: what it consists of, for a structure.
        extent: what decides how many bytes it takes.
    """

    name: str
    size: int | None
    length: int | None
    since: int
    conditional: bool | None
    inner: Layout | None
    extent: Extent = Extent.FIXED

    @property
    def unused(self) -> bool:
        """Nobody looks at its bytes."""
        return self.name.partition("[")[0] == "unused"

    @property
    def total(self) -> int | None:
        """How many bytes it takes on the wire, if known; one element, where a fixed field does not state how many."""
        if self.inner is not None and self.size is None:
            sizes = [field.total for field in self.inner.fields]
            size = None if None in sizes or self.inner.subsections else sum(filter(None, sizes))
        else:
            size = self.size
        length = 1 if self.length is None and self.extent is Extent.FIXED else self.length
        return None if size is None or length is None or self.extent is Extent.OPAQUE else size * length


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
        machine_type: of which machine type they are, if the form says it.
    """

    devices: Mapping[str, Layout]
    machine: bool
    machine_type: str | None = None

    def subsections(self) -> frozenset[tuple[str, str]]:
        """Every subsection that is in here, with the description that it belongs to."""
        return frozenset(pair for layout in self.devices.values() for pair in _subsections(layout))


def _subsections(layout: Layout) -> Iterator[tuple[str, str]]:
    for field in layout.fields:
        if field.inner is not None:
            yield from _subsections(field.inner)
    for name, part in layout.subsections.items():
        yield layout.name, name
        yield from _subsections(part)


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
        machine_type = document.get(_DUMP_MACHINE, {}).get("Name")
        return LayoutSet(devices, machine=False, machine_type=None if machine_type is None else str(machine_type))
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DescriptionError(f"{where}: is no description of a stream or of -dump-vmstate: {what}") from None


def device_key(idstr: str, instance_id: int) -> str:
    """How a device of a machine is called: by its idstr, and its instance id if that is not 0."""
    return f"{idstr} ({instance_id})" if instance_id else idstr


def _stream_device(entry: Mapping[str, object]) -> tuple[str, Layout]:
    return device_key(str(entry["name"]), _int(entry, "instance_id")), _stream_layout(entry)


def _stream_layout(entry: Mapping[str, object]) -> Layout:
    fields: list[FieldLayout] = []
    last, count = "", 0
    items = _objects(entry, "fields")
    pointers = {str(item["name"]): 0 for item in items if item.get("type") in _NULLS or item.get("struct") == {}}
    for item in items:
        name = str(item["name"])
        if name in pointers:  # which of an array's pointers are null is a value
            if not pointers[name]:
                fields.append(FieldLayout(name, _int(item, "size"), 1, 0, None, None, Extent.OPAQUE))
            pointers[name] += 1
            continue
        # The last element of an array whose elements stand one by one may have no index.
        element = "index" in item or (name == last and count > 0)
        count = count + 1 if element and name == last else int(element)
        last = name
        fields.append(_stream_field(item, f"{name}[{count - 1}]" if element else name))
    subsections: dict[str, Layout] = {}
    for part in _objects(entry, "subsections", True):
        subsections.setdefault(str(part["vmsd_name"]), _stream_layout(part))
    version = _int(entry, "version") if "version" in entry else 0
    return Layout(str(entry.get("vmsd_name", "")), version, None, tuple(fields), subsections)


def _stream_field(item: Mapping[str, object], name: str) -> FieldLayout:
    kind = item.get("type")
    inner = item.get("struct") if kind == "struct" else item if "fields" in item else None
    layout = _stream_layout(inner) if isinstance(inner, dict) else None
    length = _int(item, "array_len") if "array_len" in item else 1
    if "array_len" not in item and (kind in SCALARS or layout is not None):
        extent = Extent.FIXED
    else:
        extent = Extent.COUNTED if kind in SCALARS or kind in _COUNTED_KINDS else Extent.OPAQUE
    return FieldLayout(name, _int(item, "size"), length, 0, None, layout, extent)


def _dumped(entry: Mapping[str, object]) -> Layout:
    inner = entry.get("Description", entry)
    if not isinstance(inner, dict):
        raise TypeError("expected an object as Description")
    fields: list[FieldLayout] = []
    for item in _objects(inner, "Fields", True):
        layout = _dumped(item) if "Description" in item else None
        size = None if layout else _int(item, "size")
        extent = Extent.FIXED if layout or size else Extent.OPAQUE
        length = _int(item, "num") if "num" in item else None
        conditional = item.get("field_exists") is True
        since = _int(item, "version_id")
        fields.append(FieldLayout(str(item["field"]), size, length, since, conditional, layout, extent))
    subsections: dict[str, Layout] = {}
    for part in _objects(inner, "Subsections", True):
        read = _dumped(part)
        subsections.setdefault(read.name, read)  # of two with one name QEMU loads the first
    name = inner.get("name", inner.get("vmsd_name", inner.get("Name", entry.get("Name", _NULL))))
    return Layout(str(name), _int(inner, "version_id"), _int(inner, "minimum_version_id"), tuple(fields), subsections)


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
