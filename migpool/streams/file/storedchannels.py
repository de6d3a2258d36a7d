"""The channels of a migration that is being stored: what is written of them, and what is answered to the main one.

Packets of the multifd channels become PART sections of RAM in the file. Not written of the main channel are the
commands that only concern the connection, OPEN_RETURN_PATH and PING, which a file could not answer, and MULTIFD_FLUSH,
as the pages of the multifd channels stand in the file themselves.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from migpool.errors import PeerError, ProtocolError
from migpool.streams.file.checking import check_devices
from migpool.streams.file.file import StreamFile
from migpool.streams.file.front import EndFinder, Front
from migpool.streams.file.storeddevices import StoredDevices
from migpool.wire.channelreader import ChannelReader, DeviceStatePacket, RamPacket
from migpool.wire.commands import Command, CommandKind, Packaged, ping_value
from migpool.wire.configuration import Configuration
from migpool.wire.multifd import Compression, initial_packet
from migpool.wire.ram import MultifdFlush, RamBlocks, RamPages, RamSection, RamSectionEnd
from migpool.wire.records import Mark
from migpool.wire.returnpath import Message, Pong, SwitchoverAck
from migpool.wire.sections import Kind, Section, SectionHead
from migpool.wire.stream import DeviceSection, StreamEvent, emit

_KEPT: Final = (CommandKind.SWITCHOVER_START,)
_PACKET_LIMIT: Final = 64 << 20
"""Bytes of one packet's payload. Chunks of QEMU's have 1 MiB and a header; a config, what its device needs."""


class StoredMainChannel:
    """What has come on the main channel so far.

    Arguments:
        sock: its connection.
        file: where to write.
        uuid: the machine's uuid as the multifd channels said it. The file keeps it even if the source's configuration
            does not: who sends the file needs it to open multifd channels.
        multifd: whether there are multifd channels.
        answer: sends a message on the return path.
        devices: takes what comes of VFIO devices.
        acknowledge: whether to say SWITCHOVER_ACK as soon as the return path is open, as sources up to QEMU 11.0 may
            wait for; None: as the version in the name of the machine's type says, and without one not.
        unversioned: told the name of a type without a version, about which nobody has said whether to acknowledge.

    Attributes:
        ram: RAM's section, once its blocks are known: pages may be written from then on.
        page_size: bytes of a page, if the configuration says it.
        machine: its type.
        pages: how many pages came on this channel.
        stopped: it has come to a flush.
        closed: the source has closed the connection.
        return_path: whether the source has opened the return path.
        devices: the VFIO devices.
        rest_begin: where in the file the devices' states begin, once RAM is over.
        barriers: how often it has come to a flush.
    """

    def __init__(
        self,
        sock: socket.socket,
        file: StreamFile,
        uuid: bytes,
        multifd: bool,
        answer: Callable[[Message], None],
        devices: StoredDevices,
        *,
        acknowledge: bool | None = None,
        unversioned: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.socket = sock
        self._file = file
        self._uuid = uuid
        self._multifd = multifd
        self._answer = answer
        self.devices = devices
        self._acknowledge = acknowledge
        self._unversioned = unversioned
        self._front = Front(multifd=multifd)
        self._end: EndFinder | None = None
        self._head: SectionHead | None = None
        self.ram: SectionHead | None = None
        self.page_size: int | None = None
        self.machine = ""
        self._configuration: Configuration | None = None
        self._starts: list[Section] = []
        self.pages = 0
        self.stopped = False
        self.closed = False
        self.return_path = False
        self.rest_begin = 0
        self.barriers = 0

    @property
    def ram_is_over(self) -> bool:
        """Whether the devices' states have begun: no page may come any more."""
        return self._end is not None

    @property
    def described(self) -> bool:
        """Whether the stream has ended with the description of the machine, so that nothing can follow."""
        return self._end is not None and self._end.described

    def feed(self, data: bytes) -> None:
        """Take bytes, and write what there is to write; not while it is stopped at a flush.

        Raises:
            ProtocolError: they are no stream, or not one that can be stored.
        """
        if self._end is not None:
            self._pass_on(data)
            return
        self._front.feed(data)
        self.go_on()

    def go_on(self) -> None:
        """Take what has come already, up to the next flush."""
        self.stopped = False
        while not self.stopped and (event := self._front.next_event()) is not None:
            self._take(event)
        if self._front.rest is not None and self._end is None:
            if self._multifd:
                self._front.check_ram()
            self.devices.all_have_begun()
            self.rest_begin = begin = self._file.size
            self._end = EndFinder(lambda at, size: self._file.read(begin + at, size))
            self._pass_on(self._front.rest)

    def end(self) -> None:
        """Note that the source has closed the connection.

        Raises:
            PeerError: the stream is not whole.
        """
        if self._end is None or not self._end.whole:
            raise PeerError("the source closed the main channel before the end of the stream")
        self.closed = True

    def check_devices(self, rest: bytes) -> None:
        """See to it that the devices' states are whole, as far as the stream says how long they are.

        Arguments:
            rest: what follows the end of RAM.

        Raises:
            ProtocolError: they are damaged; the offset is that in the file.
        """
        assert self._configuration is not None  # what a stream begins with
        check_devices(rest, self.rest_begin, self._configuration, self.ram, self.devices.heads, self._starts)

    def _pass_on(self, data: bytes | memoryview) -> None:
        assert self._end is not None
        self._file.write(data)
        self._end.feed(data)

    def _take(self, event: StreamEvent) -> None:
        match event:
            case Command():
                self._command(event)
            case Packaged(offset=offset):
                raise _postcopy(offset)
            case Configuration(machine=machine, page_size=page_size):
                self.machine, self.page_size = machine, None if event.page_bits is None else page_size
                self._configuration = event
                if event.uuid is None and any(self._uuid):
                    event = replace(event, uuid=self._uuid)
                self._file.write(*emit(event))
            case RamSection() | RamBlocks() | RamPages() | MultifdFlush() | RamSectionEnd():
                self._ram_event(event)
            case DeviceSection():
                self._device(event)
            case Section(head) if head.kind is Kind.START:
                self._starts.append(event)
                self._file.write(*emit(event))
            case _:
                self._file.write(*emit(event))

    def _ram_event(self, event: RamSection | RamBlocks | RamPages | MultifdFlush | RamSectionEnd) -> None:
        match event:
            case RamSection(head):
                self._head = head
            case RamBlocks():
                assert self._head is not None
                self.ram = self._head
                if self._multifd:
                    self._file.blocks(self._head, event)
                    return
            case MultifdFlush(offset):
                if not self._multifd:
                    right = "none, as there are no multifd channels, found one: give --channels as the source has"
                    raise ProtocolError(offset, "MULTIFD_FLUSH", right)
                self.stopped = True
                self.barriers += 1
                return
            case RamPages(block, addresses=addresses):
                self.pages += len(addresses)
                if self._multifd:
                    assert self.ram is not None
                    self._file.pages(self.ram, block, list(event))
                    return
            case RamSectionEnd(head):
                if self._multifd and head.kind is Kind.END:
                    self._file.ram_ended(head)
        if not self._multifd:
            self._file.write(*emit(event))

    def _command(self, event: Command) -> None:
        match event.kind:
            case CommandKind.OPEN_RETURN_PATH:
                self.return_path = True
                self._acknowledge = self._acknowledges_unasked()
                if self._acknowledge:
                    self._answer(SwitchoverAck())
            case CommandKind.PING:
                if self.return_path:
                    self._answer(Pong(ping_value(event)))
            case kind if kind in _KEPT:
                self._file.write(*emit(event))
            case kind:
                raise _postcopy(event.offset, kind.name)

    def _acknowledges_unasked(self) -> bool:
        if self._acknowledge is not None:
            return self._acknowledge
        counted = self._configuration.counts_acknowledgements if self._configuration is not None else None
        if counted is None:
            # A source that waits for it goes on for ever, and its machine runs there; one that does not wait would
            # fail of it, and its machine would run there and be stored here.
            self._unversioned(self.machine)
            return False
        return not counted

    def _device(self, event: DeviceSection) -> None:
        """Write an iterable device's section. A file has nobody who could hear that initial data has been loaded."""
        if event.head.kind is Kind.START:
            self.devices.begin(event.head)
        *others, last = event.records
        if last.mark is Mark.INITIAL_DATA_SENT:
            event = replace(event, records=(*others, replace(last, mark=Mark.END)))
            if self.return_path and not self._acknowledge:
                self._answer(SwitchoverAck())
        self._file.write(*emit(event))


