"""Bytes that have arrived and wait to be understood, and the loop that turns a parser into a push reader.

A parser here is a generator: it takes bytes from an :class:`Unread`, yields a :class:`Need` where too few have arrived,
and yields an event where it understood something. So each packet kind is one plain function from top to bottom, and
still no byte is looked at twice when the input comes in small pieces.

Guarantees:

* Nothing is allocated because a length field says so; memory grows only with bytes that arrived and are not yet taken.
* Input that cannot change (``bytes``, read-only views) is kept, not copied; input that can change is copied once, so a
  caller may reuse its receive buffer at once.
* What lies within one piece of input is handed out as a view of it; what straddles pieces is joined once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from migpool.errors import ProtocolError, UsageError

E = TypeVar("E")
T = TypeVar("T")
Buffer: TypeAlias = bytes | bytearray | memoryview
Steps: TypeAlias = "Generator[Need, None, T]"  # a parsing function that yields needs alone and returns a T

# Neighbours that are together no longer than this are joined as they come: a piece has a cost of its own, and a peer
# that sends single bytes must not make the queue many times larger than what waits in it.
_SMALL: Final = 4096


@dataclass(frozen=True, slots=True)
class Need:
    """A parser cannot go on yet.

    Arguments:
        count: how many bytes must be waiting before it is asked again.
        item: what it is reading, for the error message of a truncated input.
        clean: the input may end here, provided that nothing waits.
        retry_at_end: it wants to be asked once more when the input has ended, with fewer bytes than ``count``.
    """

    count: int
    item: str
    clean: bool = False
    retry_at_end: bool = False


class Unread:
    """A queue of bytes in the pieces in which they came.

    Attributes:
        available: how many bytes wait.
        offset: how many bytes have been taken: where in the channel the next one stands.
        ended: no more will come.
    """

    __slots__ = ("_pieces", "available", "ended", "offset")

    def __init__(self, offset: int = 0) -> None:
        self._pieces: deque[memoryview] = deque()
        self.available = 0
        self.offset = offset
        self.ended = False

    def feed(self, data: Buffer) -> None:
        """Append ``data``. It is kept without a copy if it is read-only, and copied if it is not."""
        view = memoryview(data)
        if view.ndim != 1 or view.itemsize != 1 or not view.contiguous:
            raise UsageError("a reader must be fed contiguous bytes: cast the view to bytes first")
        if not view.readonly:
            view = memoryview(bytes(view))
        if not len(view):
            return
        self.available += len(view)
        if self._pieces and len(self._pieces[-1]) + len(view) <= _SMALL:
            view = memoryview(b"".join((self._pieces.pop(), view)))
        self._pieces.append(view.cast("B") if view.format != "B" else view)

    def peek(self, count: int) -> memoryview:
        """The next ``count`` bytes, which must be waiting, as one read-only view; they stay."""
        if count == 0:
            return memoryview(b"")
        if len(self._pieces[0]) < count:
            self._join(count)
        return self._pieces[0][:count]

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes, which must be waiting, as one read-only view; they are consumed."""
        view = self.peek(count)
        self.skip(count)
        return view

    def skip(self, count: int) -> None:
        """Consume ``count`` bytes, which must be waiting."""
        self.available -= count
        self.offset += count
        while count:
            first = self._pieces[0]
            if len(first) > count:
                self._pieces[0] = first[count:]
                return
            count -= len(first)
            self._pieces.popleft()

    def leap(self, count: int) -> None:
        """Go on ``count`` bytes behind the next one: those that wait of them are dropped, the others will not come."""
        self.offset += count - self.available
        self.skip(self.available)

    def first(self) -> memoryview:
        """What waits in the first piece alone; empty if nothing waits."""
        return self._pieces[0] if self._pieces else memoryview(b"")

    def last(self, count: int) -> bytes:
        """The last ``count`` bytes that wait (all, if fewer wait), copied; cheap while ``count`` is small."""
        parts: list[memoryview] = []
        for piece in reversed(self._pieces):
            if count <= 0:
                break
            parts.append(piece[-count:])
            count -= len(parts[-1])
        return b"".join(reversed(parts))

    def _join(self, count: int) -> None:
        parts: list[memoryview] = []
        missing = count
        while missing:
            piece = self._pieces.popleft()
            if len(piece) > missing:
                self._pieces.appendleft(piece[missing:])
                piece = piece[:missing]
            parts.append(piece)
            missing -= len(piece)
        self._pieces.appendleft(memoryview(b"".join(parts)))


