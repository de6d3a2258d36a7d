"""What each thread of a QEMU did during a downtime, without a gap: the migration's own thread, VFIO's, the channels'.

A thread's time is split into pieces. Where two of QEMU's own measures lie one in the other, the inner one counts; what
none covers is the phase's, which the checkpoints tell. Threads are told by what they say, not by their ids, which
QEMU 11 does not write.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.device import Side
from migpool.lab.analysis.kinds import BY_NAME

OTHER = "other"


@dataclass(slots=True)
class Piece:
    """A stretch of one thread's time.

    Attributes:
        begin, end: nanoseconds of the source's clock.
        kind: the name of a record in ``migpool/lab/analysis/kinds.py``.
        device: empty for none.
        index: a buffer's or a channel's number, -1 for none.
    """

    begin: int
    end: int
    kind: str
    device: str = ""
    index: int = -1

    @property
    def duration(self) -> int:
        """Nanoseconds."""
        return self.end - self.begin


@dataclass(slots=True)
class Actor:
    """One thread.

    Attributes:
        pieces: in order, each from where the one before ends.
        device: whose thread it is; empty for the migration's own.
    """

    side: Side
    thread: str
    pieces: list[Piece]
    device: str = ""
    _ends: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ends = [piece.end for piece in self.pieces]

    @property
    def begin(self) -> int:
        return self.pieces[0].begin

    @property
    def end(self) -> int:
        return self.pieces[-1].end

    def place(self, time: int) -> int:
        """The piece in which ``time`` lies, its end included; the last one for a later time, -1 for an earlier one."""
        if time <= self.begin:
            return -1
        return min(bisect_left(self._ends, time), len(self.pieces) - 1)

    def cut(self, times: Iterable[int]) -> None:
        """Split the pieces in which these times lie."""
        inner = sorted({time for time in times if self.begin < time < self.end} - set(self._ends))
        pieces: list[Piece] = []
        for piece in self.pieces:
            at = piece.begin
            for time in inner[bisect_right(inner, piece.begin) : bisect_left(inner, piece.end)]:
                pieces.append(Piece(at, time, piece.kind, piece.device, piece.index))
                at = time
            pieces.append(Piece(at, piece.end, piece.kind, piece.device, piece.index))
        self.pieces = pieces
        self._ends = [piece.end for piece in pieces]

    def spans(self, slots: dict[str, int]) -> list[Span]:
        """The pieces as spans; ``slots``: the devices' numbers."""
        return [
            Span(wait, slots.get(piece.device, -1), piece.index, piece.begin, piece.end, self.thread)
            for piece in self.pieces
            if (wait := wait_of(piece.kind)) is not None
        ]


def wait_of(kind: str) -> Wait | None:
    """The kind of span that has this name; ``None`` where the trace says nothing."""
    return BY_NAME[kind].wait


def partition(pieces: Iterable[Piece], phases: Sequence[tuple[int, str]], begin: int, end: int) -> list[Piece]:
    """Split an interval among pieces that may lie one in the other: the one that began last has the time.

    Arguments:
        phases: from when on what no piece covers is of which kind, in order; before the first it is "other".
    """
    known = [piece for piece in pieces if piece.end > begin and piece.begin < end and piece.end > piece.begin]
    edges = {begin, end, *(time for time, _ in phases if begin < time < end)}
    edges |= {min(max(time, begin), end) for piece in known for time in (piece.begin, piece.end)}
    times = sorted(edges)
    known.sort(key=lambda piece: (piece.begin, -piece.end))
    starts = [time for time, _ in phases]
    found: list[Piece] = []
    active: list[Piece] = []
    following = 0
    for from_, to in pairwise(times):
        while following < len(known) and known[following].begin <= from_:
            active.append(known[following])
            following += 1
        active = [piece for piece in active if piece.end > from_]
        if active:
            top = active[-1]
            made = Piece(from_, to, top.kind, top.device, top.index)
        else:
            place = bisect_right(starts, from_)
            made = Piece(from_, to, phases[place - 1][1] if place else OTHER)
        before = found[-1] if found else None
        if before is not None and (before.kind, before.device, before.index) == (made.kind, made.device, made.index):
            before.end = to
        else:
            found.append(made)
    return found
