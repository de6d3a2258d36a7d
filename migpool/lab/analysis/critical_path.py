"""The critical path of a downtime: a walk backwards, from "running at the destination" to "stopped at the source".

At any moment the walk stands on one actor: the job of an iterable device at one side, or the migration's own thread at
one side. It takes the span that ends there last, and goes on from where that span's end came from:

=================  =====================================================================================
work, e.g. a read  its begin, on the same actor
a pause            nothing was waited for ("cpu"), down to the span before
join               the job that ended last, at its end
starved            the save job of the device, when the chunk had gone into the socket; from there on "network"
credit             the load job of the device, when it gave room back; from there on "credit"
turn               the begin of the read that another job of the device was in
order              the job of the device that was loaded last before
lock, queued       the waiter's own begin of the wait; the link names the device that was waited behind
the first span     the migration's own thread, when it submitted the job; for a config that was held until every
                   iterable device had its state, the job of the device that had its state last
idle main channel  the source's own thread, when it had written what came next
end of a round     the last channel that came to its SYNC, and what had kept it: a packet that it received after the
                   SYNC was sent (then the job that sent the packet, when it was in the socket), or another device that
                   its thread loaded; if nothing had, the source's own thread, when it had sent the SYNC
=================  =====================================================================================

Why lock and queued stay with the waiter instead of going on in the holder's job: they are what a threading model
decides. Followed into the holder, a big lock that serialises every config would show as "load config", and a pool
that is too small as "device read", as if the devices were slow. ``Link.behind`` keeps the other reading: the time
behind each holder is a link of its own, and the table of devices charges it to the holder. A wait for a chunk or for
room is no such choice, so it is followed to its cause. A chunk that lies in a socket, since the channel's thread
loads another device, is queued behind that device; so is a job that has no thread while it waits, from when its chunk
was there until a channel's thread carried it on.

Several jobs of the memory share a round; each is an actor of its own here (``page_jobs.py``), under the memory's name.

Guarantees:

1. The links partition the interval exactly and in order, whatever the spans are.
2. The walk ends: at any one moment it visits an actor once at most, and otherwise goes back in time, to where some
   span begins or ends. A step is a few bisections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from migpool.core.effects import Wait
from migpool.core.trace import Span
from migpool.device import Side
from migpool.errors import UsageError
from migpool.lab.analysis.attribution import Attribution, Link
from migpool.lab.analysis.kinds import WAITS, PathRule
from migpool.lab.analysis.page_jobs import with_page_jobs
from migpool.lab.analysis.span_index import SideIndex, Track
from migpool.migration.report import SideReport

OWN = -1
"""The migration's own thread, in place of a slot."""

NOTHING = Track(())


