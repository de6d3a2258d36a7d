"""Reads the main channel: file header, configuration, sections, commands, EOF, VM description.

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

from collections.abc import Generator, Iterator
from enum import Enum, auto
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.commands import COMMAND, PACKAGE_AT, Packaged, read_command
from migpool.wire.configuration import CONFIGURATION, Configuration, read_configuration
from migpool.wire.events import (
    EOF,
    FILE_MAGIC,
    FILE_VERSION,
    VMDESC,
    VMDESC_HEAD,
    DeviceSection,
    Eof,
    FileHeader,
    StreamEvent,
    VmDescription,
)
from migpool.wire.ram import RAM_IDSTR, RamReader
from migpool.wire.records import read_records
from migpool.wire.sections import DEFAULT_LIMIT, Footers, Kind, Schema, Section, SectionHead, measured, read_head
from migpool.wire.unread import Need, PushReader, Steps, Unread, take

IGNORE_SHARED: Final = "x-ignore-shared"
MAPPED_RAM: Final = "mapped-ram"

_KINDS: Final = {int(kind): kind for kind in Kind}


class StreamState(Enum):
    """Where a stream stands."""

    CONFIGURATION = auto()
    BODY = auto()
    ENDED = auto()
    DESCRIBED = auto()
    PACKAGE = auto()


_SECTIONS_AND_COMMANDS: Final = (*_KINDS, COMMAND)

ITEMS: Final = {
    StreamState.CONFIGURATION: {CONFIGURATION: StreamState.BODY},
    StreamState.BODY: {**dict.fromkeys(_SECTIONS_AND_COMMANDS, StreamState.BODY), EOF: StreamState.ENDED},
    StreamState.ENDED: {VMDESC: StreamState.DESCRIBED},
    StreamState.DESCRIBED: {},
    StreamState.PACKAGE: dict.fromkeys(_SECTIONS_AND_COMMANDS, StreamState.PACKAGE),
}
"""For each state, the types of items that may come next, and the state after each."""

MAY_END: Final = frozenset({StreamState.ENDED, StreamState.DESCRIBED, StreamState.PACKAGE})
"""The states in which the input may end."""


class StreamReader(PushReader[StreamEvent]):
    """Reads the main channel from bytes that come in any pieces.

    Arguments:
        schema: what knows how long devices' payloads are, and which consist of records.
        limit: how many bytes one payload, package or description may have: the most that is kept, once it has arrived.
        batch: how many pages of RAM one event may have.
        gpa: whether RAM's block list gives guest-physical addresses; None: as the configuration's capabilities say.
        older: also take what machine types before 2.4 leave out, and the migration's properties can: the configuration
            (the first item decides) and the footers (the byte behind the first section decides).
        page_size: bytes of a page where the configuration does not say it.

    Attributes:
        section: the head of the section that is being read, or was read last.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        limit: int = DEFAULT_LIMIT,
        batch: int = 256,
        gpa: bool | None = None,
        older: bool = False,
        page_size: int = 4096,
    ) -> None:
        unread = Unread()
        super().__init__(unread, self._stream(unread))
        self._schema = schema
        self._limit = limit
        self._batch = batch
        self._gpa = gpa
        self._known: dict[int, SectionHead] = {}
        self._mapped = False
        self._older = older
        self._page_size = page_size
        self._footers = Footers(None if older else True)
        self._ram = RamReader(page_size, bool(gpa), batch, self._footers)
        self.section: SectionHead | None = None

    @property
    def footers(self) -> bool | None:
        """Whether sections have footers; None: not known yet."""
        return self._footers.present

    def inside(self, package: Packaged) -> Iterator[StreamEvent]:
        """The events inside a package. Read them to the end before the events that come after it.

        Raises:
            ProtocolError: as for the stream itself, with offsets of the whole channel.
        """
        unread = Unread(package.offset + PACKAGE_AT)
        reader: PushReader[StreamEvent] = PushReader(unread, self._items(unread, StreamState.PACKAGE))
        yield from reader.read((package.data,))

    def _stream(self, unread: Unread) -> Generator[Need | StreamEvent, None, None]:
        magic = bytes((yield from take(unread, 4, "file header")))
        if magic != FILE_MAGIC:
            raise ProtocolError(0, "file header", f"magic {FILE_MAGIC.hex()} ('QEVM'), found {magic.hex()}")
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
            if state is StreamState.CONFIGURATION and self._older and kind != CONFIGURATION:
                state = StreamState.BODY
            if kind not in ITEMS[state]:
                right = " or ".join(f"{item:02x}" for item in sorted(ITEMS[state])) or "the end of the input"
                raise ProtocolError(unread.offset, "type of the next item", f"{right}, found {kind:02x}")
            state = ITEMS[state][kind]
            if kind in _KINDS:
                yield from self._read_section(unread, _KINDS[kind])
            elif kind == COMMAND:
                yield (yield from read_command(unread, self._limit))
            elif kind == CONFIGURATION:
                yield (yield from self._configuration(unread))
            elif kind == EOF:
                unread.skip(1)
                yield Eof(unread.offset - 1)
            else:
                yield (yield from _read_description(unread, self._limit))

    def _configuration(self, unread: Unread) -> Steps[Configuration]:
        config = yield from read_configuration(unread)
        self._mapped = MAPPED_RAM in (config.capabilities or ())
        gpa = IGNORE_SHARED in (config.capabilities or ()) if self._gpa is None else self._gpa
        page_size = self._page_size if config.page_bits is None else config.page_size
        self._ram = RamReader(page_size, gpa, self._batch, self._footers)
        return config

    def _read_section(self, unread: Unread, kind: Kind) -> Generator[Need | StreamEvent, None, None]:
        head = yield from read_head(unread, kind, self._known)
        self._known.setdefault(head.section_id, head)
        self.section = head
        if head.idstr == RAM_IDSTR:
            if self._mapped:
                found = "found the capability mapped-ram: pages stand at fixed places of the file, not in the stream"
                raise ProtocolError(unread.offset, f"payload of {head}", f"RAM in the stream, {found}")
            yield from self._ram.section(unread, head)
        elif self._schema.iterable(head.idstr, head.instance_id) or head.idstr.endswith("/vfio"):
            records = yield from read_records(unread, head, self._schema, self._limit)
            yield from self._footers.check(unread, head)
            yield DeviceSection(head, records)
        else:
            payload = yield from measured(unread, head, self._schema, self._limit, self._footers.mark(head.section_id))
            yield from self._footers.check(unread, head)
            yield Section(head, payload)


def _read_description(unread: Unread, limit: int) -> Steps[VmDescription]:
    offset = unread.offset
    _, length = VMDESC_HEAD.unpack((yield from take(unread, VMDESC_HEAD.size, "VM description")))
    if length > limit:
        raise ProtocolError(offset + 1, "VM description", f"at most {limit} bytes, found {length}")
    return VmDescription((yield from take(unread, length, "VM description")), offset)
