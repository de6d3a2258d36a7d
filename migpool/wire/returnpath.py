"""The return path: messages from destination to source, on the main channel's own connection.

Each is u16 type, u16 length, data; at most 512 bytes of data; big-endian. QEMU 10.0 has these::

    1 SHUT            u32 error: 0 the machine runs at the destination, else it failed. The last message
    2 PONG            u32: the value of the PING that it answers
    3 REQ_PAGES_ID    u64 address, u32 length, u8 n, block name[n]
    4 REQ_PAGES       u64 address, u32 length, of the block asked for before
    5 RECV_BITMAP     u8 n, block name[n]
    6 RESUME_ACK      u32 value
    7 SWITCHOVER_ACK  nothing: the destination is ready for the machine to stop

A destination of a plain migration says SWITCHOVER_ACK, PONG 1, SHUT 0 if the machine's type is of QEMU 11.0 or before,
and PONG 1, SHUT 0 if it is of a later one: there only a device's initial data calls for SWITCHOVER_ACK, one for each
device, and one that nobody waits for is an error at the source. These are this project's own, with type numbers
("MP") far from QEMU's::

    4d50 GRANT    u32 device, u32 limit       the first index of the device that may not be sent yet
    4d51 WELCOME  u32 chunk, u32 devices      the longest chunk, 4 KiB to 64 MiB, and how many devices are expected
    4d52 RUNNING  boot id[16], u64 ns         when the machine ran, by the CLOCK_MONOTONIC of that boot
    4d53 FAILED   UTF-8 text, 1 to 480 bytes  the destination's reason in one line; SHUT 1 follows
    4d54 DIGEST   u32 place, digest[32]       what a device's state is at the destination, after RUNNING; all zero: none

A source offers its own ones by naming :data:`CREDITS_CAPABILITY` among the capabilities of its configuration; a
destination that does not know the name refuses the stream, as QEMU does with every capability that it does not know. A
source that sends devices that are not iterable over the multifd channels names :data:`DESCRIBED_CAPABILITY` too, one
that sends there what iterable devices give while they run :data:`LIVE_CAPABILITY`: an empty PART section then says
that a device has chunks in this round, of which one without a byte is the last. A reader takes own messages only if it
was told that both ends agreed on them.

The ``offset`` of every message says where in the return path it began; it is not written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Final, TypeAlias

from migpool.errors import ProtocolError
from migpool.wire.reason import REASON_LIMIT, decode_reason, encode_reason
from migpool.wire.sections import counted
from migpool.wire.unread import Buffer, Need, PushReader, Unread

CREDITS_CAPABILITY: Final = "x-migpool-credits"
DESCRIBED_CAPABILITY: Final = "x-migpool-multifd-vmsd"
LIVE_CAPABILITY: Final = "x-migpool-multifd-live"
CAPABILITIES: Final[Mapping[str, str]] = {
    CREDITS_CAPABILITY: "the destination says how much it has room for",
    DESCRIBED_CAPABILITY: "configs of devices that are not iterable cross over the multifd channels, version first",
    LIVE_CAPABILITY: "what iterable devices give while they run crosses over the multifd channels, round by round",
}
"""What this project's own capabilities mean, for a reader."""
DATA_LIMIT: Final = 512
DIGEST_SIZE: Final = 32

SMALLEST_CHUNK: Final = 4096
LONGEST_CHUNK: Final = 64 << 20
MOST_DEVICES: Final = 65535
_OWN: Final = 0x4D50
_TLS_ALERT: Final = 0x1503
_HEAD = struct.Struct(">HH")
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


