"""One round of pre-copy as it is told: from the source's process, on the screen, in the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from migpool.precopy.rounds import Round

__all__ = ["RoundTold", "round_line"]

MIB = 1 << 20
PAGE = 4096


@dataclass(frozen=True, slots=True)
class RoundTold:
    """A round.

    Attributes:
        number: from 1.
        bytes: how many bytes of pages and state were settled in it.
        seconds: how long it took.
        dirtied: bytes that had to be sent anew after it.
        left: bytes that were left after it, what can be saved only after the stop among them.
        expected: how long what was left would have taken, in seconds; ``None`` if it was not known.
        sent: how many of the bytes crossed; a page of zeros does not.
    """

    number: int
    bytes: int
    seconds: float
    dirtied: int
    left: int
    expected: float | None
    sent: int

    @classmethod
    def of(cls, done: Round) -> RoundTold:
        """What is told of a round."""
        left = done.after.left
        return cls(
            done.number,
            done.bytes,
            done.seconds,
            done.dirtied,
            left.precopy + left.stopcopy,
            done.after.expected_downtime,
            done.sent,
        )

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> RoundTold:
        """The round again that :meth:`to_json` made this of."""
        return cls(**form)

    def to_json(self) -> dict[str, Any]:
        """What ``json.dumps`` takes."""
        return asdict(self)


def round_line(told: RoundTold) -> str:
    """The round in words."""
    seconds = told.seconds or 1e-9
    expected = "" if told.expected is None else f", {told.expected * 1000:.0f} ms of downtime expected"
    return (
        f"round {told.number}: {told.bytes // PAGE} pages, {told.sent / MIB / seconds:.0f} MiB/s sent, "
        f"written {told.dirtied / MIB / seconds:.0f} MiB/s, {told.left / MIB:.1f} MiB left{expected}"
    )
