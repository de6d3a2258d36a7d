"""The packets of a multifd channel: the initial packet, and what every later packet begins with.

A channel carries bytes one way, from source to destination::

    source                                             destination
      | initial packet, 64 bytes: version, uuid, id      |   once, first
      |------------------------------------------------->|   the uuid must be the machine's own
      |                                                  |
      | RAM packet: header 320 + 8 x pages, payload      |   any number of these,
      |------------------------------------------------->|   in any mixture
      | DEVICE_STATE packet: header 276, payload         |
      |------------------------------------------------->|
      | SYNC: the header of a RAM packet, no pages       |   one for each MULTIFD_FLUSH on the main channel
      |------------------------------------------------->|
      | close                                            |   only between packets

How many bytes to read next, for a reader that receives straight into place::

    1. read PREFIX_SIZE (12) bytes       packet_flags()  checks magic, version and flags
    2. read header_rest() more           ramheader.parse_ram_header(), or devicestate's parsers
    3. read the payload, as long as the header says

A destination that expects this project's or VFIO's device state may take steps 1 and 2 in one read of
``devicestate.HEADER_SIZE`` (288) bytes: no packet of such a channel is shorter.

Version rules: magic 0x11223344 and version 1 in every packet; anything else is an error. The version of the device
state inside a DEVICE_STATE packet is 0. A flag that is not in the table is an error, as it may announce bytes that are
unknown. All integers are big-endian. The layout is that of QEMU 10.0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.unread import Buffer

MAGIC: Final = 0x11223344
VERSION: Final = 1

SYNC: Final = 0x01
COMPRESSION_MASK: Final = 0x3E
DEVICE_STATE: Final = 0x40

PREFIX_SIZE: Final = 12
INITIAL_SIZE: Final = 64
DEVICE_PACKET_HEADER_SIZE: Final = 276
RAM_HEADER_FIXED: Final = 320
BYTES_PER_RAM_PACKET: Final = 524288

_PREFIX = struct.Struct(">III")
_INITIAL = struct.Struct(">II16sB39x")
_ZEROS = bytes(39)


class Compression(IntEnum):
    """How the pages of a RAM packet are packed, as its flags say."""

    NONE = 0x00
    ZLIB = 0x02
    ZSTD = 0x04
    QPL = 0x08
    UADK = 0x10
    QATZIP = 0x20


_COMPRESSION_VALUES: Final = frozenset(int(value) for value in Compression)


@dataclass(frozen=True, slots=True)
class InitialPacket:
    """The first packet of a channel.

    Arguments:
        uuid: the machine's uuid, 16 bytes; zeros if it has none. Both sides must agree.
        channel: the source's number of this channel, 0 to 255. The order of acceptance is not the order of numbers.
        offset: where in the channel it began.
    """

    uuid: bytes
    channel: int
    offset: int = 0


def initial_packet(channel: int, uuid: bytes = bytes(16)) -> bytes:
    """The 64 bytes that open a channel.

    Arguments:
        channel: number of the channel, 0 to 255.
        uuid: 16 bytes, zeros for a machine without one.
    """
    if len(uuid) != 16 or not 0 <= channel <= 255:
        raise ValueError(
            f"a channel has a number of 0 to 255 and a uuid of 16 bytes, not {channel} and {len(uuid)} bytes"
        )
    return _INITIAL.pack(MAGIC, VERSION, uuid, channel)


def parse_initial_packet(buffer: Buffer, offset: int = 0) -> InitialPacket:
    """Read the initial packet from the start of ``buffer`` (64 bytes or more).

    Raises:
        ProtocolError: wrong magic or version, or the rest is not zeros.
    """
    magic, version, uuid, channel = _INITIAL.unpack_from(buffer)
    _check_magic(magic, version, offset, "multifd initial packet")
    padding = bytes(memoryview(buffer)[INITIAL_SIZE - len(_ZEROS) : INITIAL_SIZE])
    if padding != _ZEROS:
        raise ProtocolError(offset + 25, "multifd initial packet", f"39 zero bytes, found {padding.hex()}")
    return InitialPacket(uuid, channel, offset)


def padded_name(name: str, item: str) -> bytes:
    """A name as packets have it: ASCII, padded with NUL to 256 bytes.

    Arguments:
        name: 1 to 255 bytes.
        item: what it is the name of, for the error.
    """
    raw = name.encode("ascii")
    if not raw or len(raw) > 255 or 0 in raw:
        raise ValueError(f"{item} is 1 to 255 bytes of ASCII without NUL, not {name!r}")
    return raw.ljust(256, b"\0")


def packet_flags(prefix: Buffer, offset: int = 0) -> int:
    """Check the first 12 bytes of a packet and return its flags.

    Arguments:
        prefix: the packet from its beginning, 12 bytes or more.
        offset: where in the channel the packet begins, for errors.

    Raises:
        ProtocolError: wrong magic or version, an unknown flag, flags that exclude each other.
    """
    magic, version, flags = _PREFIX.unpack_from(prefix)
    if magic != MAGIC or version != VERSION:
        _check_magic(magic, version, offset, "multifd packet")
    if flags in (0, SYNC, DEVICE_STATE):
        return int(flags)
    if flags & ~(SYNC | COMPRESSION_MASK | DEVICE_STATE):
        known = SYNC | COMPRESSION_MASK | DEVICE_STATE
        raise ProtocolError(offset + 8, "multifd packet flags", f"none but {known:#x}, found {flags:#x}")
    if flags & DEVICE_STATE:
        raise ProtocolError(offset + 8, "multifd packet flags", f"DEVICE_STATE (0x40) stands alone, found {flags:#x}")
    if flags & COMPRESSION_MASK not in _COMPRESSION_VALUES:
        raise ProtocolError(offset + 8, "multifd packet flags", f"one way of compression at most, found {flags:#x}")
    return int(flags)


def ram_header_size(page_size: int) -> int:
    """Bytes of a RAM packet's header: 1344 for pages of 4096 bytes."""
    return RAM_HEADER_FIXED + 8 * (BYTES_PER_RAM_PACKET // page_size)


def header_rest(flags: int, page_size: int = 4096) -> int:
    """How many bytes of header follow the first 12, for a packet with these (checked) flags."""
    if flags & DEVICE_STATE:
        return DEVICE_PACKET_HEADER_SIZE - PREFIX_SIZE
    return ram_header_size(page_size) - PREFIX_SIZE


def _check_magic(magic: int, version: int, offset: int, item: str) -> None:
    if magic != MAGIC:
        raise ProtocolError(offset, item, f"magic {MAGIC:#010x}, found {magic:#010x}")
    if version != VERSION:
        raise ProtocolError(offset + 4, item, f"version {VERSION}, found {version}")