def take(unread: Unread, count: int, item: str) -> Steps[memoryview]:
    """Wait for ``count`` bytes and take them; ``item`` names them if the input ends before."""
    if unread.available < count:
        yield Need(count, item)
    return unread.take(count)


def skip(unread: Unread, count: int, item: str) -> Steps[None]:
    """Pass over ``count`` bytes as they come, without keeping them."""
    while count:
        if not unread.available:
            yield Need(1, item)
        passed = min(count, unread.available)
        unread.skip(passed)
        count -= passed


class PushReader(Generic[E]):
    """Feed bytes, get events: the loop around one parser.

    Arguments:
        unread: the queue the parser takes from.
        walk: the parser.
    """

    __slots__ = ("_error", "_need", "_ready", "_unread", "_walk")

    def __init__(self, unread: Unread, walk: Generator[Need | E, None, None]) -> None:
        self._unread = unread
        self._walk = walk
        self._need = Need(0, "input")
        self._ready: deque[E] = deque()
        self._error: Exception | None = None

    @property
    def offset(self) -> int:
        """How many bytes have been understood so far."""
        return self._unread.offset

    @property
    def pending(self) -> int:
        """How many bytes were fed and are not yet understood."""
        return self._unread.available

    def ahead(self, count: int) -> bytes:
        """Bytes that were fed and are not yet understood, copied: the first ``count``, or as many as there are."""
        return bytes(self._unread.peek(min(count, self.pending)))

    @property
    def waits_for(self) -> str:
        """What it was reading when the input gave out, once there is no event left."""
        return self._need.item

    def feed(self, data: Buffer) -> None:
        """Add input. Read-only input is kept by reference and shows through in events; other input is copied.

        Raises:
            UsageError: the input has been declared ended, or is not plain bytes.
        """
        if self._unread.ended:
            raise UsageError("the input was declared ended: make a new reader for another stream")
        self._unread.feed(data)

    def next_event(self) -> E | None:
        """The next event, or None if more input is needed for it.

        Raises:
            ProtocolError: the bytes are not what the format allows. It is raised again by every later call, as is
                whatever the reader's schema raises.
        """
        if self._ready:
            return self._ready.popleft()
        return self._advance()

    def events(self) -> Iterator[E]:
        """All events that the input so far allows."""
        while (event := self.next_event()) is not None:
            yield event

    def read(self, pieces: Iterable[Buffer]) -> Iterator[E]:
        """All events of a whole input.

        Raises:
            ProtocolError: the bytes are not what the format allows, or end in the middle of something.
        """
        for piece in pieces:
            self.feed(piece)
            yield from self.events()
        self.end()
        yield from self.events()

    def end(self) -> None:
        """Declare that no more input comes. Events that were still to be had remain to be had.

        Raises:
            ProtocolError: the input ended in the middle of something.
        """
        self._unread.ended = True
        while (event := self._advance()) is not None:
            self._ready.append(event)
        unread, need = self._unread, self._need
        if need.clean and not unread.available:
            return
        self._error = ProtocolError(
            unread.offset, need.item, f"{need.count} bytes or more, found {unread.available} and the end of the input"
        )
        raise self._error

    def _advance(self) -> E | None:
        if self._error is not None:
            raise self._error
        unread = self._unread
        while True:
            need = self._need
            if unread.available < need.count and not (unread.ended and need.retry_at_end):
                return None
            try:
                step = next(self._walk)
            except Exception as error:  # the schema's, too: what was being read is lost, and nothing after it can be
                self._error = error
                raise
            if not isinstance(step, Need):
                self._need = Need(0, need.item)
                return step
            self._need = step
