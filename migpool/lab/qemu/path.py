"""The critical path of a QEMU's downtime, over the threads of both processes.

A walk backwards from "the machine runs" on the destination's own thread. Work comes from its begin; a wait from what
ended it:

* a section that had not come: the source's own thread, at what it did when the section was read. (QEMU gathers what it
  writes, and does not say when it sends it: so that is how far the source had come, or, when all was written, the end
  of that; the rest is "network".)
* the end of a round of RAM: the source's own thread, when it had said so;
* the wait for VFIO's threads, at either side: the thread that ended last;
* a buffer that had not come: the source's thread for that device, at that moment;
* the begin of a thread: the migration's own, which started it.

The wait for the big lock stays with the thread that waits, and says who loaded a config then: ``Link.behind``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from migpool.device import Side
from migpool.lab.analysis.attribution import Attribution, Link
from migpool.lab.analysis.kinds import BY_NAME
from migpool.lab.qemu.actors import Actor, Piece
from migpool.lab.qemu.destination import DestinationActors
from migpool.lab.qemu.log import SideLog


@dataclass(frozen=True, slots=True)
class Cause:
    """Where a wait's end came from: what ``actor`` had done at ``time``; what is left of the wait is of ``kind``."""

    actor: Actor
    time: int
    kind: str


