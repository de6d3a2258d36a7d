"""The main channel as the source writes it: one item at a time, from any thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

from migpool.wire.unread import Buffer


class MainChannel:
    """Writes items to the main channel: a socket, or a file that holds the whole stream.

    Arguments:
        put: writes all of some buffers there.
    """

    def __init__(self, put: Callable[[Sequence[Buffer]], None]) -> None:
        self._put = put
        self._lock = Lock()

    def write(self, item: Buffer | Sequence[Buffer]) -> None:
        """Write one item whole.

        Raises:
            TimeLimitExceeded: the destination takes nothing.
            PeerGone: the connection is gone.
            MigpoolError: the disk takes no more.
        """
        buffers = [item] if isinstance(item, bytes | bytearray | memoryview) else item
        with self._lock:
            self._put(buffers)