@dataclass(frozen=True, slots=True)
class GrantMessage:
    """Room at the destination for more chunks of one device.

    Arguments:
        device: the device's number, from 0: the iterable ones in the order of the START sections of the main channel,
            then those that are not iterable and cross over the multifd channels, in the order of their loading.
        limit: the first index that may not be sent yet; a later grant for a device never lowers it.
    """

    device: int
    limit: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """The destination's terms, before anything is sent on the multifd channels.

    Arguments:
        chunk: the longest chunk that it accepts, in bytes without headers.
        devices: how many devices it expects.
    """

    chunk: int
    devices: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """The machine runs at the destination.

    Arguments:
        boot_id: the 16 bytes of the kernel's boot id there: clocks compare only within one boot of one kernel.
        nanoseconds: CLOCK_MONOTONIC when it ran.
    """

    boot_id: bytes
    nanoseconds: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """The destination's reason for giving up.

    Arguments:
        reason: one line. Line breaks become spaces and the text is cut to 480 bytes when it is written.
    """

    reason: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Digest:
    """What a device's state is at the destination, for the source to compare with what it saved.

    Arguments:
        place: the device's place in the machine's order, from 0.
        digest: 32 bytes; all zero if the device has no digest.
    """

    place: int
    digest: bytes
    offset: int = 0


Message: TypeAlias = (
    Shut
    | Pong
    | RequestPages
    | RecvBitmap
    | ResumeAck
    | SwitchoverAck
    | GrantMessage
    | Welcome
    | Running
    | Failed
    | Digest
)


class _Kind(IntEnum):
    SHUT = 1
    PONG = 2
    REQ_PAGES_ID = 3
    REQ_PAGES = 4
    RECV_BITMAP = 5
    RESUME_ACK = 6
    SWITCHOVER_ACK = 7
    GRANT = _OWN
    WELCOME = _OWN + 1
    RUNNING = _OWN + 2
    FAILED = _OWN + 3
    DIGEST = _OWN + 4


def encode(message: Message) -> bytes:
    """The bytes of one message.

    Raises:
        ValueError: a block name is not 1 to 255 bytes of ASCII, a boot id or digest has the wrong length, or a reason
            is empty.
        struct.error: a number does not fit its field.
    """
    fixed = _FIXED.get(type(message))
    if fixed is not None:
        kind, layout, names = fixed
        values = tuple([getattr(message, name) for name in names])
        data = layout.pack(*values)
        if layout.unpack(data) != values:
            raise ValueError(f"a {kind.name} message has {layout.size} bytes of data, and {values} are others")
    elif isinstance(message, RequestPages):
        kind = _Kind.REQ_PAGES if message.block is None else _Kind.REQ_PAGES_ID
        data = _PAGES.pack(message.address, message.length)
        data += b"" if message.block is None else counted(message.block, "a block name")
    elif isinstance(message, RecvBitmap):
        kind, data = _Kind.RECV_BITMAP, counted(message.block, "a block name")
    else:
        assert isinstance(message, Failed)
        kind, data = _Kind.FAILED, encode_reason(message.reason)
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
            if kind not in _READERS or (kind >= _OWN and not self.extension):
                why = " (an own message of migpool's, which was not agreed on)" if kind in _READERS else ""
                if kind == _TLS_ALERT and not offset:
                    why = ", an alert of TLS: the destination uses it, so give --tls here, too"
                raise ProtocolError(offset, "return path message", f"a type of 1 to 7, found {kind:#x}{why}")
            wanted, parse = _READERS[kind]
            if length > DATA_LIMIT or wanted not in (None, length):
                right = f"at most {DATA_LIMIT}" if wanted is None else str(wanted)
                item = f"{_Kind(kind).name} message"
                raise ProtocolError(offset + 2, item, f"a length of {right} bytes, found {length}")
            if unread.available < _HEAD.size + length:
                yield Need(_HEAD.size + length, f"{_Kind(kind).name} message")
            yield parse(unread.take(_HEAD.size + length)[_HEAD.size :], offset)


