"""The CONFIGURATION of the main channel: the machine's name, and what both ends must agree on.

Big-endian, as in QEMU 10.0: u8 07, u32 length, name (no NUL), then any of these subsections, each at most once::

    configuration/target-page-bits v1   u32: pages have 2 to the power of this many bytes
    configuration/capabilities v1       u32 count, then count times u8 n, name[n]
    configuration/uuid v1               16 bytes

There is no footer: a subsection's first byte, 05, begins nothing else of the main channel.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from migpool.errors import ProtocolError
from migpool.wire.sections import SUBSECTION, ascii_text, counted, subsection_header
from migpool.wire.unread import Need, Steps, Unread, take

CONFIGURATION: Final = 0x07
PAGE_BITS: Final = "configuration/target-page-bits"
CAPABILITIES: Final = "configuration/capabilities"
UUID: Final = "configuration/uuid"
BEHIND: Final = "item after the configuration"

_HEAD = struct.Struct(">BI")
_U32 = struct.Struct(">I")
DEFAULT_PAGE_SIZE: Final = 4096
_PAGE_SIZES: Final = {"clipper": 8192, "sun4u": 8192, "sun4v": 8192, "niagara": 8192}
"""Of machines whose processors have one size of page, which the configuration does not say: Alpha, SPARC64."""
_NAME_LIMIT: Final = 1024
_AFTER: Final = re.compile(rb"\x05[\x0f-\xff]configuration/|\x08\x00\x01\x00\x00|\x01[\s\S]{4}\x03ram\x00{7}\x04")
_LATER_LIMIT: Final = 4096
_CAPABILITY_LIMIT: Final = 256
_SMALLEST_PAGE_BITS: Final = 8  # of AVR
_LARGEST_PAGE_BITS: Final = 19  # a multifd packet of 512 KiB still holds one page
_LAST_UNASKED: Final = (11, 0)
"""The last version whose machine types take a SWITCHOVER_ACK that no device has called for."""
_LAST_FLUSHING_EACH: Final = (8, 0)
_MACHINE_VERSION: Final = re.compile(r"-(\d+)\.(\d+)(?:\+.*)?\Z")


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the source says of the machine before anything else.

    Arguments:
        machine: its type, as the source resolved it ("pc-q35-10.0"); the destination's must be the same.
        page_bits: the base-two logarithm of the size of a page; None means that the subsection is not there.
        capabilities: names of migration capabilities; None means that the subsection is not there.
        uuid: the machine's uuid, 16 bytes; None means that the subsection is not there.
        offset: where in the channel it began.
        later: subsections that are not known here, with their places; of a later QEMU.
    """

    machine: str
    page_bits: int | None = None
    capabilities: tuple[str, ...] | None = None
    uuid: bytes | None = None
    offset: int = 0
    later: tuple[str, ...] = ()

    @property
    def page_size(self) -> int:
        """Bytes of a page: as the configuration says, else those of the machine; all but a few have 4096."""
        if self.page_bits is None:
            return _PAGE_SIZES.get(self.machine.lower(), DEFAULT_PAGE_SIZE)
        return 1 << self.page_bits

    @property
    def machine_version(self) -> tuple[int, int] | None:
        """The version of QEMU that the machine's type is named after ("pc-q35-10.0": 10, 0).

        None for a type without one ("microvm"), and for one of a distribution with numbers of its own.
        """
        found = _MACHINE_VERSION.search(self.machine)
        return None if found is None else (int(found[1]), int(found[2]))

    @property
    def counts_acknowledgements(self) -> bool | None:
        """Whether a source counts which devices want a SWITCHOVER_ACK, and fails of any other: from type 11.1 on.

        None for a type without a version.
        """
        return None if self.machine_version is None else self.machine_version > _LAST_UNASKED

    @property
    def flushes_each_section(self) -> bool:
        """Whether the end of each section of RAM is a flush of multifd, and none is sent: machine types up to 8.0."""
        return self.machine_version is not None and self.machine_version <= _LAST_FLUSHING_EACH


def possible_page_size(size: int) -> bool:
    """Whether a page can be of this size."""
    return not size & (size - 1) and _SMALLEST_PAGE_BITS < size.bit_length() <= _LARGEST_PAGE_BITS + 1


def configuration(config: Configuration) -> bytes:
    """The bytes of a configuration.

    Raises:
        ValueError: a name is empty, too long or not ASCII, or a uuid is not 16 bytes long.
    """
    name = config.machine.encode("ascii")
    if not 0 < len(name) <= _NAME_LIMIT:
        raise ValueError(f"a machine's name is 1 to {_NAME_LIMIT} bytes, not {len(name)}")
    parts = [_HEAD.pack(CONFIGURATION, len(name)), name]
    if config.page_bits is not None:
        parts += [subsection_header(PAGE_BITS, 1), _U32.pack(config.page_bits)]
    if config.capabilities is not None:
        parts += [subsection_header(CAPABILITIES, 1), _U32.pack(len(config.capabilities))]
        parts += [counted(name, "a capability") for name in config.capabilities]
    if config.uuid is not None:
        if len(config.uuid) != 16:
            raise ValueError(f"a uuid has 16 bytes, not {len(config.uuid)}")
        parts += [subsection_header(UUID, 1), config.uuid]
    return b"".join(parts)


