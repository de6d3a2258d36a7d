"""The return path as the destination writes it: one message at a time, from any thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from threading import Lock

from migpool.errors import MigpoolError, PeerGone
from migpool.flow.window import Grant
from migpool.wire.returnpath import Failed, GrantMessage, Message, Shut, encode

ENDED_EARLY = "the source ended the connection early, it failed or was cancelled there"
GAVE_UP = "the source gave up"


class ReturnPathWriter:
    """Answers the source. Behind SHUT nothing is sent: a job that goes on for a while may still grant room.

    Arguments:
        put: sends all of some buffers to the source.

    Attributes:
        extended: whether the source understands this project's own messages; ``None`` until it has said so.
    """

    def __init__(self, put: Callable[[Sequence[bytes]], None]) -> None:
        self._put = put
        self._lock = Lock()
        self._shut = False
        self.extended: bool | None = None

    def answer(self, message: Message) -> None:
        """Send one message.

        Raises:
            TimeLimitExceeded: the source does not read.
            PeerGone: it is gone.
        """
        self._send([message])

    def _send(self, messages: list[Message]) -> None:
        with self._lock:
            if self._shut:
                return
            self._shut = isinstance(messages[-1], Shut)
            try:
                self._put([encode(message) for message in messages])
            except PeerGone as error:
                raise PeerGone(f"{ENDED_EARLY} ({error})") from None

    def grant(self, grant: Grant) -> None:
        """Make a grant known."""
        self.answer(GrantMessage(grant.device, grant.limit))

    def fail(self, reason: BaseException, *, runs: bool = False) -> None:
        """Say why the destination gives up, or what went wrong after the machine ran there; the source may be gone.

        Arguments:
            runs: the machine runs here. A source that has not heard RUNNING, since it does not know it, would take
                anything but SHUT 0 for a refusal, and run it, too.
        """
        with contextlib.suppress(MigpoolError):
            if self.extended:
                self._send([Failed(told(reason)), Shut(1)])
            else:
                self._send([Shut(int(not runs))])


def told(reason: BaseException) -> str:
    """What one end tells the other of why it gives up; never empty."""
    return (str(reason) if isinstance(reason, MigpoolError) else repr(reason)) or type(reason).__name__
