"""Commands on the main channel: u8 08, u16 command, u16 length, data; no footer; big-endian, as in QEMU 10.0.

PACKAGED alone is more than that: its data is a u32, and as many bytes follow outside of the command. They hold sections
and commands of their own, without a file header.

FAILED is this project's own, with a number far from QEMU's: why the source gives up, the last that it says. It is for a
destination that has said WELCOME on the return path, and so knows it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.reason import REASON_LIMIT, decode_reason, encode_reason
from migpool.wire.sections import ascii_text
from migpool.wire.unread import Buffer, Steps, Unread, take

COMMAND: Final = 0x08

_HEAD = struct.Struct(">BHH")
_U32 = struct.Struct(">I")

_LARGEST: Final = 0xFF
PACKAGE_AT: Final = _HEAD.size + _U32.size
"""How far behind its command a package begins, in bytes."""


class CommandKind(IntEnum):
    """The commands."""

    OPEN_RETURN_PATH = 1
    PING = 2
    POSTCOPY_ADVISE = 3
    POSTCOPY_LISTEN = 4
    POSTCOPY_RUN = 5
    RAM_DISCARD = 6
    PACKAGED = 7
    ENABLE_COLO = 8
    POSTCOPY_RESUME = 9
    RECV_BITMAP = 10
    SWITCHOVER_START = 11
    FAILED = 0x4D53


# How many bytes of data each may have.
_LENGTHS: Final[Mapping[CommandKind, range | tuple[int, ...]]] = {
    CommandKind.OPEN_RETURN_PATH: (0,),
    CommandKind.PING: (4,),
    CommandKind.POSTCOPY_ADVISE: (0, 16),
    CommandKind.POSTCOPY_LISTEN: (0,),
    CommandKind.POSTCOPY_RUN: (0,),
    CommandKind.RAM_DISCARD: range(1, 0x10000),
    CommandKind.PACKAGED: (4,),
    CommandKind.ENABLE_COLO: (0,),
    CommandKind.POSTCOPY_RESUME: (0,),
    CommandKind.RECV_BITMAP: range(2, 257),
    CommandKind.SWITCHOVER_START: (0,),
    CommandKind.FAILED: range(1, REASON_LIMIT + 1),
}


@dataclass(frozen=True, slots=True)
class Command:
    """One command, other than PACKAGED.

    Arguments:
        kind: which one.
        data: its data, of a length that the command may have; the meaning is not looked into.
        offset: where in the channel it began.
    """

    kind: CommandKind
    data: Buffer = b""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Packaged:
    """A PACKAGED command and the bytes that follow it.

    Arguments:
        data: a stream without file header, in one piece; ``StreamReader.inside`` reads it.
        offset: where in the channel the command began; ``data`` begins 9 bytes later.
    """

    data: Buffer
    offset: int = 0


@dataclass(frozen=True, slots=True)
class LaterCommand:
    """A command that is not known here: of a later QEMU.

    Arguments:
        number: its number.
        data: its data.
        offset: where in the channel it began.
    """

    number: int
    data: Buffer = b""
    offset: int = 0


def command(event: Command | LaterCommand) -> bytes:
    """The bytes of a command.

    Raises:
        ValueError: the data has a length that the command cannot have.
    """
    if isinstance(event, LaterCommand):
        return _HEAD.pack(COMMAND, event.number, len(event.data)) + event.data
    if len(event.data) not in _LENGTHS[event.kind] or event.kind is CommandKind.PACKAGED:
        raise ValueError(f"the command {event.kind.name} cannot have {len(event.data)} bytes of data")
    return _HEAD.pack(COMMAND, event.kind, len(event.data)) + event.data


def open_return_path() -> bytes:
    """The command that asks the destination to answer."""
    return command(Command(CommandKind.OPEN_RETURN_PATH))


def ping(value: int) -> bytes:
    """The command that asks for a PONG with the same ``value``, 0 to 2**32 - 1."""
    return command(Command(CommandKind.PING, _U32.pack(value)))


def ping_value(event: Command) -> int:
    """The value of a PING."""
    return int.from_bytes(event.data, "big")


def resumed_block(event: Command) -> str:
    """The block of RAM that a RECV_BITMAP asks for.

    Raises:
        ProtocolError: it is no name.
    """
    return ascii_text(event.data[1:], event.offset + _HEAD.size + 1, f"command {event.kind.name}")


def switchover_start() -> bytes:
    """The command that says that the machine has stopped: device state may be loaded from now on."""
    return command(Command(CommandKind.SWITCHOVER_START))


def failed(reason: str) -> bytes:
    """The command that says why the source gives up.

    Arguments:
        reason: one line. Line breaks become spaces and the text is cut to 480 bytes.
    """
    return command(Command(CommandKind.FAILED, encode_reason(reason)))


def failed_reason(event: Command) -> str:
    """What a FAILED says, as one line.

    Raises:
        ProtocolError: it is no text.
    """
    return decode_reason(event.data, event.offset + _HEAD.size, f"command {event.kind.name}")


def packaged(data: Buffer) -> list[Buffer]:
    """A PACKAGED command: two buffers, of which the second is ``data`` itself."""
    return [_HEAD.pack(COMMAND, CommandKind.PACKAGED, _U32.size) + _U32.pack(len(data)), data]


def read_command(unread: Unread, limit: int, *, later: bool = False) -> Steps[Command | Packaged | LaterCommand]:
    """Read a command; the unread is at its type byte.

    Arguments:
        unread: where from.
        limit: how many bytes a package may have.
        later: also take a command that is not known here.

    Raises:
        ProtocolError: an unknown command, data of a length that it cannot have, a package over the limit.
    """
    offset = unread.offset
    _, number, length = _HEAD.unpack((yield from take(unread, _HEAD.size, "command")))
    try:
        kind = CommandKind(number)
    except ValueError:
        if later and CommandKind.SWITCHOVER_START < number <= _LARGEST:
            return LaterCommand(number, (yield from take(unread, length, f"command {number}")), offset)
        raise ProtocolError(offset + 1, "command", f"a number of 1 to 11, found {number}") from None
    if length not in _LENGTHS[kind]:
        raise ProtocolError(offset + 3, f"command {kind.name}", f"data of {_wanted(kind)} bytes, found {length}")
    data = yield from take(unread, length, f"command {kind.name}")
    if kind is not CommandKind.PACKAGED:
        return Command(kind, data, offset)
    size = int.from_bytes(data, "big")
    if size > limit:
        raise ProtocolError(offset + _HEAD.size, "package", f"at most {limit} bytes, found {size}")
    return Packaged((yield from take(unread, size, "package")), offset)


def plausible_command(data: Buffer) -> bool:
    """Whether a command may begin so: of a number that is known, with as much data as it may have.

    Arguments:
        data: from the type byte on; of what is missing nothing is said.
    """
    if len(data) < _HEAD.size:
        begun = bytes(data[1:3])
        return data[0] == COMMAND and any(kind.to_bytes(2, "big").startswith(begun) for kind in _LENGTHS)
    first, number, length = _HEAD.unpack_from(data)
    return first == COMMAND and number in _LENGTHS and length in _LENGTHS[CommandKind(number)]


def _wanted(kind: CommandKind) -> str:
    lengths = _LENGTHS[kind]
    if isinstance(lengths, range):
        return f"{lengths.start} to {lengths.stop - 1}"
    return " or ".join(map(str, lengths))
