"""The packets of a recorded multifd channel.

Only headers are read, so that a recording of any size is walked quickly and in constant memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from migpool.errors import ProtocolError
from migpool.wire.devicestate import HEADER_SIZE, PACKET_HEADER_SIZE, chunk_fields, parse_device_packet_header
from migpool.wire.multifd import DEVICE_STATE, INITIAL_SIZE, PREFIX_SIZE, header_rest, packet_flags, ram_header_size
from migpool.wire.ramheader import parse_ram_header

_PAYLOAD_LIMIT: Final = 64 << 20

DeviceKey: TypeAlias = tuple[str, int]
"""A device's idstr and instance id."""


@dataclass(frozen=True, slots=True)
class Packet:
    """Where a packet is, and what it carries.

    Attributes:
        offset: where in the channel it begins.
        end: where it ends.
        device: whose state it carries; ``None`` for RAM and SYNC.
        index: the chunk's index; 0 for RAM and SYNC, and for a payload that is no VFIO device's.
        sync: whether it is a SYNC.
        normal: pages of RAM with contents.
        zero: pages of zeros.
    """

    offset: int
    end: int
    device: DeviceKey | None = None
    index: int = 0
    sync: bool = False
    normal: int = 0
    zero: int = 0

    @property
    def payload(self) -> int:
        """Bytes of device state, without headers."""
        return self.end - self.offset - HEADER_SIZE if self.device is not None else 0


def packets(path: Path, page_size: int) -> Iterator[Packet]:
    """Every packet after the initial one.

    Arguments:
        path: what the source sent on the channel.
        page_size: bytes of a page of RAM, as the main channel says.

    Raises:
        ProtocolError: it is no channel, or ends within a packet.
    """
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        offset = INITIAL_SIZE
        most = max(ram_header_size(page_size), HEADER_SIZE)
        while offset < size:
            packet = _packet(os.pread(descriptor, most, offset), offset, page_size)
            if packet.end > size:
                right = f"{packet.end - offset} bytes, found {size - offset} and the end of the channel"
                raise ProtocolError(offset, "multifd packet", right)
            yield packet
            offset = packet.end


def _packet(header: bytes, offset: int, page_size: int) -> Packet:
    _whole(header, PREFIX_SIZE, offset)
    flags = packet_flags(header, offset)
    _whole(header, PREFIX_SIZE + header_rest(flags, page_size), offset)
    if flags & DEVICE_STATE:
        head = parse_device_packet_header(header, offset, _PAYLOAD_LIMIT)
        try:
            index, _ = chunk_fields(header[PACKET_HEADER_SIZE:HEADER_SIZE], min(head.size, len(header)), offset)
        except ProtocolError:
            index = 0
        return Packet(offset, offset + PACKET_HEADER_SIZE + head.size, (head.idstr, head.instance_id), index)
    ram = parse_ram_header(header, page_size, offset, _PAYLOAD_LIMIT)
    end = offset + ram_header_size(page_size) + ram.payload_size
    return Packet(offset, end, sync=ram.sync, normal=len(ram.normal), zero=len(ram.zero))


def _whole(header: bytes, size: int, offset: int) -> None:
    if len(header) < size:
        right = f"a header of {size} bytes, found {len(header)} and the end of the channel"
        raise ProtocolError(offset, "multifd packet", right)
