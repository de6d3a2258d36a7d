"""A downtime, link by link along its critical path. The parts add up to the downtime."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from migpool.device import Side


@dataclass(frozen=True, slots=True)
class Link:
    """One stretch of the critical path.

    Attributes:
        begin, end: CLOCK_MONOTONIC of the source in nanoseconds.
        kind: one of ``kinds.KINDS``.
        side: where the waiting was.
        device, thread: their names; empty for none, or if it is unknown.
        index: the chunk, -1 for none.
        behind: for "lock", "queued" and "channel" the device that was waited for: the one that held the lock, that had
            the thread, whose chunk was sent last before a channel was idle. Empty if there was none, only a thread to
            wake.
    """

    begin: int
    end: int
    kind: str
    side: Side
    device: str = ""
    thread: str = ""
    index: int = -1
    behind: str = ""

    @property
    def duration(self) -> int:
        """Nanoseconds."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Attribution:
    """One migration's downtime, link by link.

    Attributes:
        links: in time order; each begins where the one before ends, the first when the source began to stop the
            machine, the last ends when the destination had it running.
    """

    links: tuple[Link, ...]

    @property
    def downtime(self) -> int:
        """Nanoseconds."""
        return self.links[-1].end - self.links[0].begin if self.links else 0

    @property
    def nanoseconds(self) -> dict[str, int]:
        """The time of each kind that occurs, largest first. The sum is :attr:`downtime`, exactly."""
        spent: Counter[str] = Counter()
        for link in self.links:
            spent[link.kind] += link.duration
        return dict(spent.most_common())

    @property
    def kinds(self) -> dict[str, float]:
        """:attr:`nanoseconds` in milliseconds."""
        return {kind: spent / 1e6 for kind, spent in self.nanoseconds.items()}
