"""Be the source of a migration whose machine is a stream file.

Without multifd the file goes out as it is; with multifd its pages go out in packets::

    main channel                                            each multifd channel
      header, configuration, [OPEN_RETURN_PATH, PING 1]       initial packet with the machine's uuid
      START ram: the list of blocks, MULTIFD_FLUSH, EOS       SYNC
                                                              packets of up to 512 KiB
      [PART of VFIO devices, SWITCHOVER_START]
      END ram: MULTIFD_FLUSH, EOS                             SYNC
      the devices' states, EOF, VMDESC

The destination loads no page before it has the list of blocks, and no device before it has all pages. For machine types
up to 8.0 it takes the end of each section of RAM for a flush, so none is sent.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid as uuids
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from migpool.errors import MigpoolError, ProtocolError, UsageError
from migpool.streams.envelope.opening import open_path
from migpool.streams.file.front import EndFinder, Front
from migpool.streams.file.peer import Peer
from migpool.streams.inspect.boundaries import Boundaries
from migpool.transport.address import Address
from migpool.transport.credentials import Credentials
from migpool.wire.commands import Command, CommandKind, open_return_path, ping
from migpool.wire.configuration import Configuration
from migpool.wire.multifd import BYTES_PER_RAM_PACKET
from migpool.wire.ram import (
    MultifdFlush,
    RamBlocks,
    RamPages,
    RamSection,
    RamSectionEnd,
    block_list,
    multifd_flush,
    ram_section_end,
)
from migpool.wire.ramheader import RamPacketHeader, ram_header, sync_header
from migpool.wire.sections import Kind, SectionHead, head_bytes
from migpool.wire.stream import FILE_MAGIC, FileHeader, StreamEvent, emit
from migpool.wire.unread import Buffer

_PIECE: Final = 1 << 20
_OF_CONNECTIONS: Final = (CommandKind.OPEN_RETURN_PATH, CommandKind.PING)


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that has been sent.

    Arguments:
        machine: its type.
        pages: how many pages were sent, those of zeros included; a page counts each time that the file holds it.
        confirmed: whether the destination has said that the machine runs there.
    """

    machine: str
    pages: int
    confirmed: bool


def begins_as_a_stream(path: Path) -> bool:
    """Whether there is a file that begins as a stream does."""
    try:
        with path.open("rb") as file:
            return file.read(len(FILE_MAGIC)) == FILE_MAGIC
    except OSError:
        return False


def parse_uuid(text: str) -> uuids.UUID:
    """Read a uuid.

    Raises:
        UsageError: the text is none.
    """
    try:
        return uuids.UUID(text)
    except ValueError:
        raise UsageError(f"{text!r} is no uuid: write 32 hexadecimal digits, with or without hyphens") from None


def send_file(
    path: Path,
    address: Address,
    channels: int,
    *,
    uuid: uuids.UUID | None,
    return_path: bool,
    limit: float,
    cancelled: Callable[[], bool],
    credentials: Credentials | None = None,
    anybody: bool = False,
) -> Sent:
    """Send a stream file to a destination.

    Arguments:
        path: the file.
        address: where the destination listens.
        channels: how many multifd channels the destination has; 0 without multifd.
        uuid: the machine's uuid, if the file does not say it.
        return_path: ask the destination to say that the machine runs. Without, nobody knows whether it has loaded.
        limit: how long the destination may take nothing, and how long it may take to load the devices, in seconds.
        cancelled: called several times a second; True ends the migration.
        credentials: this end's, if the connections are to be encrypted.
        anybody: take whatever process listens on a UNIX socket.

    Raises:
        UsageError: the file or the address is not there.
        ProtocolError: the file is damaged, or holds what cannot be sent.
        PeerError: the destination is not there, or has failed.
        TimeLimitExceeded: the destination takes or says nothing more.
        Cancelled: ``cancelled`` said so.
    """
    with contextlib.ExitStack() as stack:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
        stack.callback(os.close, fd)
        sender = _Sender(fd, path, channels, return_path)
        configuration = sender.configuration
        number = uuid.bytes if uuid is not None else configuration.uuid or bytes(16)
        peer = Peer(
            address,
            channels,
            number,
            limit=limit,
            cancelled=cancelled,
            stack=stack,
            credentials=credentials,
            anybody=anybody,
        )
        sender.send(peer)
        return Sent(configuration.machine, sender.pages, return_path)