def _postcopy(offset: int, name: str = "PACKAGED") -> ProtocolError:
    return ProtocolError(
        offset, f"command {name}", "a plain pre-copy, found post-copy or COLO, which no file can store: switch it off"
    )


class StoredMultifdChannel:
    """What has come on a multifd channel so far.

    Arguments:
        number: the source's number of it.
        sock: its connection; the initial packet has been read.
        file: where to write.
        main: the main channel, which knows RAM's blocks. They must be known when the first bytes are fed.

    Attributes:
        stopped: it has come to a SYNC.
        syncs: how often it has.
        closed: the source has closed the connection.
        pages: how many pages came on this channel.
        behind: where the first page came behind its last SYNC; ``None`` if none has.
    """

    def __init__(self, number: int, sock: socket.socket, file: StreamFile, main: StoredMainChannel) -> None:
        self.number = number
        self.socket = sock
        self._file = file
        self._main = main
        self._reader: ChannelReader | None = None
        self.stopped = False
        self.syncs = 0
        self.closed = False
        self.pages = 0
        self.behind: int | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes, and write the pages among them; not while it is stopped at a SYNC.

        Raises:
            ProtocolError: they are no packets, or hold what cannot be stored.
        """
        if self._reader is None:
            self._reader = ChannelReader(self._main.page_size, _PACKET_LIMIT)
            self._reader.feed(initial_packet(self.number))
        self._reader.feed(data)
        self.go_on()

    def go_on(self) -> None:
        """Take what has come already, up to the next SYNC."""
        self.stopped = False
        while not self.stopped and self._reader is not None and (packet := self._reader.next_event()) is not None:
            if isinstance(packet, DeviceStatePacket):
                self._main.devices.take(packet, f"packet on multifd channel {self.number}")
            if isinstance(packet, RamPacket):
                self.stopped = packet.header.sync
                self.syncs += self.stopped
                self._write(packet)
                if self.stopped:
                    self.behind = None

    def check(self) -> None:
        """See to it that no page came behind the last flush. RAM is over, and may have been so before that was heard.

        Raises:
            ProtocolError: one did.
        """
        if self.behind is not None:
            item = f"packet on multifd channel {self.number}"
            raise ProtocolError(self.behind, item, "no page after the last flush, found one")

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
        if self.behind is None:
            self.behind = packet.offset
        if self._main.ram_is_over:
            self.check()
        if header.compression is not Compression.NONE:
            right = (
                f"pages without compression, found {header.compression.name.lower()}: set multifd-compression to none"
            )
            raise ProtocolError(packet.offset + 8, item, right)
        assert self._main.ram is not None
        self._file.packet(self._main.ram, header, packet.payload, packet.page_size)
        self.pages += len(header.normal) + len(header.zero)
