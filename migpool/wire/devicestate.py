"""The header before each chunk of device state on a multifd channel: 288 bytes, written and read once a chunk.

Layout (QEMU 10.0; all integers big-endian)::

      0  u32   magic 11223344          276  u32  version of the device state, 0
      4  u32   version 1               280  u32  index of the chunk: 0, 1, 2, ...
      8  u32   flags 40                284  u32  flags; bit 0: this is the config, and the last index
     12  [256] idstr, the last byte 0  288  the chunk
    268  u32   instance id
    272  u32   payload size: 12 + the chunk's length

Both directions are made for the data path. What never changes for a device is written once, so a chunk costs the source
one ``pack_into`` of sixteen bytes. The destination finds the device by the raw bytes from the magic to the instance id:
a chunk costs it one ``unpack_from`` and one dictionary lookup, and no text is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from migpool.errors import ProtocolError
from migpool.wire.multifd import DEVICE_PACKET_HEADER_SIZE, DEVICE_STATE, MAGIC, VERSION, packet_flags, padded_name
from migpool.wire.unread import Buffer

PACKET_HEADER_SIZE: Final = DEVICE_PACKET_HEADER_SIZE
CHUNK_HEADER_SIZE: Final = 12
HEADER_SIZE: Final = PACKET_HEADER_SIZE + CHUNK_HEADER_SIZE
DEVICE_STATE_VERSION: Final = 0
CONFIG: Final = 0x1
MAX_U32: Final = 0xFFFFFFFF

_ITEM: Final = "device state packet"
_PACKET = struct.Struct(">III256sII")
_CHUNK = struct.Struct(">III")
_VARIABLE = struct.Struct(">IIII")
_VARIABLE_AT: Final = 272
_VERSION = struct.Struct(">I")
CONFIG_VERSION_SIZE: Final = _VERSION.size
"""Bytes before the config of a device that is not iterable."""
_WHOLE = struct.Struct(">272sIIII")

D = TypeVar("D")


def _head(idstr: str, instance_id: int, size: int = 0) -> bytes:
    return _PACKET.pack(MAGIC, VERSION, DEVICE_STATE, padded_name(idstr, "an idstr"), instance_id, size)


class DeviceStateHeader:
    """The 288 bytes before each chunk of one device, ready for ``sendmsg([header.buffer, chunk])``.

    It belongs to whoever saves the device: ``pack`` overwrites the same buffer, so the chunk before must be out.

    Arguments:
        idstr: the device's name, 1 to 255 bytes of ASCII.
        instance_id: 0 to 2**32 - 1.

    Attributes:
        buffer: the header, 288 bytes. Its size is a multiple of 32.
        write: what ``pack`` calls, without a call of Python: the payload's size, the version, index and flags.
    """

    __slots__ = ("buffer", "write")

    def __init__(self, idstr: str, instance_id: int = 0) -> None:
        self.buffer = bytearray(_head(idstr, instance_id)) + bytes(CHUNK_HEADER_SIZE)
        self.write: Callable[[int, int, int, int], None] = partial(_VARIABLE.pack_into, self.buffer, _VARIABLE_AT)

    def pack(self, index: int, size: int, config: bool = False) -> None:
        """Write what differs from chunk to chunk.

        Arguments:
            index: the chunk's index, from 0.
            size: the chunk's length in bytes, without any header; at most 2**32 - 13.
            config: whether this is the device's config, and so its last chunk.

        Raises:
            struct.error: ``index`` or ``size`` does not fit.
        """
        self.write(size + CHUNK_HEADER_SIZE, DEVICE_STATE_VERSION, index, CONFIG if config else 0)


class DeviceStateParser(Generic[D]):
    """Reads headers of 288 bytes, for a destination that knows its devices.

    Arguments:
        devices: what to return for each (idstr, instance id).
        limit: how long a chunk may be, in bytes, without headers. Whoever allocates room for chunks must set it to that
            room, since the size comes from the peer.
    """

    __slots__ = ("_by_name", "_devices", "_largest")

    def __init__(self, devices: Mapping[tuple[str, int], D], limit: int) -> None:
        # By all that stands before the size, so that a hit says that magic, version and flags are right, too.
        self._devices = {_head(idstr, number)[:_VARIABLE_AT]: device for (idstr, number), device in devices.items()}
        self._by_name = dict(devices)
        self._largest = min(limit, MAX_U32 - CHUNK_HEADER_SIZE) + CHUNK_HEADER_SIZE

    def parse(self, buffer: Buffer, offset: int = 0) -> tuple[D, int, int, bool]:
        """Read one header.

        Arguments:
            buffer: the packet from its beginning, 288 bytes or more.
            offset: where in the channel the packet begins, for errors.

        Returns:
            the device, the chunk's index, the chunk's length in bytes (what to receive next; may be 0), and whether the
            chunk is the config.

        Raises:
            ProtocolError: the packet is no device state packet, its device is unknown, its size is too small or over
                the limit, its version or flags are unknown.
        """
        before_size, size, state_version, index, state_flags = _WHOLE.unpack_from(buffer)
        if (
            state_version == DEVICE_STATE_VERSION
            and state_flags <= CONFIG
            and CHUNK_HEADER_SIZE <= size <= self._largest
        ):
            try:
                device = self._devices[before_size]
            except KeyError:
                device = self._named(buffer, offset)
            return device, index, size - CHUNK_HEADER_SIZE, state_flags == CONFIG
        raise self._explain(buffer, offset)

    def _named(self, buffer: Buffer, offset: int) -> D:
        """Find a device whose idstr has something behind its NUL: it means nothing, so only the text counts.

        Or what else is wrong before the size.
        """
        header = parse_device_packet_header(buffer, offset, limit=self._largest)
        try:
            return self._by_name[header.idstr, header.instance_id]
        except KeyError:
            known = ", ".join(f"{idstr!r} ({number})" for idstr, number in self._by_name) or "none"
            found = f"{header.idstr!r} ({header.instance_id})"
            right = f"a device of this machine whose state crosses here ({known}), found {found}"
            raise ProtocolError(offset + 12, _ITEM, right) from None

    def _explain(self, buffer: Buffer, offset: int) -> ProtocolError:
        """Find out what is wrong: apart, so that the way of a good header stays short."""
        try:
            header = parse_device_packet_header(buffer, offset, limit=self._largest)
            chunk_fields(memoryview(buffer)[PACKET_HEADER_SIZE:HEADER_SIZE], header.size, offset)
        except ProtocolError as error:
            return error
        raise AssertionError("a header that was refused has nothing wrong")


def described_config(version: int, config: Buffer) -> bytes:
    """What crosses of a device that is not iterable: its version in 32 bits, then its config.

    QEMU has no such packets. Its sections carry the version in their head, and a packet has no place for it.
    """
    return _VERSION.pack(version) + config


def version_of_described(content: Buffer) -> tuple[int, bytes]:
    """The version and the config of what :func:`described_config` made.

    Raises:
        ProtocolError: there is not even a version.
    """
    if len(content) < _VERSION.size:
        raise ProtocolError(0, "device config", f"a version of {_VERSION.size} bytes first, found {len(content)}")
    version: int = _VERSION.unpack_from(content)[0]
    return version, bytes(memoryview(content)[_VERSION.size :])


@dataclass(frozen=True, slots=True)
class DevicePacketHeader:
    """The 276 bytes of a DEVICE_STATE packet, whatever its payload is.

    Arguments:
        idstr: the device's name.
        instance_id: its number.
        size: bytes of payload after the 276.
    """

    idstr: str
    instance_id: int
    size: int


def device_packet_header(header: DevicePacketHeader) -> bytes:
    """The 276 bytes, for a payload of ``header.size`` bytes that is not this file's chunk."""
    return _head(header.idstr, header.instance_id, header.size)


