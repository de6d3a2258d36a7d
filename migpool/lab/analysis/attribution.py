"""Attribution: what a migration's downtime went into, along the critical path. The parts add up to the downtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from migpool.errors import UsageError
from migpool.lab.analysis.critical_path import critical_path
from migpool.lab.analysis.page_jobs import with_page_jobs
from migpool.lab.analysis.path_walk import Link
from migpool.lab.analysis.span_index import SideIndex
from migpool.migration.report import SideReport


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

    @property
    def devices(self) -> dict[str, float]:
        """How long each device was on the critical path, in ms, largest first; "" stands for no device at all."""
        return _milliseconds(self.links, lambda link: link.device)

    def behind(self, kind: str) -> dict[str, float]:
        """Whom the waits of one kind were for.

        Arguments:
            kind: "lock", "queued" or "channel"; links of other kinds are behind nobody.

        Returns:
            ms waited behind each device, largest first; "" stands for a thread that had to be woken or started.
        """
        return _milliseconds([link for link in self.links if link.kind == kind], lambda link: link.behind)


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
    links = critical_path(SideIndex(ours, begin, end), SideIndex(theirs, begin, end), begin, end)
    return Attribution(tuple(links))


def _milliseconds(links: Iterable[Link], key: Callable[[Link], str]) -> dict[str, float]:
    spent: Counter[str] = Counter()
    for link in links:
        spent[key(link)] += link.duration
    return {name: nanoseconds / 1e6 for name, nanoseconds in spent.most_common()}
