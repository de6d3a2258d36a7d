"""Device sections out of a recorded migration stream, found with the help of the description at its end.

The JSON lists the devices in the order of their FULL sections and says how long each payload was, and these sections
stand together right before the end of the stream. So their first byte can be computed from the end, without a way
through guest RAM and the state of iterable devices; every header and footer on the way is then checked::

    ... | FULL, payload, footer | ... | FULL, payload, footer | EOF | VMDESC, length, JSON
"""

from __future__ import annotations

import gzip
import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from struct import Struct
from typing import TypeAlias, cast

from migpool_plugins.vmsd.errors import DescriptionError
from migpool_plugins.vmsd.jsonform import payload_size

__all__ = ["CapturedSection", "machine_names", "read_machine", "read_stream", "sections", "stream_description"]

_VMDESC = b"\x06"
_EOF = 0x00
_HEAD = Struct(">BIB")
_IDS = Struct(">II")
_FOOTER = Struct(">BI")
_LENGTH = Struct(">I")
_FULL, _FOOTER_MARK = 0x04, 0x7E
_SUFFIX = ".mig.gz"
_CANDIDATES = 5  # JSON holds no 0x06, so only the four bytes of its length can be mistaken for the type before them

_Bytes: TypeAlias = "bytes | mmap.mmap"


@dataclass(frozen=True, slots=True)
class CapturedSection:
    """One FULL section of a stream.

    Arguments:
        name: its idstr.
        instance_id: which device of that name.
        version: the version in its header.
        section_id: its number in the stream.
        payload: its bytes, without header and footer.
        entry: what the JSON says of it.
    """

    name: str
    instance_id: int
    version: int
    section_id: int
    payload: bytes
    entry: Mapping[str, object]


def machine_names() -> list[str]:
    """The machines that come with the plug-in."""
    files = resources.files(__package__).joinpath("machines").iterdir()
    return sorted(file.name.removesuffix(_SUFFIX) for file in files if file.name.endswith(_SUFFIX))


def read_machine(name: str) -> list[CapturedSection]:
    """The device sections of a machine that comes with the plug-in.

    Raises:
        DescriptionError: there is no such machine.
    """
    if name not in machine_names():
        raise DescriptionError(f"there is no machine {name!r}; known: {', '.join(machine_names())}")
    file = resources.files(__package__).joinpath("machines", name + _SUFFIX)
    return sections(gzip.decompress(file.read_bytes()), name)


def read_stream(path: Path) -> list[CapturedSection]:
    """The device sections of a recorded stream (what ``migrate file:`` writes).

    Arguments:
        path: the file; of any size, since only its end is read.

    Raises:
        DescriptionError: it cannot be read, or is no stream with a description at its end.
    """
    try:
        with path.open("rb") as file:
            if not path.is_file() or path.stat().st_size == 0:
                raise DescriptionError(f"{path}: this is no file with a migration stream in it")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return sections(data, str(path))
    except OSError as error:
        raise DescriptionError(f"{path}: the stream cannot be read: {error.strerror or error}") from None


def stream_description(data: _Bytes, where: str) -> tuple[int, Mapping[str, object]]:
    """Find the description at the end of a stream.

    Arguments:
        data: the stream.
        where: how to call it in an error.

    Returns:
        The offset of the EOF byte before it, and the JSON.

    Raises:
        DescriptionError: there is none.
    """
    size = len(data)
    at = size
    for _ in range(_CANDIDATES):
        at = data.rfind(_VMDESC, 0, at)
        if at < 1:
            break
        if at + 5 <= size and _LENGTH.unpack_from(data, at + 1)[0] == size - at - 5 and data[at - 1] == _EOF:
            try:
                described = json.loads(data[at + 5 :])
            except (ValueError, RecursionError) as error:
                raise DescriptionError(f"{where}: the description at byte {at} is no JSON: {error}") from None
            if not isinstance(described, dict):
                raise DescriptionError(f"{where}: the description at byte {at} is no JSON object")
            return at - 1, cast("Mapping[str, object]", described)
    raise DescriptionError(
        f"{where}: the stream has no description at its end (VMDESC); record it without suppress-vmdesc"
    )


def sections(data: _Bytes, where: str) -> list[CapturedSection]:
    """All FULL sections that the description at the end of ``data`` knows, in their order.

    Arguments:
        data: the stream.
        where: how to call it in an error.

    Raises:
        DescriptionError: ``data`` is no such stream, or its description does not fit its sections.
    """
    end, described = stream_description(data, where)
    entries = described.get("devices")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DescriptionError(f"{where}: the description lists no devices")
    sizes = [payload_size(entry) for entry in entries]
    at = end - sum(_overhead(entry) + size for entry, size in zip(entries, sizes, strict=True))
    found: list[CapturedSection] = []
    for entry, size in zip(entries, sizes, strict=True):
        section = _section(data, at, entry, size)
        if section is None:
            raise DescriptionError(
                f"{where}: expected the section of {entry.get('name')!r:.60} with {size} bytes at byte {at}: "
                f"the description does not fit the stream, or the stream has no section footers"
            )
        found.append(section)
        at += _overhead(entry) + size
    return found


def _overhead(entry: Mapping[str, object]) -> int:
    return _HEAD.size + len(str(entry.get("name"))) + _IDS.size + _FOOTER.size


def _section(data: _Bytes, at: int, entry: Mapping[str, object], size: int) -> CapturedSection | None:
    name = str(entry.get("name"))
    idstr = name.encode("ascii", "replace")
    if at < 0:
        return None
    kind, section_id, length = _HEAD.unpack_from(data, at)
    at += _HEAD.size
    if kind != _FULL or length != len(idstr) or data[at : at + length] != idstr:
        return None
    instance_id, version = _IDS.unpack_from(data, at + length)
    at += length + _IDS.size
    known = entry.get("instance_id") == instance_id and entry.get("version", version) == version
    if not known or _FOOTER.unpack_from(data, at + size) != (_FOOTER_MARK, section_id):
        return None
    return CapturedSection(name, instance_id, version, section_id, bytes(data[at : at + size]), entry)
