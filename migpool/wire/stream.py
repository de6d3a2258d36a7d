"""The main channel: file header, configuration, sections, commands, EOF, VM description.

A :class:`StreamReader` makes events of bytes; :func:`emit` makes the same bytes of events.

The order of a plain migration (QEMU 10.0)::

    "QEVM", u32 version 3
    CONFIGURATION 07                      configuration.py
    COMMAND 08: OPEN_RETURN_PATH, PING    commands.py        only with a return path
    START 01 of ram and iterable devices  sections.py, ram.py, records.py
    PART 02, any number
    COMMAND 08: SWITCHOVER_START          the machine has stopped
    END 03 of ram and iterable devices
    FULL 04 of every other device
    EOF 00
    VMDESC 06, u32 length, JSON           vmdesc.py          may be empty, or missing

What may follow what: :data:`ITEMS`. A stream may end after EOF or after VMDESC, and nowhere else.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from migpool.errors import ProtocolError
from migpool.wire import ram
from migpool.wire.commands import (
    COMMAND,
    PACKAGE_AT,
    Command,
    CommandKind,
    LaterCommand,
    Packaged,
    command,
    packaged,
    read_command,
    resumed_block,
)
from migpool.wire.configuration import (
    CONFIGURATION,
    DEFAULT_PAGE_SIZE,
    Configuration,
    configuration,
    read_configuration,
)
from migpool.wire.ram import CountedPages, MultifdFlush, RamBlocks, RamPages, RamSection, RamSectionEnd
from migpool.wire.ramforms import RamPacked
from migpool.wire.ramreader import RamReader
from migpool.wire.records import Passed, Record, pass_records, payload_of, read_records
from migpool.wire.sections import (
    DEFAULT_LIMIT,
    FOOTER_SIZE,
    Footers,
    Headed,
    Kind,
    Schema,
    Section,
    SectionHead,
    head_bytes,
    measured,
    read_head,
    section,
)
from migpool.wire.trailer import (
    CheckpointMessage,
    CheckpointStep,
    Padding,
    begins_checkpoint,
    checkpoint_message,
    padding,
    read_checkpoint_message,
)
from migpool.wire.unread import Buffer, Need, PushReader, Steps, Unread, take

FILE_MAGIC: Final = b"QEVM"
FILE_VERSION: Final = 3
MAIN_MAGIC_SIZE: Final = len(FILE_MAGIC)
"""How many bytes :func:`begins_main_channel` looks at. They belong to the channel and must be fed to its reader."""
POSTCOPY_RESUMED: Final = bytes((COMMAND,)) + int(CommandKind.RECV_BITMAP).to_bytes(2, "big")
"""How a main channel begins on which a postcopy goes on after a break: the source asks what has come before it."""
TLS_HANDSHAKE: Final = b"\x16\x03"
"""How a connection begins that uses TLS (RFC 8446, 5.1)."""
EOF: Final = 0x00
VMDESC: Final = 0x06
VMDESC_HEAD: Final = struct.Struct(">BI")
TEXT_LIMIT: Final = 16 << 20
"""Bytes that a description may have: that of hundreds of devices has a few MiB, and JSON takes much memory."""
IGNORE_SHARED: Final = "x-ignore-shared"
MAPPED_RAM: Final = "mapped-ram"
VFIO_SUFFIX: Final = "/vfio"
"""With which the idstr of a VFIO device ends."""

_KINDS: Final = {int(kind): kind for kind in Kind}


class StreamState(Enum):
    """Where a stream stands."""

    CONFIGURATION = auto()
    BODY = auto()
    ENDED = auto()
    DESCRIBED = auto()
    PACKAGE = auto()
    CHECKPOINT = auto()


_SECTIONS_AND_COMMANDS: Final = (*_KINDS, COMMAND)

ITEMS: Final = {
    StreamState.CONFIGURATION: {CONFIGURATION: StreamState.BODY},
    StreamState.BODY: {**dict.fromkeys(_SECTIONS_AND_COMMANDS, StreamState.BODY), EOF: StreamState.ENDED},
    StreamState.ENDED: {VMDESC: StreamState.DESCRIBED},
    StreamState.DESCRIBED: {},
    StreamState.PACKAGE: dict.fromkeys(_SECTIONS_AND_COMMANDS, StreamState.PACKAGE),
    StreamState.CHECKPOINT: dict.fromkeys((*_SECTIONS_AND_COMMANDS, EOF), StreamState.CHECKPOINT),
}
"""For each state, the types of items that may come next, and the state after each."""

MAY_END: Final = frozenset({StreamState.ENDED, StreamState.DESCRIBED, StreamState.PACKAGE})
"""The states in which the input may end."""


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The first eight bytes."""

    version: int = FILE_VERSION
    offset: int = 0