def read_configuration(unread: Unread, *, later: bool = False) -> Steps[Configuration]:
    """Read a configuration; the unread is at its type byte.

    Arguments:
        unread: where from.
        later: pass over a subsection that is not known here. Nothing says how long it is, so it ends where another
            subsection, the command that opens the return path or the START section of RAM begins.

    Raises:
        ProtocolError: a subsection that is unknown, or stands there twice, or has another version; a name that is
            empty, too long or not ASCII; a page size that no machine has.
    """
    offset = unread.offset
    raw = yield from take(unread, _HEAD.size, "configuration")
    kind, length = _HEAD.unpack(raw)
    if kind != CONFIGURATION:
        raise ProtocolError(offset, "configuration", f"type {CONFIGURATION:#04x}, found {kind:#04x}")
    if not 0 < length <= _NAME_LIMIT:
        raise ProtocolError(offset + 1, "machine name", f"1 to {_NAME_LIMIT} bytes, found a length of {length}")
    name = yield from take(unread, length, "machine name")
    config = Configuration(ascii_text(name, offset + _HEAD.size, "machine name"), offset=offset)
    while (yield from _at_subsection(unread)):
        config = yield from _read_subsection(unread, config, later)
    return config


def uuid_within(begin: bytes) -> bytes | None:
    """The uuid in the configuration at the beginning of a main channel; None if it has none, or not all of it is there.

    Arguments:
        begin: the channel's first bytes.
    """
    _, mark, behind = begin.partition(subsection_header(UUID, 1))
    return behind[:16] if mark and len(behind) >= 16 else None


def is_whole(begin: bytes) -> bool:
    """Whether a configuration is there to its end, or something else is; one that cannot be read counts as there.

    Arguments:
        begin: what comes behind the header of a main channel. What is cut just between two parts counts as whole.
    """
    if not begin or begin[0] != CONFIGURATION:
        return bool(begin)
    unread = Unread()
    unread.feed(begin)
    try:
        need = next(read_configuration(unread), None)
    except ProtocolError:
        return True
    return need is None or need.item == BEHIND


def _at_subsection(unread: Unread) -> Steps[bool]:
    if not unread.available:
        yield Need(1, BEHIND)
    return unread.peek(1)[0] == SUBSECTION


def _read_subsection(unread: Unread, config: Configuration, later: bool) -> Steps[Configuration]:
    """Read one subsection and return ``config`` with what it says."""
    offset = unread.offset
    _, length = yield from take(unread, 2, "configuration subsection")
    raw = yield from take(unread, length + _U32.size, "configuration subsection")
    name = ascii_text(raw[:length], offset + 2, "configuration subsection")
    (version,) = _U32.unpack(raw[length:])
    if name not in _SUBSECTIONS and later:
        size = yield from _pass_over(unread, name)
        said = f"{name}, version {version}, {size} bytes at byte {offset}"
        return replace(config, later=(*config.later, said))
    if name not in _SUBSECTIONS:
        raise ProtocolError(offset, "configuration subsection", f"one of {', '.join(_SUBSECTIONS)}; found {name!r}")
    if version != 1:
        raise ProtocolError(offset + 2 + length, f"subsection {name}", f"version 1, found {version}")
    what, read = _SUBSECTIONS[name]
    if getattr(config, what) is not None:
        raise ProtocolError(offset, "configuration subsection", f"each name once, found a second {name}")
    return replace(config, **{what: (yield from read(unread))})


def _pass_over(unread: Unread, name: str) -> Steps[int]:
    """Pass over a subsection's fields; how many bytes they had."""
    while True:
        found = _AFTER.search(unread.peek(unread.available))
        if found is not None:
            unread.skip(found.start())
            return found.start()
        if unread.ended or unread.available > _LATER_LIMIT:
            right = f"one of {', '.join(_SUBSECTIONS)}; found {name!r}, and not where it ends"
            raise ProtocolError(unread.offset, "configuration subsection", right)
        yield Need(unread.available + 1, f"subsection {name}", retry_at_end=True)


def _read_page_bits(unread: Unread) -> Steps[int]:
    offset = unread.offset
    bits = int.from_bytes((yield from take(unread, 4, f"subsection {PAGE_BITS}")), "big")
    if not _SMALLEST_PAGE_BITS <= bits <= _LARGEST_PAGE_BITS:
        right = f"{_SMALLEST_PAGE_BITS} to {_LARGEST_PAGE_BITS} bits"
        raise ProtocolError(offset, f"subsection {PAGE_BITS}", f"{right}, found {bits}")
    return bits


def _read_capabilities(unread: Unread) -> Steps[tuple[str, ...]]:
    item = f"subsection {CAPABILITIES}"
    offset = unread.offset
    count = int.from_bytes((yield from take(unread, 4, item)), "big")
    if count > _CAPABILITY_LIMIT:
        raise ProtocolError(offset, item, f"at most {_CAPABILITY_LIMIT} names, found {count}")
    names: list[str] = []
    for _ in range(count):
        offset = unread.offset
        (length,) = yield from take(unread, 1, item)
        names.append(ascii_text((yield from take(unread, length, item)), offset + 1, item))
    return tuple(names)


def _read_uuid(unread: Unread) -> Steps[bytes]:
    return bytes((yield from take(unread, 16, f"subsection {UUID}")))


_SUBSECTIONS: Final[Mapping[str, tuple[str, Callable[[Unread], Steps[Any]]]]] = {
    PAGE_BITS: ("page_bits", _read_page_bits),
    CAPABILITIES: ("capabilities", _read_capabilities),
    UUID: ("uuid", _read_uuid),
}
"""For each subsection, the attribute that it fills and what reads its value."""
