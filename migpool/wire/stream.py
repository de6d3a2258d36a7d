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
    Event,
    FileHeader,
    VmDescription,
)
from migpool.wire.inbox import Inbox, Need, PushReader, Steps, take
from migpool.wire.payload import DEFAULT_LIMIT, Schema, measured
from migpool.wire.ram import RAM_IDSTR
from migpool.wire.ramreader import RamReader
from migpool.wire.records import read_records
from migpool.wire.sections import Footers, Kind, Section, SectionHead, read_head

__all__ = ["ITEMS", "MAY_END", "State", "StreamReader"]

IGNORE_SHARED: Final = "x-ignore-shared"
MAPPED_RAM: Final = "mapped-ram"

_KINDS: Final = {int(kind): kind for kind in Kind}


class State(Enum):
    """Where a stream stands."""

    CONFIGURATION = auto()
    BODY = auto()
    ENDED = auto()
    DESCRIBED = auto()
    PACKAGE = auto()


_SECTIONS_AND_COMMANDS: Final = (*_KINDS, COMMAND)

ITEMS: Final = {
    State.CONFIGURATION: {CONFIGURATION: State.BODY},
    State.BODY: {**dict.fromkeys(_SECTIONS_AND_COMMANDS, State.BODY), EOF: State.ENDED},
    State.ENDED: {VMDESC: State.DESCRIBED},
    State.DESCRIBED: {},
    State.PACKAGE: dict.fromkeys(_SECTIONS_AND_COMMANDS, State.PACKAGE),
}
"""For each state, the types of items that may come next, and the state after each."""

MAY_END: Final = frozenset({State.ENDED, State.DESCRIBED, State.PACKAGE})
"""The states in which the input may end."""


class StreamReader(PushReader[Event]):
    """Reads the main channel from bytes that come in any pieces.

    Arguments:
        schema: what knows how long devices' payloads are, and which consist of records.
        limit: how many bytes one payload, package or description may have: the most that is kept, once it has arrived.
        batch: how many pages of RAM one event may have.
        gpa: whether RAM's block list gives guest-physical addresses; None: as the configuration's capabilities say.
        older: also take what machine types before 2.4 leave out, and the migration's properties can: the configuration
            (the first item decides) and the footers (the byte behind the first section decides).
        page_size: bytes of a page where the configuration does not say it.
    """

    __slots__ = (
        "_batch",
        "_footers",
        "_gpa",
        "_known",
        "_limit",
        "_mapped",
        "_older",
        "_page_size",
        "_ram",
        "_schema",
        "_section",
    )

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
        inbox = Inbox()
        super().__init__(inbox, self._stream(inbox))
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
        self._section: SectionHead | None = None

    @property
    def footers(self) -> bool | None:
        """Whether sections have footers; None: not known yet."""
        return self._footers.present

    @property
    def section(self) -> SectionHead | None:
        """The head of the section that is being read, or was read last."""
        return self._section

    def inside(self, package: Packaged) -> Iterator[Event]:
        """The events inside a package. Read them to the end before the events that come after it.

        Raises:
            ProtocolError: as for the stream itself, with offsets of the whole channel.
        """
        inbox = Inbox(package.offset + PACKAGE_AT)
        reader: PushReader[Event] = PushReader(inbox, self._items(inbox, State.PACKAGE))
        reader.feed(package.data)
        yield from reader.events()
        reader.end()
        yield from reader.events()

    def _stream(self, inbox: Inbox) -> Generator[Need | Event, None, None]:
        magic = bytes((yield from take(inbox, 4, "file header")))
        if magic != FILE_MAGIC:
            raise ProtocolError(0, "file header", f"magic {FILE_MAGIC.hex()} ('QEVM'), found {magic.hex()}")
        version = int.from_bytes((yield from take(inbox, 4, "file header")), "big")
        if version != FILE_VERSION:
            raise ProtocolError(4, "file header", f"version {FILE_VERSION}, found {version}")
        yield FileHeader(version)
        yield from self._items(inbox, State.CONFIGURATION)

    def _items(self, inbox: Inbox, state: State) -> Generator[Need | Event, None, None]:
        while True:
            if not inbox.available:
                yield Need(1, "next item", clean=state in MAY_END)
            kind = inbox.peek(1)[0]
            if state is State.CONFIGURATION and self._older and kind != CONFIGURATION:
                state = State.BODY
            if kind not in ITEMS[state]:
                right = " or ".join(f"{item:02x}" for item in sorted(ITEMS[state])) or "the end of the input"
                raise ProtocolError(inbox.offset, "type of the next item", f"{right}, found {kind:02x}")
            state = ITEMS[state][kind]
            if kind in _KINDS:
                yield from self._read_section(inbox, _KINDS[kind])
            elif kind == COMMAND:
                yield (yield from read_command(inbox, self._limit))
            elif kind == CONFIGURATION:
                yield (yield from self._configuration(inbox))
            elif kind == EOF:
                inbox.skip(1)
                yield Eof(inbox.offset - 1)
            else:
                yield (yield from _read_description(inbox, self._limit))

    def _configuration(self, inbox: Inbox) -> Steps[Configuration]:
        config = yield from read_configuration(inbox)
        self._mapped = MAPPED_RAM in (config.capabilities or ())
        gpa = IGNORE_SHARED in (config.capabilities or ()) if self._gpa is None else self._gpa
        page_size = self._page_size if config.page_bits is None else config.page_size
        self._ram = RamReader(page_size, gpa, self._batch, self._footers)
        return config

    def _read_section(self, inbox: Inbox, kind: Kind) -> Generator[Need | Event, None, None]:
        head = yield from read_head(inbox, kind, self._known)
        self._known.setdefault(head.section_id, head)
        self._section = head
        if head.idstr == RAM_IDSTR:
            if self._mapped:
                found = "found the capability mapped-ram: pages stand at fixed places of the file, not in the stream"
                raise ProtocolError(inbox.offset, f"payload of {head}", f"RAM in the stream, {found}")
            yield from self._ram.section(inbox, head)
        elif self._schema.iterable(head.idstr, head.instance_id) or head.idstr.endswith("/vfio"):
            records = yield from read_records(inbox, head, self._schema, self._limit)
            yield from self._footers.check(inbox, head)
            yield DeviceSection(head, records)
        else:
            payload = yield from measured(inbox, head, self._schema, self._limit, self._footers.mark(head.section_id))
            yield from self._footers.check(inbox, head)
            yield Section(head, payload)


def _read_description(inbox: Inbox, limit: int) -> Steps[VmDescription]:
    offset = inbox.offset
    _, length = VMDESC_HEAD.unpack((yield from take(inbox, VMDESC_HEAD.size, "VM description")))
    if length > limit:
        raise ProtocolError(offset + 1, "VM description", f"at most {limit} bytes, found {length}")
    return VmDescription((yield from take(inbox, length, "VM description")), offset)
