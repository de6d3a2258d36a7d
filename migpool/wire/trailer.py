"""What may stand behind the end of a stream that is stored.

Zeros are no part of it: they fill up a block device, or the last cluster of an image. With COLO the source goes on
behind the end: with messages, u32 each, and the state of later checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from migpool.errors import ProtocolError
from migpool.wire.unread import Need, Steps, Unread


@dataclass(frozen=True, slots=True)
class Padding:
    """Zeros behind the stream's end: it was stored on a block device, or in whole clusters.

    Arguments:
        size: how many bytes.
        offset: where they began.
    """

    size: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """What a source with COLO sends behind the stream's end: messages, and the state of later checkpoints, not walked.

    Arguments:
        size: how many bytes.
        offset: where they began.
    """

    size: int
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


def checkpoints(unread: Unread) -> Steps[Checkpoints]:
    """Pass over all that follows."""
    offset = unread.offset
    while unread.available or not unread.ended:
        unread.skip(unread.available)
        yield Need(1, "checkpoints", clean=True, retry_at_end=True)
    return Checkpoints(unread.offset - offset, offset)
