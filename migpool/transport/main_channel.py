"""The main channel as the source writes it: one item at a time, from any thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

from migpool.wire.unread import Buffer

WAIT = 0.05
"""Seconds that the last item waits for one that is being written."""


class MainChannel:
    """Writes items to the main channel: a socket, or a file that holds the whole stream.

    Arguments:
        put: writes all of some buffers there.
        put_last: writes a few bytes there without a wait, or not.
    """

    def __init__(
        self, put: Callable[[Sequence[Buffer]], None], put_last: Callable[[Buffer], None] = lambda _: None
    ) -> None:
        self._put = put
        self._put_last = put_last
        self._lock = Lock()
        self._open = True
        """Whether the last item was written to its end, and more may follow."""

    def write(self, item: Buffer | Sequence[Buffer]) -> None:
        """Write one item whole.

        Raises:
            TimeLimitExceeded: the destination takes nothing.
            PeerGone: the connection is gone.
            MigpoolError: the disk takes no more.
        """
        buffers = [item] if isinstance(item, bytes | bytearray | memoryview) else item
        with self._lock:
            opened, self._open = self._open, False
            self._put(buffers)
            self._open = opened

    def write_last(self, item: Buffer) -> None:
        """Write one item behind all others, once, unless one of them is still being written or was left half."""
        if not self._lock.acquire(timeout=WAIT):
            return
        try:
            if self._open:
                self._open = False
                self._put_last(item)
        finally:
            self._lock.release()
