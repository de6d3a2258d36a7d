"""What may stand behind the end of a stream that is stored.

Zeros are no part of it: they fill up a block device, or the last cluster of an image.

With COLO the source goes on behind the end, with messages, a u32 each, big-endian. For each checkpoint (QEMU 7.2 and
11.1; a source of 11.1 does not say ENABLE_COLO before)::

    1 CHECKPOINT_REQUEST
    3 VMSTATE_SEND, and sections: RAM that was written since, END of it and of other iterable devices, EOF
    4 VMSTATE_SIZE, u64 size, and as many bytes: FULL of every device, EOF

The destination answers with 0 CHECKPOINT_READY at the beginning, and then with 2 CHECKPOINT_REPLY to a request, 5
VMSTATE_RECEIVED and 6 VMSTATE_LOADED to a state.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.unread import Need, PushReader, Steps, Unread, take

_U32: Final = Struct(">I")
_U64: Final = Struct(">Q")


@dataclass(frozen=True, slots=True)
class Padding:
    """Zeros behind the stream's end: it was stored on a block device, or in whole clusters.

    Arguments:
        size: how many bytes.
        offset: where they began.
    """

    size: int
    offset: int = 0


class CheckpointStep(IntEnum):
    """The messages of COLO that a source sends."""

    CHECKPOINT_REQUEST = 1
    VMSTATE_SEND = 3
    VMSTATE_SIZE = 4


@dataclass(frozen=True, slots=True)
class CheckpointMessage:
    """A message of COLO's behind the stream's end.

    Arguments:
        step: which one.
        size: with VMSTATE_SIZE, how many bytes of devices' sections follow; else 0.
        offset: where it began.
    """

    step: CheckpointStep
    size: int = 0
    offset: int = 0


def padding(unread: Unread) -> Steps[Padding]:
    """Pass over zeros, to the end of the input."""
    offset = unread.offset
    while not unread.ended or unread.available:
        piece = bytes(unread.first())
        zeros = len(piece) - len(piece.lstrip(b"\0"))
        unread.skip(zeros)
        if zeros < len(piece):
            right = f"zeros or nothing behind the stream's end at byte {offset}"
            raise ProtocolError(unread.offset, "end of the stream", f"{right}, found {piece[zeros]:02x}")
        if not unread.available:
            yield Need(1, "end of the stream", clean=True, retry_at_end=True)
    return Padding(unread.offset - offset, offset)


class CheckpointReply(IntEnum):
    """The messages of COLO that a destination sends."""

    CHECKPOINT_READY = 0
    CHECKPOINT_REPLY = 2
    VMSTATE_RECEIVED = 5
    VMSTATE_LOADED = 6


def begins_checkpoint(unread: Unread) -> Steps[bool]:
    """Whether a checkpoint of COLO begins here, behind the stream's end, and not zeros."""
    if unread.available < _U32.size:
        yield Need(_U32.size, "end of the stream", retry_at_end=True)
    first = bytes(unread.peek(min(_U32.size, unread.available)))
    return first == _U32.pack(CheckpointStep.CHECKPOINT_REQUEST)


def read_checkpoint_message(unread: Unread, step: CheckpointStep) -> Steps[CheckpointMessage]:
    """Read one message of COLO's; behind a request there may be none, if the destination did not reply.

    Raises:
        ProtocolError: it is another one.
    """
    offset, item = unread.offset, f"message {step.name} of COLO"
    if unread.available < _U32.size:
        yield Need(_U32.size, item, clean=step is CheckpointStep.VMSTATE_SEND)
    (number,) = _U32.unpack(unread.take(_U32.size))
    if number != step:
        raise ProtocolError(offset, item, f"{step:d}, found {number}")
    size = 0
    if step is CheckpointStep.VMSTATE_SIZE:
        (size,) = _U64.unpack((yield from take(unread, _U64.size, item)))
    return CheckpointMessage(step, size, offset)


def checkpoint_replies(offset: int) -> PushReader[CheckpointReply]:
    """A reader of what a destination says with COLO, from a byte of the return path on."""
    unread = Unread(offset)
    return PushReader(unread, _replies(unread))


def _replies(unread: Unread) -> Generator[Need | CheckpointReply, None, None]:
    item = "reply of COLO"
    while True:
        if not unread.available:
            yield Need(1, item, clean=True)
        offset = unread.offset
        (number,) = _U32.unpack((yield from take(unread, _U32.size, item)))
        if number not in set(CheckpointReply):
            raise ProtocolError(offset, item, f"0, 2, 5 or 6, found {number}")
        yield CheckpointReply(number)


def checkpoint_message(event: CheckpointMessage) -> bytes:
    """The bytes of a message of COLO's."""
    size = _U64.pack(event.size) if event.step is CheckpointStep.VMSTATE_SIZE else b""
    return _U32.pack(event.step) + size
