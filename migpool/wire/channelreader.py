"""Reads a whole multifd channel from bytes that come in any pieces: for recordings, and for tools.

A destination that receives straight into place uses the parsers of :mod:`migpool.wire.multifd`,
:mod:`migpool.wire.ramheader` and :mod:`migpool.wire.devicestate` itself; the protocol is drawn in the first.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, TypeAlias

from migpool.errors import ProtocolError
from migpool.wire.devicestate import (
    PACKET_HEADER_SIZE,
    DevicePacketHeader,
    parse_device_packet_header,
)
from migpool.wire.multifd import (
    BYTES_PER_RAM_PACKET,
    DEVICE_STATE,
    INITIAL_SIZE,
    PREFIX_SIZE,
    InitialPacket,
    header_rest,
    packet_flags,
    parse_initial_packet,
)
from migpool.wire.ramheader import ALLOCATED_END, RamPacketHeader, page_size_of, parse_ram_header
from migpool.wire.unread import Buffer, Need, PushReader, Steps, Unread, take

DEFAULT_LIMIT: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class RamPacket:
    """A RAM or SYNC packet with its payload.

    Arguments:
        header: what it says.
        payload: a view; empty for a SYNC.
        page_size: bytes of a page on this channel.
        offset: where in the channel the packet began.
    """

    header: RamPacketHeader
    payload: Buffer
    page_size: int = 4096
    offset: int = 0


@dataclass(frozen=True, slots=True)
class DeviceStatePacket:
    """A DEVICE_STATE packet with its payload, whatever device it is for.

    Arguments:
        header: what it says.
        payload: a view; for a VFIO device, ``devicestate.chunk_fields`` reads its first 12 bytes.
        offset: where in the channel the packet began.
    """

    header: DevicePacketHeader
    payload: Buffer
    offset: int = 0


ChannelEvent: TypeAlias = InitialPacket | RamPacket | DeviceStatePacket


class ChannelReader(PushReader[ChannelEvent]):
    """Reads one channel.

    Arguments:
        page_size: bytes of a page of RAM, as the main channel's configuration says. None: told from how many pages the
            first packet with pages can hold. A SYNC before that need not say it; zeros follow it up to the next packet.
        limit: how many bytes the payload of one packet may have. So much is kept at most, once it has arrived.
    """

    __slots__ = ("_limit", "_page_size")

    def __init__(self, page_size: int | None = 4096, limit: int = DEFAULT_LIMIT) -> None:
        unread = Unread()
        super().__init__(unread, self._packets(unread))
        self._page_size = page_size
        self._limit = limit

    def _packets(self, unread: Unread) -> Generator[Need | ChannelEvent, None, None]:
        yield parse_initial_packet((yield from take(unread, INITIAL_SIZE, "multifd initial packet")))
        number = -1
        while True:
            if not unread.available:
                yield Need(1, "multifd packet", clean=True)
            if self._page_size is None and not unread.first()[0]:
                first = bytes(unread.first())
                unread.skip(len(first) - len(first.lstrip(b"\0")))
                continue
            if unread.available < PREFIX_SIZE:
                yield Need(PREFIX_SIZE, "multifd packet")
            flags = packet_flags(unread.peek(PREFIX_SIZE), unread.offset)
            if flags & DEVICE_STATE:
                yield (yield from self._device_state(unread))
                continue
            packet = yield from self._ram(unread, flags)
            found, empty = packet.header.packet_number, not (packet.header.normal or packet.header.zero)
            if found < number or (found == number and not empty):  # one without pages had none of its own before 8.2
                raise ProtocolError(packet.offset + 24, "RAM packet", f"a number above {number}, found {found}")
            number = found
            yield packet

    def _ram(self, unread: Unread, flags: int) -> Steps[RamPacket]:
        offset = unread.offset
        if self._page_size is None:
            if unread.available < ALLOCATED_END:
                yield Need(ALLOCATED_END, "RAM packet")
            self._page_size = page_size_of(unread.peek(ALLOCATED_END))
        page_size = self._page_size or BYTES_PER_RAM_PACKET  # of a SYNC that does not say it, the shortest header
        raw = yield from take(unread, PREFIX_SIZE + header_rest(flags, page_size), "RAM packet")
        header = parse_ram_header(raw, page_size, offset, self._limit)
        payload = yield from take(unread, header.payload_size, "RAM packet payload")
        return RamPacket(header, payload, page_size, offset)

    def _device_state(self, unread: Unread) -> Steps[DeviceStatePacket]:
        offset = unread.offset
        raw = yield from take(unread, PACKET_HEADER_SIZE, "device state packet")
        header = parse_device_packet_header(raw, offset, self._limit)
        return DeviceStatePacket(header, (yield from take(unread, header.size, "device state packet payload")), offset)