def parse_device_packet_header(buffer: Buffer, offset: int = 0, limit: int = MAX_U32) -> DevicePacketHeader:
    """Read the 276 bytes of a DEVICE_STATE packet.

    Arguments:
        buffer: the packet from its beginning, 276 bytes or more.
        offset: where in the channel the packet begins, for errors.
        limit: how long the payload may be, in bytes.

    Raises:
        ProtocolError: wrong magic, version or flags, an idstr without NUL, not ASCII or empty, a size of 0 or over the
            limit.
    """
    if packet_flags(buffer, offset) != DEVICE_STATE:
        raise ProtocolError(offset + 8, _ITEM, "flags 0x40 (DEVICE_STATE), found a RAM or SYNC packet")
    raw: bytes
    _, _, _, raw, instance_id, size = _PACKET.unpack_from(buffer)
    if raw[255]:
        raise ProtocolError(offset + 12, f"{_ITEM} idstr", "a NUL as the last of 256 bytes, found none")
    name = raw.partition(b"\0")[0]
    if not name or not name.isascii():
        raise ProtocolError(offset + 12, f"{_ITEM} idstr", f"1 to 255 bytes of ASCII, found {name!r}")
    if not 0 < size <= limit:
        raise ProtocolError(offset + 272, f"{_ITEM} payload size", f"1 to {limit} bytes, found {size}")
    return DevicePacketHeader(name.decode("ascii"), instance_id, size)


def chunk_fields(payload: Buffer, size: int, offset: int = 0) -> tuple[int, bool]:
    """Read the 12 bytes with which a VFIO device's payload begins.

    Arguments:
        payload: the payload from its beginning; at least 12 bytes if ``size`` says so.
        size: the payload's size in bytes.
        offset: where in the channel the packet begins, for errors.

    Returns:
        the chunk's index, and whether it is the config.

    Raises:
        ProtocolError: fewer than 12 bytes, an unknown version, an unknown flag.
    """
    if size < CHUNK_HEADER_SIZE:
        raise ProtocolError(offset + 272, f"{_ITEM} payload size", f"at least {CHUNK_HEADER_SIZE} bytes, found {size}")
    version, index, flags = _CHUNK.unpack_from(payload)
    if version != DEVICE_STATE_VERSION:
        raise ProtocolError(offset + 276, "device state header", f"version {DEVICE_STATE_VERSION}, found {version}")
    if flags & ~CONFIG:
        raise ProtocolError(offset + 284, "device state header", f"no flags but {CONFIG:#x}, found {flags:#x}")
    return index, bool(flags & CONFIG)