@dataclass(frozen=True, slots=True)
class DeviceSection(Headed):
    """A section of an iterable device; its footer was right.

    Arguments:
        records: the whole payload; the last record is the mark that ended it.
    """

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class PassedSection(Headed):
    """A section of a VFIO device whose records were passed over: they may be as long as the device's whole state.

    Arguments:
        records: those of the payload, or of its beginning.
        rest: what stands behind them, if the last one does not end the payload.
        size: bytes of payload in all.
    """

    records: tuple[Passed, ...]
    rest: Buffer
    size: int


@dataclass(frozen=True, slots=True)
class Eof:
    """No more sections come."""

    offset: int = 0


@dataclass(frozen=True, slots=True)
class VmDescription:
    """The description of all payloads, for tools; ``vmdesc.parse`` reads it.

    Arguments:
        text: JSON as bytes; may be empty.
        offset: where in the channel the item began; ``text`` begins 5 bytes later.
    """

    text: Buffer
    offset: int = 0


StreamEvent: TypeAlias = (
    FileHeader
    | Configuration
    | Section
    | DeviceSection
    | PassedSection
    | RamSection
    | RamBlocks
    | RamPages
    | CountedPages
    | RamPacked
    | MultifdFlush
    | RamSectionEnd
    | Command
    | LaterCommand
    | Packaged
    | Eof
    | VmDescription
    | Padding
    | CheckpointMessage
)


