"""The return path as the destination writes it: one message at a time, from any thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from threading import Lock

from migpool.errors import MigpoolError, PeerGone
from migpool.flow.window import Grant
from migpool.wire.extension import Failed, GrantMessage
from migpool.wire.returnpath import Message, Shut, encode

ENDED_EARLY = "the source ended the connection early, it failed or was cancelled there"


class ReturnPathWriter:
    """Answers the source.

    Arguments:
        put: sends all of some buffers to the source.

    Attributes:
        extended: whether the source understands this project's own messages; ``None`` until it has said so.
    """

    def __init__(self, put: Callable[[Sequence[bytes]], None]) -> None:
        self._put = put
        self._lock = Lock()
        self.extended: bool | None = None

    def answer(self, message: Message) -> None:
        """Send one message.

        Raises:
            TimeLimitExceeded: the source does not read.
            PeerGone: it is gone.
        """
        with self._lock:
            try:
                self._put([encode(message)])
            except PeerGone as error:
                raise PeerGone(f"{ENDED_EARLY} ({error})") from None

    def grant(self, grant: Grant) -> None:
        """Make a grant known."""
        self.answer(GrantMessage(grant.device, grant.limit))

    def fail(self, reason: BaseException) -> None:
        """Say why the destination gives up; the source may be gone already."""
        words = str(reason) if isinstance(reason, MigpoolError) else repr(reason)
        with contextlib.suppress(MigpoolError):
            if self.extended:
                self.answer(Failed(words or type(reason).__name__))
            self.answer(Shut(1))