def _request_pages_id(data: Buffer, offset: int) -> RequestPages:
    if len(data) <= _PAGES.size:
        raise ProtocolError(offset + 2, "REQ_PAGES_ID message", f"more than {_PAGES.size} bytes, found {len(data)}")
    address, length = _PAGES.unpack_from(data)
    return RequestPages(address, length, _block(data, _PAGES.size, offset, _Kind.REQ_PAGES_ID), offset)


def _block(data: Buffer, at: int, offset: int, kind: _Kind) -> str:
    raw = bytes(data[at + 1 :])
    if len(data) <= at or data[at] != len(raw) or not raw or not raw.isascii():
        right = f"a counted ASCII block name, found {bytes(data[at:])!r}"
        raise ProtocolError(offset + 4 + at, f"{kind.name} message", right)
    return raw.decode("ascii")


def _failed(data: Buffer, offset: int) -> Failed:
    if not 0 < len(data) <= REASON_LIMIT:
        raise ProtocolError(offset + 2, "FAILED message", f"1 to {REASON_LIMIT} bytes of text, found {len(data)}")
    return Failed(decode_reason(data, offset + _HEAD.size, "FAILED message"), offset)


_FIXED: Final[Mapping[type[Message], tuple[_Kind, struct.Struct, tuple[str, ...]]]] = {
    make: (kind, struct.Struct(f">{layout}"), tuple(field.name for field in fields(make))[:-1])
    for kind, make, layout in (
        (_Kind.SHUT, Shut, "I"),
        (_Kind.PONG, Pong, "I"),
        (_Kind.RESUME_ACK, ResumeAck, "I"),
        (_Kind.SWITCHOVER_ACK, SwitchoverAck, ""),
        (_Kind.GRANT, GrantMessage, "II"),
        (_Kind.WELCOME, Welcome, "II"),
        (_Kind.RUNNING, Running, "16sQ"),
        (_Kind.DIGEST, Digest, f"I{DIGEST_SIZE}s"),
    )
}
"""The messages of one layout: their kind, the layout of their data, and the names of its fields."""


_Reader: TypeAlias = Callable[[Buffer, int], Message]


_RANGES: Final[Mapping[Callable[..., Message], tuple[tuple[str, int, int, int], ...]]] = {
    ResumeAck: (("value", 0, 1, 1),),
    GrantMessage: (("device", 0, 0, MOST_DEVICES),),
    Welcome: (("chunk", 0, SMALLEST_CHUNK, LONGEST_CHUNK), ("devices", 4, 0, MOST_DEVICES)),
    Running: (("nanoseconds", 16, 1, (1 << 63) - 1),),
    Digest: (("place", 0, 0, MOST_DEVICES),),
}
"""The fields that cannot have every value: the name, where in the data it stands, the least and the greatest value."""


def _fixed(layout: struct.Struct, make: Callable[..., Message]) -> tuple[int | None, _Reader]:
    ranges = _RANGES.get(make, ())

    def read(data: Buffer, offset: int) -> Message:
        message = make(*layout.unpack(data), offset)
        for name, at, least, most in ranges:
            if not least <= (found := getattr(message, name)) <= most:
                item = f"{name} of {type(message).__name__}"
                raise ProtocolError(offset + _HEAD.size + at, item, f"{least} to {most}, found {found}")
        return message

    return layout.size, read


_READERS: Final[Mapping[int, tuple[int | None, _Reader]]] = {
    **{kind: _fixed(layout, make) for make, (kind, layout, _) in _FIXED.items()},
    _Kind.REQ_PAGES: _fixed(_PAGES, lambda address, length, at: RequestPages(address, length, None, at)),
    _Kind.REQ_PAGES_ID: (None, _request_pages_id),
    _Kind.RECV_BITMAP: (None, lambda data, at: RecvBitmap(_block(data, 0, at, _Kind.RECV_BITMAP), at)),
    _Kind.FAILED: (None, _failed),
}
"""For each kind, how many bytes its data has, and what makes a message of data at an offset."""
