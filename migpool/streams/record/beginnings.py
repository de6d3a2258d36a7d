"""How the connections of a migration begin, as far as that can be told from their first bytes.

A main channel begins with its header, the machine's configuration, and something behind it: a source goes on at once,
or as soon as its multifd channels are there. A multifd channel begins with 64 bytes. Who says less, or something else,
is no source.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.commands import COMMAND, Command, CommandKind, LaterCommand, plausible_command, read_command
from migpool.wire.configuration import CONFIGURATION, read_configuration
from migpool.wire.multifd import INITIAL_SIZE, MAGIC, parse_initial_packet
from migpool.wire.sections import Kind
from migpool.wire.stream import FILE_MAGIC, POSTCOPY_RESUMED, TLS_HANDSHAKE, header
from migpool.wire.unread import Unread

ENOUGH: Final = 4096
"""Bytes by which a connection has said what it is."""
_MULTIFD_MAGIC: Final = MAGIC.to_bytes(4, "big")
_HEAD: Final = len(header())
_MAGICS: Final = (FILE_MAGIC, _MULTIFD_MAGIC, TLS_HANDSHAKE, POSTCOPY_RESUMED)
_SECTIONS: Final = frozenset(map(int, Kind))


class Begins(Enum):
    """How a connection begins."""

    MAIN = auto()
    MULTIFD = auto()
    TLS = auto()
    RESUMED = auto()
    """A postcopy goes on, after a break, on a new main channel."""
    SILENT = auto()
    """Nothing has been said on it, or pages of a postcopy."""
    PARTLY = auto()
    """Too little has been said yet."""
    GREETED = auto()
    """The whole configuration of a main channel has been said, and nothing behind it."""


def begins(first: bytes) -> Begins | None:
    """What a connection is that begins so; ``None``: nothing of a migration's begins so.

    Arguments:
        first: at most ``ENOUGH`` bytes.
    """
    if first.startswith(TLS_HANDSHAKE):
        return Begins.TLS
    if first.startswith(POSTCOPY_RESUMED):
        return Begins.RESUMED
    if first.startswith(_MULTIFD_MAGIC):
        if len(first) < INITIAL_SIZE:
            return Begins.PARTLY
        try:
            parse_initial_packet(first)
        except ProtocolError:
            return None
        return Begins.MULTIFD
    if first.startswith(FILE_MAGIC):
        return _main(first)
    return Begins.PARTLY if any(magic.startswith(first) for magic in _MAGICS) else None


def _main(first: bytes) -> Begins | None:
    unread = Unread()
    unread.feed(first[_HEAD:])
    if not unread.available:
        return Begins.PARTLY
    try:
        # Machines of the oldest types have no configuration.
        need = next(read_configuration(unread, later=True), None) if unread.peek(1)[0] == CONFIGURATION else None
    except ProtocolError:
        return None
    if need is not None:
        return Begins.MAIN if len(first) >= ENOUGH else Begins.PARTLY if unread.available else Begins.GREETED
    behind = bytes(unread.peek(unread.available))
    return Begins.MAIN if behind[0] in _SECTIONS or plausible_command(behind) else None


def is_greeting(head: bytes) -> bool:
    """Whether a main channel has said nothing but its configuration and commands, and not that it gives up.

    So does every source before it has anything to move, and whoever knows how one begins.

    Arguments:
        head: all that it has said, of which the last item may be cut.
    """
    unread = Unread()
    unread.feed(head[_HEAD:])
    try:
        if unread.available and unread.peek(1)[0] == CONFIGURATION:
            next(read_configuration(unread, later=True), None)
        while unread.available:
            if unread.peek(1)[0] != COMMAND:
                return False
            try:
                next(read_command(unread, ENOUGH, later=True))
                return True  # it was cut
            except StopIteration as ended:
                said = ended.value
            if not isinstance(said, Command | LaterCommand) or (
                isinstance(said, Command) and said.kind is CommandKind.FAILED
            ):
                return False
    except ProtocolError:
        return False
    return True
