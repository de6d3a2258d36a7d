"""The return path: messages from destination to source, on the main channel's own connection.

Each is u16 type, u16 length, data; at most 512 bytes of data; big-endian (QEMU 10.0)::

    1 SHUT            u32 error: 0 the machine runs at the destination, else it failed. The last message
    2 PONG            u32: the value of the PING that it answers
    3 REQ_PAGES_ID    u64 address, u32 length, u8 n, block name[n]
    4 REQ_PAGES       u64 address, u32 length, of the block asked for before
    5 RECV_BITMAP     u8 n, block name[n]
    6 RESUME_ACK      u32 value
    7 SWITCHOVER_ACK  nothing: the destination is ready for the machine to stop

A destination of a plain migration says SWITCHOVER_ACK, PONG 1, SHUT 0. Messages of this project's own are in
:mod:`migpool.wire.extension`; a reader takes them only if it was told that both ends agreed on them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from migpool.errors import ProtocolError
from migpool.wire.extension import OWN_KINDS, OwnMessage, encode_own, fixed
from migpool.wire.sections import counted
from migpool.wire.unread import Buffer, Need, PushReader, Unread

DATA_LIMIT: Final = 512

SHUT: Final = 1
PONG: Final = 2
REQ_PAGES_ID: Final = 3
REQ_PAGES: Final = 4
RECV_BITMAP: Final = 5
RESUME_ACK: Final = 6
SWITCHOVER_ACK: Final = 7

_HEAD = struct.Struct(">HH")
_U32 = struct.Struct(">I")
_PAGES = struct.Struct(">QI")


@dataclass(frozen=True, slots=True)
class Shut:
    """The destination's last word: ``error`` is 0 if the machine runs there."""

    error: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a PING command with the same ``value``."""

    value: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class RequestPages:
    """A wish for RAM in post-copy.

    Arguments:
        address: where in the block, in bytes.
        length: how much, in bytes.
        block: the RAM block; None means the block that was asked for before.
    """

    address: int
    length: int
    block: str | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class RecvBitmap:
    """The bitmap of received pages of ``block`` follows (when a post-copy resumes)."""

    block: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ResumeAck:
    """The destination is ready to resume post-copy; ``value`` is 1."""

    value: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class SwitchoverAck:
    """The destination is ready for the machine to stop."""

    offset: int = 0


Message: TypeAlias = Shut | Pong | RequestPages | RecvBitmap | ResumeAck | SwitchoverAck | OwnMessage


def encode(message: Message) -> bytes:
    """The bytes of one message.

    Raises:
        ValueError: a block name is not 1 to 255 bytes of ASCII, or a field of an own message has the wrong length.
        struct.error: a number does not fit its field.
    """
    match message:
        case Shut(error):
            kind, data = SHUT, _U32.pack(error)
        case Pong(value):
            kind, data = PONG, _U32.pack(value)
        case RequestPages(address, length, block):
            kind = REQ_PAGES if block is None else REQ_PAGES_ID
            data = _PAGES.pack(address, length) + (b"" if block is None else counted(block, "a block name"))
        case RecvBitmap(block):
            kind, data = RECV_BITMAP, counted(block, "a block name")
        case ResumeAck(value):
            kind, data = RESUME_ACK, _U32.pack(value)
        case SwitchoverAck():
            kind, data = SWITCHOVER_ACK, b""
        case _:
            kind, data = encode_own(message)
    return _HEAD.pack(kind, len(data)) + data


class ReturnPathReader(PushReader[Message]):
    """Reads messages from bytes that come in any pieces.

    Arguments:
        extension: both ends agreed on this project's own messages. It may be set later, before they come.
    """

    __slots__ = ("extension",)

    def __init__(self, extension: bool = False) -> None:
        unread = Unread()
        super().__init__(unread, self._messages(unread))
        self.extension = extension

    def _messages(self, unread: Unread) -> Generator[Need | Message, None, None]:
        while True:
            if not unread.available:
                yield Need(1, "return path message", clean=True)
            offset = unread.offset
            if unread.available < _HEAD.size:
                yield Need(_HEAD.size, "return path message")
            kind, length = _HEAD.unpack(unread.peek(_HEAD.size))
            name, wanted, parse = self._kind(kind, offset)
            if length > DATA_LIMIT or wanted not in (None, length):
                right = f"at most {DATA_LIMIT}" if wanted is None else str(wanted)
                raise ProtocolError(offset + 2, f"{name} message", f"a length of {right} bytes, found {length}")
            if unread.available < _HEAD.size + length:
                yield Need(_HEAD.size + length, f"{name} message")
            yield parse(unread.take(_HEAD.size + length)[_HEAD.size :], offset)

    def _kind(self, kind: int, offset: int) -> tuple[str, int | None, Callable[[Buffer, int], Message]]:
        if kind in _KINDS:
            return _KINDS[kind]
        if kind in OWN_KINDS and self.extension:
            return OWN_KINDS[kind]
        why = " (an own message of migpool's, which was not agreed on)" if kind in OWN_KINDS else ""
        raise ProtocolError(offset, "return path message", f"a type of 1 to 7, found {kind:#x}{why}")


def _request_pages_id(data: Buffer, offset: int) -> RequestPages:
    if len(data) <= _PAGES.size:
        raise ProtocolError(offset + 2, "REQ_PAGES_ID message", f"more than {_PAGES.size} bytes, found {len(data)}")
    address, length = _PAGES.unpack_from(data)
    return RequestPages(address, length, _block(data, _PAGES.size, offset, "REQ_PAGES_ID"), offset)


def _block(data: Buffer, at: int, offset: int, kind: str) -> str:
    raw = bytes(data[at + 1 :])
    if len(data) <= at or data[at] != len(raw) or not raw or not raw.isascii():
        raise ProtocolError(
            offset + 4 + at, f"{kind} message", f"a counted ASCII block name, found {bytes(data[at:])!r}"
        )
    return raw.decode("ascii")


_KINDS: Final[Mapping[int, tuple[str, int | None, Callable[[Buffer, int], Message]]]] = {
    SHUT: fixed("SHUT", _U32, Shut),
    PONG: fixed("PONG", _U32, Pong),
    REQ_PAGES_ID: ("REQ_PAGES_ID", None, _request_pages_id),
    REQ_PAGES: fixed("REQ_PAGES", _PAGES, lambda address, length, at: RequestPages(address, length, None, at)),
    RECV_BITMAP: ("RECV_BITMAP", None, lambda data, offset: RecvBitmap(_block(data, 0, offset, "RECV_BITMAP"), offset)),
    RESUME_ACK: fixed("RESUME_ACK", _U32, ResumeAck),
    SWITCHOVER_ACK: fixed("SWITCHOVER_ACK", struct.Struct(""), SwitchoverAck),
}