class StreamReader(PushReader[StreamEvent]):
    """Reads the main channel from bytes that come in any pieces.

    Arguments:
        schema: what knows how long devices' payloads are, and which consist of records.
        limit: how many bytes one payload, package or description may have: the most that is kept, once it has arrived.
        batch: how many pages of RAM one event may have.
        older: also take what machine types before 2.4 leave out, and the migration's properties can: the configuration
            (the first item decides) and the footers (the byte behind the first section decides).
        stored: also take what only a file has: pages at fixed places (mapped-ram), and zeros behind the end. Sections
            of VFIO devices are then what the schema says, and commands may be unknown, as a file may have been written
            by a later QEMU. Also take a channel on which a postcopy goes on after a break: it begins with commands, and
            says neither which section is RAM's nor how large its blocks are.
        page_size: bytes of a page where the configuration does not say it; by default told from the pages themselves.
        multifd: whether there are multifd channels: a flush is then also told of where a source does not say it, but
            ends a section of RAM.

    Attributes:
        section: the head of the section that is being read, or was read last.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        limit: int = DEFAULT_LIMIT,
        batch: int = 256,
        older: bool = False,
        stored: bool = False,
        page_size: int | None = None,
        multifd: bool = False,
    ) -> None:
        unread = Unread()
        super().__init__(unread, self._stream(unread))
        self._schema = schema
        self._limit = limit
        self._batch = batch
        self._known: dict[int, SectionHead] = {}
        self._older = older
        self._stored = stored
        self._resumed = False
        self._counts = False
        self._page_size = page_size
        self._multifd = multifd
        self._footers = Footers(None if older else True)
        self._ram = RamReader(page_size or DEFAULT_PAGE_SIZE, False, batch, self._footers, sure=page_size is not None)
        self.section: SectionHead | None = None

    @property
    def footers(self) -> bool | None:
        """Whether sections have footers; None: not known yet."""
        return self._footers.present

    def count_pages(self) -> None:
        """From here on, only count pages of RAM whose size is known: nobody asks for more of them."""
        self._ram.counts = self._counts = True

    def between_pages(self) -> tuple[int, int] | None:
        """Bytes of a page and the used length of the block, where it waits between two pages that are only counted.

        :meth:`pass_pages` may then pass over pages that follow.
        """
        return self._ram.between_pages()

    def pass_pages(self, count: int, size: int) -> None:
        """Count pages that will not be fed.

        Arguments:
            count: how many pages there are, each with its contents, one behind the other and in the block.
            size: how many bytes of the channel they have; those that were fed already are dropped.
        """
        self._ram.pass_pages(count)
        self._unread.leap(size)
        self._need = Need(0, self._need.item)  # what it waited for is behind it

    @property
    def known(self) -> Mapping[int, SectionHead]:
        """The sections that have begun, by their ids."""
        return self._known

    def inside(self, package: Packaged) -> Iterator[StreamEvent]:
        """The events inside a package. Read them to the end before the events that come after it.

        Raises:
            ProtocolError: as for the stream itself, with offsets of the whole channel.
        """
        unread = Unread(package.offset + PACKAGE_AT)
        reader: PushReader[StreamEvent] = PushReader(unread, self._items(unread, StreamState.PACKAGE))
        yield from reader.read((package.data,))

    def _stream(self, unread: Unread) -> Generator[Need | StreamEvent, None, None]:
        if unread.available < MAIN_MAGIC_SIZE:
            yield Need(MAIN_MAGIC_SIZE, "file header")
        if self._stored and unread.peek(len(POSTCOPY_RESUMED)) == POSTCOPY_RESUMED:
            self._resumed = True
            yield from self._items(unread, StreamState.BODY)
        magic = bytes((yield from take(unread, 4, "file header")))
        if magic != FILE_MAGIC:
            raise ProtocolError(0, "file header", f"magic {FILE_MAGIC.hex()} ('QEVM'), found {_told(magic)}")
        version = int.from_bytes((yield from take(unread, 4, "file header")), "big")
        if version != FILE_VERSION:
            raise ProtocolError(4, "file header", f"version {FILE_VERSION}, found {version}")
        yield FileHeader(version)
        yield from self._items(unread, StreamState.CONFIGURATION)

    def _items(self, unread: Unread, state: StreamState) -> Generator[Need | StreamEvent, None, None]:
        while True:
            if not unread.available:
                yield Need(1, "next item", clean=state in MAY_END)
            kind = unread.peek(1)[0]
            if self._stored and kind != VMDESC and state in (StreamState.ENDED, StreamState.DESCRIBED):
                if not kind and (yield from begins_checkpoint(unread)):
                    yield from self._checkpoint(unread)
                    state = StreamState.DESCRIBED
                    continue
                if not kind:
                    yield (yield from padding(unread))
                    continue
            if state is StreamState.CONFIGURATION and self._older and kind != CONFIGURATION:
                state = StreamState.BODY
            if kind not in ITEMS[state]:
                right = " or ".join(f"{item:02x}" for item in sorted(ITEMS[state])) or "the end of the input"
                raise ProtocolError(unread.offset, "type of the next item", f"{right}, found {kind:02x}")
            state = ITEMS[state][kind]
            if kind in _KINDS:
                yield from self._read_section(unread, _KINDS[kind])
            elif kind == COMMAND:
                event = yield from read_command(unread, self._limit, later=self._stored)
                if isinstance(event, Command) and event.kind is CommandKind.POSTCOPY_ADVISE:
                    self._ram.host_pages = int.from_bytes(event.data[:8], "big")
                if self._resumed and isinstance(event, Command) and event.kind is CommandKind.RECV_BITMAP:
                    self._ram.name_block(resumed_block(event))
                yield event
            elif kind == CONFIGURATION:
                yield (yield from self._configuration(unread))
            elif kind == EOF:
                unread.skip(1)
                yield Eof(unread.offset - 1)
                if state is StreamState.CHECKPOINT:
                    return
            else:
                yield (yield from _read_description(unread, self._limit))

    def _checkpoint(self, unread: Unread) -> Generator[Need | StreamEvent, None, None]:
        """Read a checkpoint of COLO's: its messages, and the sections behind them."""
        yield (yield from read_checkpoint_message(unread, CheckpointStep.CHECKPOINT_REQUEST))
        yield (yield from read_checkpoint_message(unread, CheckpointStep.VMSTATE_SEND))
        yield from self._items(unread, StreamState.CHECKPOINT)
        message = yield from read_checkpoint_message(unread, CheckpointStep.VMSTATE_SIZE)
        yield message
        begin = unread.offset
        yield from self._items(unread, StreamState.CHECKPOINT)
        if unread.offset - begin != message.size:
            right = f"{message.size} bytes as VMSTATE_SIZE says, found {unread.offset - begin}"
            raise ProtocolError(begin, "state of COLO's checkpoint", right)

    def _configuration(self, unread: Unread) -> Steps[Configuration]:
        config = yield from read_configuration(unread, later=self._stored)
        mapped = MAPPED_RAM in (config.capabilities or ())
        if mapped and not self._stored:
            found = "found the capability mapped-ram: its pages stand at fixed places of a file"
            raise ProtocolError(config.offset, "configuration", f"a stream of pages, {found}")
        gpa = IGNORE_SHARED in (config.capabilities or ())
        page_size = self._page_size if self._page_size and config.page_bits is None else config.page_size
        sure = config.page_bits is not None or self._page_size is not None
        self._ram = RamReader(
            page_size, gpa, self._batch, self._footers, mapped=mapped, sure=sure, multifd=self._multifd
        )
        self._ram.counts = self._counts
        return config

    def _read_section(self, unread: Unread, kind: Kind) -> Generator[Need | StreamEvent, None, None]:
        if self._resumed and kind in (Kind.PART, Kind.END):  # whose START stands on the channel that broke
            if unread.available < FOOTER_SIZE:
                yield Need(FOOTER_SIZE, f"{kind.name} section")
            section_id = int.from_bytes(unread.peek(FOOTER_SIZE)[1:], "big")
            self._known.setdefault(
                section_id, SectionHead(Kind.START, section_id, ram.RAM_IDSTR, 0, ram.RAM_VERSION, unread.offset)
            )
        head = yield from read_head(unread, kind, self._known)
        self._known.setdefault(head.section_id, head)
        self.section = head
        if head.idstr == ram.RAM_IDSTR:
            yield from self._ram.section(unread, head)
        elif self._stored and head.idstr.endswith(VFIO_SUFFIX):
            yield (yield from self._passed(unread, head))
        elif self._schema.iterable(head.idstr, head.instance_id) or head.idstr.endswith(VFIO_SUFFIX):
            records = yield from read_records(unread, head, self._schema, self._limit)
            yield from self._footers.check(unread, head)
            yield DeviceSection(head, records)
        else:
            payload = yield from measured(unread, head, self._schema, self._limit, self._footers.mark(head.section_id))
            yield from self._footers.check(unread, head)
            yield Section(head, payload)

    def _passed(self, unread: Unread, head: SectionHead) -> Steps[PassedSection | Section]:
        begin = unread.offset
        records, ended = yield from pass_records(unread, head, self._limit)
        rest: Buffer = b""
        if not ended:
            rest = yield from measured(unread, head, self._schema, self._limit, self._footers.mark(head.section_id))
        size = unread.offset - begin
        yield from self._footers.check(unread, head)
        return PassedSection(head, tuple(records), rest, size) if records else Section(head, rest)


