"""Device sections out of a recorded migration stream, found with the help of the description at its end.

The JSON lists the devices in the order of their FULL sections and says how long each payload was, and these sections
stand together right before the end of the stream. So their first bytes can be computed from the end, without a way
through guest RAM and the state of iterable devices; every header and footer on the way is checked::

    ... | FULL, payload, footer | ... | FULL, payload, footer | EOF | VMDESC, length, JSON

Two things are not so in every stream. Old machine types write no footers. And some devices (virtio-mem) are saved
early, between the first sections of RAM: the first in the JSON, and looked for from the beginning of the stream.
"""

from __future__ import annotations

import gzip
import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from struct import Struct

from migpool.errors import DescriptionError
from migpool.vmsd.jsonform import StreamBytes, payload_size, stream_description

__all__ = ["CapturedSection", "machine_names", "open_stream", "read_machine", "read_stream", "sections"]

_HEAD = Struct(">BIB")
_IDS = Struct(">II")
_FOOTER = Struct(">BI")
_FULL, _FOOTER_MARK = 0x04, 0x7E
_SUFFIX = ".mig.gz"
_EARLY = 16 << 20  # bytes within which a section that is saved early must begin


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
    with open_stream(path) as data:
        return sections(data, str(path))


@contextmanager
def open_stream(path: Path) -> Iterator[mmap.mmap]:
    """A file with a recorded stream, mapped.

    Raises:
        DescriptionError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            if not path.is_file() or path.stat().st_size == 0:
                raise DescriptionError(f"{path}: this is no file with a migration stream in it")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except OSError as error:
        raise DescriptionError(f"{path}: the stream cannot be read: {error.strerror or error}") from None


def sections(data: StreamBytes, where: str) -> list[CapturedSection]:
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
    late, at = max(
        (_backwards(data, end, entries, sizes, footer) for footer in (_FOOTER.size, 0)), key=lambda found: len(found[0])
    )
    early = [
        _search(data, entry, size) for entry, size in zip(entries[: len(entries) - len(late)], sizes, strict=False)
    ]
    found = [section for section in early if section is not None]
    if len(found) < len(early):
        entry, size = entries[len(early) - 1], sizes[len(early) - 1]
        raise DescriptionError(
            f"{where}: expected the section of {entry.get('name')!r:.60} with {size} bytes at byte {at}: "
            f"the description does not fit the stream"
        )
    return found + late


def _backwards(
    data: StreamBytes, end: int, entries: Sequence[Mapping[str, object]], sizes: Sequence[int], footer: int
) -> tuple[list[CapturedSection], int]:
    """The sections that stand together before ``end``, in their order, and where the first one is.

    All of them, or as many of the last ones as fit; then the place is that of the first that does not.
    """
    found: list[CapturedSection] = []
    for entry, size in zip(reversed(entries), reversed(sizes), strict=True):
        end -= _HEAD.size + len(str(entry.get("name"))) + _IDS.size + size + footer
        section = _section(data, end, entry, size, footer)
        if section is None:
            break
        found.append(section)
    return found[::-1], end


def _search(data: StreamBytes, entry: Mapping[str, object], size: int) -> CapturedSection | None:
    """The section of a device that was saved early, with or without a footer."""
    idstr = str(entry.get("name")).encode("ascii", "replace")
    name = bytes((len(idstr) & 0xFF,)) + idstr
    for footer in (_FOOTER.size, 0):
        place = data.find(name, 0, _EARLY)
        while place >= 0:
            section = _section(data, place - _HEAD.size + 1, entry, size, footer)
            if section is not None:
                return section
            place = data.find(name, place + 1, _EARLY)
    return None


def _section(data: StreamBytes, at: int, entry: Mapping[str, object], size: int, footer: int) -> CapturedSection | None:
    name = str(entry.get("name"))
    idstr = name.encode("ascii", "replace")
    if at < 0 or at + _HEAD.size + len(idstr) + _IDS.size + size + footer > len(data):
        return None
    kind, section_id, length = _HEAD.unpack_from(data, at)
    at += _HEAD.size
    if kind != _FULL or length != len(idstr) or data[at : at + length] != idstr:
        return None
    instance_id, version = _IDS.unpack_from(data, at + length)
    at += length + _IDS.size
    if entry.get("instance_id") != instance_id or entry.get("version", version) != version:
        return None
    if footer and _FOOTER.unpack_from(data, at + size) != (_FOOTER_MARK, section_id):
        return None
    return CapturedSection(name, instance_id, version, section_id, bytes(data[at : at + size]), entry)
