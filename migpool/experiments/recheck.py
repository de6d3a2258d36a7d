"""Whether what an experiment found before still stands.

Two findings of one experiment are set side by side, comparison by comparison. One *stands* if its outcome is the same;
it is *decided* if only the later runs decide it, *open again* if only the earlier ones did; it is *contradicted* if it
held and fails now, or the other way round. Only the last says that one of the two was wrong: an interval that lies
across a threshold takes nothing back, and one that does not reach 95 % decides nothing here. The intervals' overlap
stands beside it, for those that lie far from a threshold may have moved without changing sides.

A finding stands if nothing that decides it is contradicted. What decides nothing is compared and shown all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from migpool.experiments.finding import ComparisonFinding, CountFinding, Finding
from migpool.experiments.verdict import WANTED, Outcome

Fate: TypeAlias = Literal["stands", "decided", "open again", "contradicted"]


@dataclass(frozen=True, slots=True)
class Moved:
    """One comparison, or one count, before and now.

    Attributes:
        decides: whether the claim's verdict hangs on it.
        before, now: the numbers of the earlier and of the later finding, as text.
        fate: what has become of its outcome.
        apart: whether the two intervals have nothing in common; ``None`` where there are no two.
    """

    name: str
    decides: bool
    before: str
    now: str
    fate: Fate
    apart: bool | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One experiment, before and now.

    Attributes:
        moved: each comparison and each count that both have.
        missing: the names of those that only one of them has, or that had another threshold.
    """

    before: Finding
    now: Finding
    moved: tuple[Moved, ...]
    missing: tuple[str, ...]

    @property
    def stands(self) -> bool:
        """Whether nothing that decides is contradicted."""
        return not any(one.decides and one.fate == "contradicted" for one in self.moved)

    @property
    def elsewhere(self) -> bool:
        """Whether they were not measured on the same kind of machine with the same versions."""
        return self.before.machine != self.now.machine


def standings(before: Iterable[Finding], now: Iterable[Finding]) -> list[Standing]:
    """Each experiment that both have, in the order of ``now``."""
    earlier = {one.id: one for one in before}
    return [compared_with(earlier[one.id], one) for one in now if one.id in earlier]


def compared_with(before: Finding, now: Finding) -> Standing:
    """Set two findings of one experiment side by side.

    Raises:
        ValueError: they are of different experiments.
    """
    if before.id != now.id:
        raise ValueError(f"{before.id} and {now.id} are different experiments")
    ratios, ratios_now = _ratios(before), _ratios(now)
    counts, counts_now = _counts(before), _counts(now)
    moved = [_ratio_moved(ratios[key], one) for key, one in ratios_now.items() if key in ratios]
    moved += [_count_moved(name, counts[name], one) for name, one in counts_now.items() if name in counts]
    names = [name for name, *_ in ratios.keys() ^ ratios_now.keys()]
    missing = sorted({*names, *(counts.keys() ^ counts_now.keys())})
    return Standing(before, now, tuple(moved), tuple(missing))


def _ratios(finding: Finding) -> dict[tuple[str, float | None, float | None], ComparisonFinding]:
    # With another threshold it is another question.
    return {(one.name, one.least, one.most): one for one in finding.comparisons}


def _counts(finding: Finding) -> dict[str, CountFinding]:
    return {f"{one.what} ({one.model})" if one.model else one.what: one for one in finding.counts}


def _count_moved(name: str, before: CountFinding, now: CountFinding) -> Moved:
    told = [f"{one.wrong} of {one.total}" for one in (before, now)]
    return Moved(name, True, told[0], told[1], _fate(before.outcome, now.outcome))


def _ratio_moved(before: ComparisonFinding, now: ComparisonFinding) -> Moved:
    apart = None
    if before.low is not None and before.high is not None and now.low is not None and now.high is not None:
        apart = before.high < now.low or now.high < before.low
    decides = before.decides and now.decides
    return Moved(now.name, decides, _told(before), _told(now), _fate(_decided(before), _decided(now)), apart)


def _decided(one: ComparisonFinding) -> Outcome:
    return one.outcome if one.coverage is not None and one.coverage >= WANTED else "open"


def _told(one: ComparisonFinding) -> str:
    if one.median is None or one.low is None or one.high is None:
        return f"no interval, {one.outcome}"
    preliminary = "" if _decided(one) == one.outcome else ", preliminary"
    return f"{one.median:.3f} ({one.low:.3f} to {one.high:.3f}), {one.outcome}{preliminary}"


def _fate(before: Outcome, now: Outcome) -> Fate:
    if before == now:
        return "stands"
    if before == "open":
        return "decided"
    return "open again" if now == "open" else "contradicted"