def _read_description(unread: Unread, limit: int) -> Steps[VmDescription]:
    offset = unread.offset
    _, length = VMDESC_HEAD.unpack((yield from take(unread, VMDESC_HEAD.size, "VM description")))
    limit = min(limit, TEXT_LIMIT)
    if length > limit:
        raise ProtocolError(offset + 1, "VM description", f"at most {limit} bytes, found {length}")
    return VmDescription((yield from take(unread, length, "VM description")), offset)


def begins_main_channel(first: Buffer) -> bool:
    """Whether a connection that begins with ``first`` (4 bytes or more) is a main channel; else it is a multifd one.

    Raises:
        ProtocolError: neither kind of channel begins so.
    """
    from migpool.wire.multifd import MAGIC

    magic, multifd = bytes(memoryview(first)[:MAIN_MAGIC_SIZE]), MAGIC.to_bytes(4, "big")
    if magic not in (FILE_MAGIC, multifd):
        right = f"{FILE_MAGIC.hex()} (main channel) or {multifd.hex()} (multifd channel)"
        raise ProtocolError(0, "first bytes of a connection", f"{right}, found {_told(magic)}")
    return magic == FILE_MAGIC


def _told(magic: bytes) -> str:
    if magic[:2] == TLS_HANDSHAKE:
        return f"{magic.hex()}, which is TLS: give --tls at both ends or at none; what was recorded so cannot be read"
    return magic.hex() or "nothing"


def header() -> bytes:
    """The eight bytes with which a main channel begins."""
    return FILE_MAGIC + FILE_VERSION.to_bytes(4, "big")


def eof() -> bytes:
    """The byte after the last section."""
    return bytes((EOF,))


def vm_description(text: Buffer) -> list[Buffer]:
    """The last item: two buffers, of which the second is ``text`` itself."""
    return [VMDESC_HEAD.pack(VMDESC, len(text)), text]


def emit(event: StreamEvent, *, footers: bool = True) -> list[Buffer]:
    """The bytes that an event was read from, as buffers for ``sendmsg``; large parts are passed on as they are.

    Arguments:
        event: the event.
        footers: whether the stream's sections have footers.
    """
    match event:
        case FileHeader():
            return [header()]
        case Configuration():
            return [configuration(event)]
        case Section(head, payload):
            return section(head, payload, footers=footers)
        case DeviceSection(head, records):
            return section(head, payload_of(records), footers=footers)
        case RamSection(head):
            return [head_bytes(head)]
        case RamBlocks(blocks):
            return [ram.block_list(blocks)]
        case RamPages(block):
            return ram.pages(block, event, named=event.named)
        case RamPacked(data=data):
            return [data]
        case MultifdFlush():
            return [ram.multifd_flush()]
        case RamSectionEnd(head):
            return [ram.ram_section_end(head.section_id, footers=footers)]
        case Command() | LaterCommand():
            return [command(event)]
        case Packaged(data):
            return packaged(data)
        case Eof():
            return [eof()]
        case VmDescription(text):
            return vm_description(text)
        case Padding(size):
            return [bytes(size)]
        case CheckpointMessage():
            return [checkpoint_message(event)]
        case PassedSection() | CountedPages():
            raise ValueError("what was passed over cannot be written again")