class Threads:
    """All threads of both sides, and what their waits waited for. Either side may be missing.

    Arguments:
        source: its own thread and VFIO's.
        written: when the source had written everything.
        synced: when it had ended each round of RAM, by the number of the next packet.
        joined: between which moments its own thread waits for VFIO's.
        saved: when it had saved every device.
    """

    def __init__(
        self,
        source: tuple[Actor, Sequence[Actor]] | None,
        destination: DestinationActors | None,
        written: int = 0,
        synced: Mapping[int, int] | None = None,
        joined: tuple[int, int] = (0, 0),
        saved: int = 0,
    ) -> None:
        self._source = None if source is None else source[0]
        self._savers = [] if source is None else list(source[1])
        self._destination = destination
        self._loaders = [] if destination is None else destination.threads
        self._written = written
        self._synced = synced or {}
        self._joins = joined
        self._written_last = saved
        mains = [main for main in (self._source, None if destination is None else destination.main) if main is not None]
        self.own = mains
        self.actors = [*mains, *self._savers, *self._loaders]

    @property
    def last(self) -> Actor:
        """The thread on which the downtime ends."""
        return self.own[-1]

    def barriers(self) -> dict[Side, tuple[int, int]]:
        """When each side's own thread goes on only if every device has been saved, or loaded; and until when it does
        what must come next."""
        found: dict[Side, tuple[int, int]] = {"source": (self._written_last, self._written_last)}
        if self._destination is not None:
            found["destination"] = self._destination.joined
        return found

    def cause(self, actor: Actor, piece: Piece, now: int) -> Cause | None:
        """What a wait on ``actor``, up to ``now``, was for; ``None`` if the piece is work, or nothing is known."""
        ends = self._joined(actor, piece, now)
        if ends is not None:
            return ends
        source = self._source
        if source is None or actor.side == "source":
            return None
        if piece.kind == "starved":
            if actor.device:
                saver = next((one for one in self._savers if one.device == actor.device), source)
                return Cause(saver, min(now, saver.end), "network")
            reached = min(now, self._written)
            return Cause(source, reached, "network") if reached > piece.begin else None
        if piece.kind == "sync" and not actor.device:
            # The source says the number that comes next, the destination that of the SYNC.
            said = self._synced.get(piece.index + 1, 0)
            return Cause(source, said, "sync") if piece.begin < said <= now else None
        return None

    def holders(self, actor: Actor, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
        """Who loaded a config, under the big lock, while ``actor`` waited for that: the last one first, without a gap,
        and with an empty name where QEMU says nothing of a holder."""
        others = [*self._loaders, *([] if self._destination is None else [self._destination.main])]
        held = [
            (max(piece.begin, begin), min(piece.end, end), piece.device)
            for one in others
            if one is not actor
            for piece in one.pieces
            if piece.kind == "load config" and piece.device and piece.begin < end and piece.end > begin
        ]
        for from_, to, device in sorted(held, key=lambda one: -one[1]):
            until = min(to, end)
            if until <= from_:
                continue
            if until < end:
                yield until, end, ""
            yield from_, until, device
            end = from_
        if begin < end:
            yield begin, end, ""

    def needs(self, actor: Actor, piece: Piece) -> Cause | None:
        """What a piece that waited for nothing would have had to wait for, had it been its turn sooner: the first
        section of after the stop, the source to have written it."""
        there = self._destination
        if self._source is None or there is None or actor is not there.main:
            return None
        first = piece.begin <= there.heard < piece.end
        return Cause(self._source, min(self._written, piece.begin), "network") if first else None

    def start(self, actor: Actor) -> Cause | None:
        """Who began a thread."""
        if actor in self.own:
            return None
        main = next((one for one in self.own if one.side == actor.side), None)
        return None if main is None else Cause(main, actor.begin, "cpu")

    def _joined(self, actor: Actor, piece: Piece, now: int) -> Cause | None:
        """The thread of a device that ended last while the migration's own waited for it."""
        if actor not in self.own:
            return None
        if actor.side == "source":
            threads, (begin, end) = self._savers, self._joins
        elif self._destination is not None:
            threads, (begin, end) = self._loaders, self._destination.joined
        else:
            return None
        if not begin < now <= end:
            return None
        low = max(begin, piece.begin)
        last = max((one for one in threads if low < one.end <= now), key=lambda one: one.end, default=None)
        return None if last is None else Cause(last, last.end, piece.kind)


def walk(threads: Threads, begin: int, end: int) -> Attribution:
    """The critical path. The links partition the downtime exactly."""
    links: list[Link] = []
    actor, now = threads.last, end
    visited: set[int] = {id(actor)}

    def spend(until: int, kind: str, piece: Piece) -> int:
        until = max(until, begin)
        if until < now:
            kind = BY_NAME[kind].kind
            turns = threads.holders(actor, until, now) if kind == "lock" else [(until, now, "")]
            links.extend(
                Link(from_, to, kind, actor.side, piece.device, actor.thread, piece.index, holder)
                for from_, to, holder in turns
            )
            visited.clear()
            visited.add(id(actor))
        return min(until, now)

    while now > begin:
        place = actor.place(now)
        if place < 0:
            cause = threads.start(actor)
            if cause is None or id(cause.actor) in visited:
                now = spend(begin, "other", Piece(begin, now, "other"))
                break
            actor = cause.actor
            visited.add(id(actor))
            continue
        piece = actor.pieces[place]
        if piece.end < now:
            now = spend(piece.end, "other", Piece(piece.end, now, "other"))
            continue
        cause = threads.cause(actor, piece, now)
        if cause is not None and id(cause.actor) not in visited:
            now = spend(cause.time, cause.kind, piece)
            actor = cause.actor
            visited.add(id(actor))
            continue
        now = spend(piece.begin, piece.kind, piece)
    links.reverse()
    return Attribution(tuple(_joined_up(links)))


def _joined_up(links: Sequence[Link]) -> list[Link]:
    """Links that differ in their times alone become one."""
    found: list[Link] = []
    for link in links:
        before = found[-1] if found else None
        if before is not None and _what(before) == _what(link):
            found[-1] = Link(before.begin, link.end, *_what(link))
        else:
            found.append(link)
    return found


def _what(link: Link) -> tuple[str, Side, str, str, int, str]:
    return link.kind, link.side, link.device, link.thread, link.index, link.behind


def syncs_said(log: SideLog) -> dict[int, int]:
    """When the source had ended each round of RAM, by the number of the next packet."""
    return {int(event.said["packet"]): event.time for event in log.events if event.event == "multifd_send_sync_main"}


def join_of(log: SideLog) -> tuple[int, int]:
    """Between which moments the source's own thread waits for VFIO's threads, at the end of what is iterable."""
    saved = log.checkpoints.get("src-iterable-saved", 0)
    last = max(
        (event.time for event in log.events if event.event == "vmstate_downtime_save" and event.time <= saved),
        default=0,
    )
    return last, saved