class _Walk:
    """Goes back in time from the interval's end, on the destination's own thread: from each span's end to where it came
    from. Times are nanoseconds on one clock.
    """

    def __init__(self, source: SideIndex, destination: SideIndex, begin: int, end: int) -> None:
        self._source = source
        self._destination = destination
        self._floor = begin
        self.now = end
        self.links: list[Link] = []
        self._what: tuple[str, Side, str, str, int, str] | None = None
        self._end = end
        self._visited: set[tuple[Side, int]] = set()
        self._rules: Mapping[PathRule, Callable[[Span], None]] = {
            "work": self._work,
            "starved": self._starved,
            "credit": self._credit,
            "send": self._send,
            "lock": self._lock,
            "queued": self._queued,
            "join": self._join,
            "sync": self._sync,
            "order": self._order,
            "turn": self._turn,
        }
        self._go(destination, OWN)

    def whole(self) -> list[Link]:
        """Walk to the begin; the links in time order."""
        while self.now > self._floor:
            self._step()
        self._close()
        self.links.reverse()
        return self.links

    def _go(self, index: SideIndex, slot: int) -> bool:
        """Stand on another actor, unless the walk has been there at this very moment."""
        actor = (index.side, slot)
        if actor in self._visited:
            return False
        self._visited.add(actor)
        self._index = index
        self._slot = slot
        self._track = index.own if slot == OWN else index.jobs.get(slot, NOTHING)
        return True

    def _spend(self, begin: int, kind: str, span: Span | None, behind: str = "", thread: str = "") -> None:
        """Go back to ``begin``: the time from there on was of ``kind``. A ``begin`` in the future changes nothing."""
        begin = max(begin, self._floor)
        if begin >= self.now:
            return
        index = self._index
        slot, chunk = self._slot, -1
        if span is not None:
            slot, chunk, thread = span.slot, span.index, span.thread
        what = (kind, index.side, index.name(slot), thread, chunk, behind)
        if what != self._what:
            self._close()
            self._what, self._end = what, self.now
        self.now = begin
        self._visited = {(index.side, self._slot)}

    def _close(self) -> None:
        if self._what is not None:
            self.links.append(Link(self.now, self._end, *self._what))
            self._what = None

    def _behind(self, kind: str, span: Span, turns: Iterable[Span]) -> bool:
        """Go back through ``turns``, the last one first, as far as ``span`` reaches.

        Returns:
            Whether the walk has gone over to one of them: a job of the memory that is queued behind another one of its
            round would only have taken some of the same packets, so it is the other's work that was waited for.
        """
        of_round = span.slot in self._index.page_jobs
        for turn in turns:
            if of_round and turn.slot in self._index.page_jobs:
                self._spend(turn.end, kind, span)
                if self._go(self._index, turn.slot):
                    return True
            self._spend(max(turn.begin, span.begin), kind, span, self._index.name(turn.slot))
        return False

    def _step(self) -> None:
        span = self._track.at(self.now)
        if span is None or span.end < self.now:
            self._pause(span)
        else:
            self._rules[WAITS[span.wait].path](span)

    def _work(self, span: Span) -> None:
        """What takes its own time comes from its begin."""
        self._spend(span.begin, WAITS[span.wait].kind, span)

    # ------------------------------------------------------------------ what each kind of span was waiting for

    def _pause(self, before: Span | None) -> None:
        """No span: the actor computed, or, if it is the migration's own thread, waited for what leaves no span."""
        low = self._floor if before is None else before.end
        if self._slot == OWN:
            if not self._submitting(low) and not self._main_channel(low):
                self._spend(low, "cpu" if self._track.spans else "other", None, thread=self._index.main_thread)
        elif before is not None:
            self._spend(low, "cpu", None, thread=before.thread)
        elif not self._go(self._index, OWN):
            self._spend(low, "other", None)

    def _submitting(self, low: int) -> bool:
        """Submitting a job can block until a thread is free: then that job's wait is also the submitter's."""
        job = self._index.submitted(self.now)
        if job is None or job.begin < low:
            return False
        turns = list(self._index.busy(job.thread, job.begin, min(job.end, self.now)))
        return self._behind("queued", job, turns) or bool(turns)

    def _main_channel(self, low: int) -> bool:
        """The destination's own thread may have waited for the source's to write the next item."""
        if self._index is not self._destination:
            return False
        written = self._written()
        if written is None or written <= low:
            return False
        self._spend(written, "network", None)
        return self._go(self._source, OWN)

    def _written(self) -> int | None:
        """When the source's own thread had written what the destination's took up just now, as far as can be told."""
        item = self._track.after(self.now)
        section = None if item is None else self._source.sections.get(item.slot)
        if section is not None and section.begin < self.now:
            return min(section.end, self.now)
        # Other items leave no span: they were written in the last pause of the source's own thread.
        last = self._source.own.at(self.now)
        written = None if last is None else last.end if last.end <= self.now else last.begin
        job = self._source.submitted(self.now)
        if job is not None and (written is None or job.begin > written):
            written = min(job.end, self.now)
        return written

    def _join(self, span: Span) -> None:
        ended = self._index.job_ended(self.now)
        if ended is None or ended[0] <= span.begin:
            self._spend(span.begin, "cpu", span)
            return
        end, slot = ended
        self._spend(end, "cpu", span)
        if self.now > self._floor and not self._go(self._index, slot):
            self._spend(span.begin, "cpu", span)

    def _starved(self, span: Span) -> None:
        key = (span.slot, span.index)
        sent = self._source.sends.get(key)
        came = self._destination.receives.get(key)
        if came is not None and span.thread in self._destination.receivers:
            # A job without a thread: its chunk was here, and nobody carried it on.
            self._behind("queued", span, self._destination.busy(span.thread, max(span.begin, came.end), self.now))
            self._spend(max(span.begin, came.end), "queued", span)
            if self.now <= span.begin:
                return
        if came is not None and came.end <= span.begin:
            self._spend(span.begin, "cpu", span)  # it was here: only the interpreter took its time
            return
        if sent is None or sent.begin >= self.now:
            self._spend(span.begin, "starved", span)
            return
        if came is not None:
            self._spend(came.end, "cpu", span)
            self._in_socket(came, max(sent.end, span.begin))
        if sent.end <= span.begin:
            self._spend(span.begin, "network", span)
            return
        self._spend(sent.end, "network", span)
        if self.now > self._floor and not self._go(self._source, span.slot):
            self._spend(span.begin, "starved", span)

    def _in_socket(self, came: Span, low: int) -> None:
        """From ``low`` on the chunk may have waited in the socket for a thread that loaded other devices."""
        for turn in self._destination.busy(came.thread, low, came.begin):
            self._spend(turn.end, "network", came)
            self._spend(max(turn.begin, low), "queued", came, self._destination.name(turn.slot))

    def _send(self, span: Span) -> None:
        key = (span.slot, span.index)
        channel = self._source.channels.get(key)
        begin = span.begin if channel is None else max(span.begin, channel.end)
        came = self._destination.receives.get(key)
        if came is not None and begin < came.begin < span.end:
            # The socket took no more before its reader came: whatever kept the reader kept the sender.
            for turn in self._destination.busy(came.thread, begin, came.begin):
                self._spend(turn.end, "send", span)
                if turn.slot == span.slot:
                    if self.now > begin and self._go(self._destination, span.slot):
                        return
                    break
                self._spend(max(turn.begin, begin), "queued", span, self._destination.name(turn.slot))
        self._spend(begin, "send", span)
        if channel is not None:
            self._spend(max(channel.begin, span.begin), "channel", span, self._source.gave_way(channel.end))
            self._spend(span.begin, "send", span)

    def _sync(self, span: Span) -> None:
        """A round of memory ends: at the destination, when the last of the channels had come to its SYNC."""
        came = self._destination.came_to_sync(span.begin, self.now) if self._index is self._destination else None
        if came is None:
            self._spend(span.begin, "sync", span)
            return
        self._spend(came.begin, "sync", span)
        said = self._source.sections.get(span.slot)
        told = span.begin if said is None else min(said.end, self.now)
        packet = self._destination.received_on(came.thread, self.now)
        behind = packet is not None and packet.end > told
        self._in_socket(came, max(told, packet.end) if packet is not None else told)
        if packet is not None and behind:
            self._spend(packet.end, "network", came)
            sent = self._source.sends.get((packet.slot, packet.index))
            if sent is None or sent.begin >= self.now:
                self._spend(min(packet.begin, self.now), "network", packet)
                return
            self._in_socket(packet, sent.end)
            self._spend(sent.end, "network", packet)
            if self.now > self._floor and not self._go(self._source, packet.slot):
                self._spend(span.begin, "network", packet)
            return
        self._spend(max(told, span.begin), "network", came)
        if self.now > max(span.begin, self._floor) and not self._go(self._source, OWN):
            self._spend(span.begin, "network", came)

    def _turn(self, span: Span) -> None:
        """Another job of the device was reading it: what that read took is the device's."""
        read = self._index.reads[span.slot].at(self.now) if span.slot in self._index.reads else None
        if read is None or read.end <= span.begin:
            self._spend(span.begin, "turn", span)
            return
        self._spend(min(read.end, self.now), "turn", span)
        self._spend(read.begin, WAITS[Wait.READ].kind, read)

    def _order(self, span: Span) -> None:
        """A device waited for others to be loaded: for the one that was loaded last."""
        last = self._index.holders.at(self.now)
        if last is None or last.end > self.now or last.end <= span.begin or last.slot == span.slot:
            self._spend(span.begin, "order", span)
            return
        self._spend(last.end, "order", span, self._index.name(last.slot))
        if not self._go(self._index, last.slot if last.slot in self._index.jobs else OWN):
            self._spend(span.begin, "order", span)

    def _credit(self, span: Span) -> None:
        loaded = self._destination.loaded.get(span.slot)
        given = None if loaded is None else loaded.at(self.now)
        if given is not None and given.end > span.begin:
            self._spend(given.end, "credit", span)
            if self._go(self._destination, span.slot):
                return
        self._spend(span.begin, "credit", span)

    def _lock(self, span: Span) -> None:
        holders = list(self._index.holders.backwards(span.begin, self.now))
        self._behind("lock", span, holders)
        self._spend(span.begin, "lock" if holders else "cpu", span)

    def _queued(self, span: Span) -> None:
        if self._behind("queued", span, self._index.busy(span.thread, span.begin, self.now)):
            return
        self._spend(span.begin, "queued", span)
        if self._slot != OWN and self.now > self._floor:
            held = self._index.held
            self._go(self._index, held.slot if held is not None and self._index.was_held(span) else OWN)


def attribute(source: SideReport, destination: SideReport) -> Attribution:
    """Split the downtime of a completed migration along its critical path.

    Raises:
        UsageError: the machine did not come to run at the destination, or did so before it was stopped at the source.
    """
    if not source.stopped or not destination.running:
        raise UsageError("only a migration that came to its end has a downtime to attribute: this one failed before")
    begin, end = source.stopped, destination.running
    if end <= begin:
        raise UsageError(
            f"the machine ran at the destination {(begin - end) / 1e6:.3f} ms before it was stopped at the source: "
            "the two ends' times are not of one clock"
        )
    ours, theirs = with_page_jobs(source, destination)
    walk = _Walk(SideIndex(ours, begin, end), SideIndex(theirs, begin, end), begin, end)
    return Attribution(tuple(walk.whole()))
