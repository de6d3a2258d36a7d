"""A multifd channel of a migration that is being stored: its packets become PART sections of RAM in the file."""

from __future__ import annotations

import socket
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.file.file import StreamFile
from migpool.streams.file.mainchannel import MainChannel
from migpool.wire.channelreader import ChannelReader, DeviceStatePacket, RamPacket
from migpool.wire.multifd import BYTES_PER_RAM_PACKET, Compression, initial_packet

__all__ = ["MultifdChannel"]

_DEVICE_STATE_LIMIT: Final = 2 * BYTES_PER_RAM_PACKET


class MultifdChannel:
    """What has come on a multifd channel so far.

    Arguments:
        number: the source's number of it.
        sock: its connection; the initial packet has been read.
        file: where to write.
        main: the main channel, which knows RAM's blocks. They must be known when the first bytes are fed.

    Attributes:
        at_sync: stopped at a SYNC.
        closed: the source has closed the connection.
        pages: how many pages came on this channel.
    """

    def __init__(self, number: int, sock: socket.socket, file: StreamFile, main: MainChannel) -> None:
        self.number = number
        self.socket = sock
        self._file = file
        self._main = main
        self._reader: ChannelReader | None = None
        self.at_sync = False
        self.closed = False
        self.pages = 0

    def feed(self, data: bytes) -> None:
        """Take bytes, and write the pages among them; not while it is stopped at a SYNC.

        Raises:
            ProtocolError: they are no packets, or hold what cannot be stored.
        """
        if self._reader is None:
            self._reader = ChannelReader(self._main.page_size, _DEVICE_STATE_LIMIT)
            self._reader.feed(initial_packet(self.number))
        self._reader.feed(data)
        self.go_on()

    def go_on(self) -> None:
        """Take what has come already, up to the next SYNC."""
        self.at_sync = False
        while not self.at_sync and self._reader is not None and (packet := self._reader.next_event()) is not None:
            if isinstance(packet, DeviceStatePacket):
                who = f"{packet.header.idstr!r} ({packet.header.instance_id})"
                right = f"RAM, found state of {who}: switch x-multifd-transfer off for the device to store it"
                raise ProtocolError(packet.offset, f"packet on multifd channel {self.number}", right)
            if isinstance(packet, RamPacket):
                self.at_sync = packet.header.sync
                self._write(packet)

    def end(self) -> None:
        """Note that the source has closed the connection. Whether it may, the next flush shows.

        Raises:
            ProtocolError: it closed it inside a packet.
        """
        self.closed = True
        if self._reader is not None:
            self._reader.end()

    def _write(self, packet: RamPacket) -> None:
        header = packet.header
        if not header.normal and not header.zero:
            return
        item = f"packet on multifd channel {self.number}"
        if self._main.ram_is_over:
            raise ProtocolError(packet.offset, item, "no page after the last flush, found one")
        if header.compression is not Compression.NONE:
            right = (
                f"pages without compression, found {header.compression.name.lower()}: set multifd-compression to none"
            )
            raise ProtocolError(packet.offset + 8, item, right)
        assert self._main.ram is not None
        self._file.packet(self._main.ram, header, packet.payload, packet.page_size)
        self.pages += len(header.normal) + len(header.zero)
