"""The description of all payloads as JSON, with which a stream ends: found, parsed, written.

The shape is that of QEMU 10.0::

    {"configuration": {LAYOUT}, "page_size": 4096, "devices": [DEVICE, ...]}
    LAYOUT   "vmsd_name", "version", "fields": [FIELD, ...], and "subsections": [LAYOUT, ...] if there are any
    DEVICE   "name", "instance_id", LAYOUT
             or, registered in the old style: "name", "instance_id", "size", "fields": [one buffer named "data"]
    FIELD    "name", ["array_len" | "index"], "type", ["struct": LAYOUT], "size"
             or, for a temporary structure in the place of one: "name", "type", LAYOUT, "size"

One key is migpool's own: ``multifd_devices``, a list like ``devices``, of the configs that crossed over the multifd
channels. It is missing where none did.

``size`` counts bytes in the stream: of one element with ``array_len`` (a run of equal elements), else of the field.
QEMU 7.2 and its time leave the LAYOUT of an array empty whose first element is a null pointer, and call all of it one
run of elements of that one's size.
RAM and other devices with sections of their own making are not in it. Unknown keys are passed over.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from migpool.errors import ProtocolError
from migpool.wire.stream import TEXT_LIMIT, VMDESC, VMDESC_HEAD
from migpool.wire.unread import Buffer

DESCRIPTION_FOLLOWS: Final = re.compile(rb"\x00\x06([\s\S]{4})\{")
"""EOF, and the beginning of a description with its length."""
DESCRIPTION_HEAD: Final = 1 + VMDESC_HEAD.size
"""Bytes of that, without the brace."""
MULTIFD_DEVICES: Final = "multifd_devices"
_ITEM: Final = "VM description"
_PIECE: Final = 1 << 20
T = TypeVar("T")
Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class Field:
    """One field, or a run of equal ones.

    Arguments:
        name: its name in the structure.
        type: the name of its encoding ("uint32", "struct", "buffer", ...).
        size: bytes in the stream.
        array_len: how many elements of ``size`` bytes stand in a row; None for a single one.
        index: which element of an array this is; None if the elements are not listed one by one.
        struct: the layout of a nested structure.
        inline: whether ``struct`` stands for a temporary, written without a "struct" key of its own.
    """

    name: str
    type: str
    size: int
    array_len: int | None = None
    index: int | None = None
    struct: Layout | None = None
    inline: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A structure: what its name and version are, and what it consists of, in the order of the stream."""

    vmsd_name: str
    version: int
    fields: tuple[Field, ...]
    subsections: tuple[Layout, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceDescription:
    """The payload of one FULL section.

    Arguments:
        name: the section's idstr.
        instance_id: the section's instance id.
        layout: what the payload consists of; None if it was registered in the old style.
        size: the payload's size in bytes if it was registered in the old style, else None.
    """

    name: str
    instance_id: int
    layout: Layout | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """All that a stream's VM description says.

    Arguments:
        devices: in the order of their sections.
        page_size: bytes of a page of RAM.
        configuration: the layout of the CONFIGURATION item.
        over_multifd: of the configs that are no sections but crossed over the multifd channels.
    """

    devices: tuple[DeviceDescription, ...]
    page_size: int = 4096
    configuration: Layout | None = None
    over_multifd: tuple[DeviceDescription, ...] = ()


def find(stream: bytes | mmap.mmap, limit: int = 64 << 20) -> tuple[int, bytes]:
    """Find the description at the end of a whole stream, without walking the stream.

    Arguments:
        stream: the whole stream, perhaps with zeros behind it (of a block device, or a cluster); of a mapped file no
            more is read than its end. It may be a part of the stream, up to its end.
        limit: how long the description may be, in bytes.

    Returns:
        where the item begins, and its text (empty if the source sent an empty one).

    Raises:
        ProtocolError: the stream does not end with a description.
    """
    size = _end_of_text(stream)
    lowest = max(0, size - limit - VMDESC_HEAD.size)
    # JSON has no byte 06, so the item's type byte is the last 06 of all, or one of its length bytes is.
    last = stream.rfind(bytes((VMDESC,)), lowest)
    for at in range(last, max(lowest, last - VMDESC_HEAD.size + 1) - 1, -1):
        text = at + VMDESC_HEAD.size
        if text > len(stream):
            continue
        kind, length = VMDESC_HEAD.unpack_from(stream, at)
        if kind == VMDESC and length <= TEXT_LIMIT and (text + length == size or (not length and size <= text)):
            return at, stream[text : text + length]
    raise ProtocolError(size, _ITEM, "06, u32 length, JSON to the end of the stream; found none")


def _end_of_text(stream: bytes | mmap.mmap) -> int:
    """Where the zeros begin with which a stream may be padded."""
    end = len(stream)
    while end and not stream[end - 1]:
        begin = max(0, end - _PIECE)
        end = begin + len(stream[begin:end].rstrip(b"\0"))
    return end


def parse(text: Buffer, offset: int = 0) -> Description:
    """Parse a description.

    Arguments:
        text: the JSON.
        offset: where in the channel it begins, for errors.

    Raises:
        ProtocolError: it is not JSON, or not of the shape above.
    """
    if len(text) > TEXT_LIMIT:
        raise ProtocolError(offset, _ITEM, f"at most {TEXT_LIMIT} bytes, found {len(text)}")
    try:
        return _description(json.loads(bytes(text)), offset)
    except RecursionError:
        raise ProtocolError(offset, _ITEM, "JSON with some levels of nesting, found hundreds") from None
    except json.JSONDecodeError as error:
        raise ProtocolError(offset + error.pos, _ITEM, f"JSON: {error.msg}") from None
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        raise ProtocolError(offset, _ITEM, f"JSON: {str(error).splitlines()[0]}") from None


class _Reader:
    """Takes keys out of one JSON object; says which object when one is not right."""

    __slots__ = ("_offset", "_values", "where")

    def __init__(self, value: Json, where: str, offset: int) -> None:
        if not isinstance(value, dict):
            raise ProtocolError(offset, _ITEM, f"an object for {where}, found {type(value).__name__}")
        self._values = value
        self._offset = offset
        self.where = where

    def has(self, key: str) -> bool:
        return key in self._values

    def filled(self, key: str) -> bool:
        """Whether there is such a key, with more than an empty object."""
        return self._values.get(key, {}) != {}

    def text(self, key: str) -> str:
        value = self._values.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def number(self, key: str) -> int:
        value = self._values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
            raise self._wrong(key, "a number")
        return value

    def object(self, key: str) -> _Reader:
        return _Reader(self._values.get(key), f"{key!r} of {self.where}", self._offset)

    def each(self, key: str, make: Callable[[_Reader], T], *, required: bool = True) -> tuple[T, ...]:
        values = self._values.get(key, None if required else [])
        if not isinstance(values, list):
            raise self._wrong(key, "a list")
        return tuple(
            make(_Reader(value, f"{key}[{n}] of {self.where}", self._offset)) for n, value in enumerate(values)
        )

    def _wrong(self, key: str, right: str) -> ProtocolError:
        found = repr(self._values[key])[:40] if key in self._values else "nothing"
        return ProtocolError(self._offset, _ITEM, f"{right} as {key!r} of {self.where}, found {found}")


def _description(value: Json, offset: int) -> Description:
    reader = _Reader(value, "the description", offset)
    return Description(
        devices=reader.each("devices", _device),
        page_size=reader.number("page_size"),
        configuration=_layout(reader.object("configuration")) if reader.has("configuration") else None,
        over_multifd=reader.each(MULTIFD_DEVICES, _device, required=False),
    )


def _device(reader: _Reader) -> DeviceDescription:
    name, instance_id = reader.text("name"), reader.number("instance_id")
    if reader.has("vmsd_name"):
        return DeviceDescription(name, instance_id, _layout(reader))
    return DeviceDescription(name, instance_id, size=reader.number("size"))


def _layout(reader: _Reader) -> Layout:
    return Layout(
        vmsd_name=reader.text("vmsd_name"),
        version=reader.number("version"),
        fields=reader.each("fields", _field),
        subsections=reader.each("subsections", _layout, required=False),
    )


def _field(reader: _Reader) -> Field:
    inline = reader.has("vmsd_name")
    struct = _layout(reader) if inline else _layout(reader.object("struct")) if reader.filled("struct") else None
    return Field(
        name=reader.text("name"),
        type=reader.text("type"),
        size=reader.number("size"),
        array_len=reader.number("array_len") if reader.has("array_len") else None,
        index=reader.number("index") if reader.has("index") else None,
        struct=struct,
        inline=inline,
    )


def payload_size(device: DeviceDescription) -> int:
    """How many bytes the payload has that a description describes, by the sizes that it states."""
    return device.size or 0 if device.layout is None else _layout_size(device.layout)


def _layout_size(layout: Layout) -> int:
    fields = sum(field.size * (1 if field.array_len is None else field.array_len) for field in layout.fields)
    # A subsection's head: 05, the length of its name, the name, its version.
    return fields + sum(6 + len(part.vmsd_name) + _layout_size(part) for part in layout.subsections)