class _Sender:
    """One file on its way; its first bytes are read before anybody is connected to."""

    def __init__(self, fd: int, path: Path, channels: int, return_path: bool) -> None:
        self._fd = fd
        self._path = path
        self._channels = channels
        self._return_path = return_path
        self._front = Front()
        self._read = 0
        self._ram: SectionHead | None = None
        self._ram_ended = False
        self.pages = 0
        self._next_event()  # the file header
        configuration = self._next_event()
        assert isinstance(configuration, Configuration)  # what a reader finds there, or it raises
        self.configuration = configuration
        self._flush = b"" if configuration.flushes_each_section else multifd_flush()

    def send(self, peer: Peer) -> None:
        """Send the whole file, and wait for the destination's word."""
        peer.send_main([*emit(FileHeader()), *emit(self.configuration)])
        if self._return_path:
            peer.send_main([open_return_path(), ping(1)])
        packets = Packets(self._channels, self._page_size(), peer.send_channel)
        while (event := self._next_event()) is not None:
            self._send_event(event, peer, packets)
        if self._channels:
            self._front.check_ram()
            if not self._ram_ended and self._ram is not None:
                self._end_ram(self._ram, peer, packets)
        self._send_rest(peer)
        if self._return_path:
            peer.wait_for_shut()
        peer.wait_for_close()

    def _page_size(self) -> int:
        """Bytes of a page: as the configuration says, else the description at the file's end, else the machine's.

        The file's end is looked at only for channels, whose packets are made of so large pages.
        """
        if self._channels and self.configuration.page_bits is None:
            with open_path(self._path) as opened:
                if (found := opened.description()) is not None and (told := Boundaries(found[1]).page_size) is not None:
                    return told
        return self.configuration.page_size

    def _next_event(self) -> StreamEvent | None:
        """The next event of the front, or None at its end."""
        while (event := self._front.next_event()) is None and self._front.rest is None:
            data = self._next_piece()
            if not data:
                self._front.end()
            self._front.feed(data)
        return event

    def _send_rest(self, peer: Peer) -> None:
        """Pass on the rest, and find out whether it is whole."""
        begin = self._front.offset
        end = EndFinder(lambda at, size: self._at(begin + at, size))
        for data in itertools.chain((self._front.rest or b"",), iter(self._next_piece, b"")):
            end.feed(data)
            peer.send_main([data])
        if not end.whole:
            right = "the stream's end (EOF, and mostly a description of the machine), found the end of the file"
            raise ProtocolError(self._read, f"end of {self._path}", f"{right}: it has been cut")

    def _next_piece(self) -> bytes:
        data = self._at(self._read, _PIECE)
        self._read += len(data)
        return data

    def _at(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            raise MigpoolError(f"{self._path} cannot be read: {error.strerror or error}") from None

    def _send_event(self, event: StreamEvent, peer: Peer, packets: Packets) -> None:
        match event:
            case Command(kind=kind) if kind in _OF_CONNECTIONS:
                return
            case MultifdFlush(offset):
                right = "pages in the file, found a flush: this is the main channel of a migration with multifd alone"
                raise ProtocolError(offset, "MULTIFD_FLUSH", right)
            case RamPages(addresses=addresses):
                self.pages += len(addresses)
        if not self._channels:
            peer.send_main(emit(event))
            return
        match event:
            case RamSection(head):
                self._ram = self._ram or head
            case RamBlocks(blocks):
                assert self._ram is not None
                begin, end = head_bytes(self._ram), ram_section_end(self._ram.section_id)
                peer.send_main([begin, block_list(blocks), self._flush, end])
                packets.sync()
            case RamPages():
                packets.add(event)
            case RamSectionEnd(head):
                if head.kind is Kind.END:
                    self._end_ram(head, peer, packets)
            case _:
                peer.send_main(emit(event))

    def _end_ram(self, head: SectionHead, peer: Peer, packets: Packets) -> None:
        self._ram_ended = True
        packets.sync()
        begin, end = head_bytes(replace(head, kind=Kind.END)), ram_section_end(head.section_id)
        peer.send_main([begin, self._flush, end])


@dataclass(slots=True)
class _Waiting:
    """The next packet of a channel."""

    block: str = ""
    normal: dict[int, Buffer] = field(default_factory=dict)
    zero: dict[int, None] = field(default_factory=dict)

    def has_room(self, block: str, address: int, room: int) -> bool:
        known = address in self.normal or address in self.zero
        return block == self.block and not known and len(self.normal) + len(self.zero) < room


class Packets:
    """Gathers pages of a file into multifd packets, one packet a channel; at most 512 KiB wait for each.

    A file may hold a page several times, and the last one counts. Channels are loaded side by side, but each of them in
    its order. So each page has its channel, by its address: 512 KiB of a block go to one channel, the next 512 KiB to
    the next. No flush is needed between two copies of a page, and no list of the pages that were sent.

    Arguments:
        channels: how many there are, at least 1.
        page_size: bytes of a page.
        send: sends buffers on a channel.
    """

    def __init__(self, channels: int, page_size: int, send: Callable[[int, Sequence[Buffer]], None]) -> None:
        self._page_size = page_size
        self._send = send
        self._room = BYTES_PER_RAM_PACKET // page_size
        self._waiting = [_Waiting() for _ in range(channels)]
        self._number = 0

    def add(self, pages: RamPages) -> None:
        """Take pages, and send the packets that have become full."""
        count = len(self._waiting)
        for address, page in pages:
            channel = address // BYTES_PER_RAM_PACKET % count
            waiting = self._waiting[channel]
            if not waiting.has_room(pages.block, address, self._room):
                waiting = self._send_waiting(channel)
                waiting.block = pages.block
            if page is None:
                waiting.zero[address] = None
            else:
                waiting.normal[address] = page

    def sync(self) -> None:
        """Send all that waits, and a SYNC on each channel."""
        for channel in range(len(self._waiting)):
            self._send_waiting(channel)
            self._send(channel, [sync_header(self._next_number(), self._page_size)])

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _send_waiting(self, channel: int) -> _Waiting:
        waiting = self._waiting[channel]
        if waiting.normal or waiting.zero:
            header = RamPacketHeader(
                0,
                self._next_number(),
                waiting.block,
                tuple(waiting.normal),
                tuple(waiting.zero),
                len(waiting.normal) * self._page_size,
                self._room,
            )
            self._send(channel, [ram_header(header, self._page_size), *waiting.normal.values()])
        self._waiting[channel] = fresh = _Waiting()
        return fresh
