"""One round of pre-copy as it is told: by the source's process, on the screen and in the result."""

from __future__ import annotations

from migpool.lab.run.form import Form
from migpool.precopy.rounds import Round
from migpool.units import format_rate, format_size

PAGE = 4096


class RoundResult(Form):
    """A round.

    Attributes:
        number: from 1.
        bytes: how many bytes of pages and state were settled in it.
        sent: how many of them crossed; a page of zeros does not.
        dirtied: bytes that had to be sent anew after it.
        left: bytes that were left after it, what can be saved only after the stop among them.
        expected_ms: how long what was left would have taken; ``None`` if it was not known.
    """

    number: int
    bytes: int
    sent: int | None = None
    seconds: float
    dirtied: int
    left: int
    expected_ms: float | None

    @classmethod
    def of(cls, done: Round) -> RoundResult:
        left, expected = done.after.left, done.after.expected_downtime
        return cls(
            number=done.number,
            bytes=done.bytes,
            sent=done.sent,
            seconds=done.seconds,
            dirtied=done.dirtied,
            left=left.precopy + left.stopcopy,
            expected_ms=None if expected is None else expected * 1e3,
        )


def round_line(told: RoundResult) -> str:
    """The round in words."""
    seconds = told.seconds or 1e-9
    expected = "" if told.expected_ms is None else f", {told.expected_ms:.0f} ms of downtime expected"
    return (
        f"round {told.number}: {told.bytes // PAGE} pages, {format_rate((told.sent or 0) / seconds)} sent, "
        f"written {format_rate(told.dirtied / seconds)}, {format_size(told.left)} left{expected}"
    )
