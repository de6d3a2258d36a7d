"""How long a payload is: the question that a section leaves open, put to the schema.

A payload is followed by a mark that is known beforehand (a section's footer), but the same bytes may occur inside it.
So the mark says when to ask, and the schema's answer decides. Guarantees:

* A schema is asked again only when the mark has come in since, or the waiting bytes have doubled, or the input has
  ended. A payload that is whole has its mark behind it, so a reader on a live connection never waits for bytes that the
  peer will not send; and however small the pieces are, the work stays linear in the input.
* What waits is bounded: a payload over the limit is an error, also before its length is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from migpool.errors import ProtocolError
from migpool.wire.unread import Need, Steps, Unread, take

if TYPE_CHECKING:
    from migpool.wire.sections import Kind, SectionHead

DEFAULT_LIMIT: Final = 256 << 20
"""Bytes that one payload may have, unless a reader is told otherwise."""

_ASKS_PER_DOUBLING: Final = 64


class Schema(Protocol):
    """What knows the layout of devices' payloads. RAM is not asked for: a reader knows it."""

    def iterable(self, idstr: str, instance_id: int, /) -> bool:
        """Say whether this device's sections consist of records (:mod:`migpool.wire.records`)."""
        ...

    def measure(self, idstr: str, instance_id: int, version: int, kind: Kind, data: memoryview, /) -> int | None:
        """Say how long the payload is that begins ``data``.

        Arguments:
            idstr, instance_id, version, kind: the section's head.
            data: bytes from the payload's beginning on, read-only. It goes on after the payload, or ends before.

        Returns:
            the length in bytes; it may be more than ``data`` holds, if it is certain already. None if more bytes are
            needed to tell.

        Raises:
            ProtocolError: no payload of this device begins so; its offset is counted from the beginning of ``data``.
        """
        ...


def measured(unread: Unread, head: SectionHead, schema: Schema, limit: int, mark: bytes) -> Steps[memoryview]:
    """Read a payload whose length ``schema`` knows; ``mark``, which may be empty, follows it and is left in place.

    Raises:
        ProtocolError: the schema refuses the bytes, or the payload is longer than ``limit``.
    """
    item = f"payload of {head}"
    if unread.available < max(1, len(mark)):
        yield Need(max(1, len(mark)), item)
    asked = doubled = len(unread.first())
    asks = 1
    size = _ask(unread, head, schema, unread.first())
    while size is None:
        if asked > limit + len(mark):
            raise ProtocolError(unread.offset, item, f"at most {limit} bytes, found no end within {asked}")
        yield from _until_worth_asking(unread, asked, 2 * doubled, mark if asks < _ASKS_PER_DOUBLING else None, item)
        ended = unread.ended
        asked = unread.available
        asks += 1
        if asked >= 2 * doubled:
            doubled, asks = asked, 0
        size = _ask(unread, head, schema, unread.peek(asked))
        if size is None and ended:
            raise ProtocolError(unread.offset, item, f"a whole payload, found {asked} bytes and the end of the input")
    if not 0 <= size <= limit:
        raise ProtocolError(unread.offset, item, f"at most {limit} bytes, found {size}")
    return (yield from take(unread, size, item))


def _ask(unread: Unread, head: SectionHead, schema: Schema, data: memoryview) -> int | None:
    try:
        return schema.measure(head.idstr, head.instance_id, head.version, head.kind, data)
    except ProtocolError as error:
        raise ProtocolError(unread.offset + error.offset, error.item, error.expected) from error


def _until_worth_asking(unread: Unread, asked: int, enough: int, mark: bytes | None, item: str) -> Steps[None]:
    """Wait for ``enough`` bytes, or for ``mark`` beyond the first ``asked``, or for the end of the input."""
    searched = asked
    while unread.available < enough and not unread.ended:
        waiting = unread.available
        if mark is not None and waiting > searched and mark in unread.last(waiting - searched + len(mark) - 1):
            return
        searched = waiting
        yield Need(waiting + 1, item, retry_at_end=True)
