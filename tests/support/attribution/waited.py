"""What an attribution says of one device, or of one kind of wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from migpool.lab.analysis.attribution import Attribution, Link


def on_path(whole: Attribution) -> dict[str, float]:
    """How long each device was on the critical path, in ms, largest first; "" stands for no device at all."""
    return _milliseconds(whole.links, lambda link: link.device)


def waited_behind(whole: Attribution, kind: str) -> dict[str, float]:
    """Whom the waits of one kind were for, in ms; "" stands for a thread that had to be woken or started."""
    return _milliseconds([link for link in whole.links if link.kind == kind], lambda link: link.behind)


def _milliseconds(links: Iterable[Link], key: Callable[[Link], str]) -> dict[str, float]:
    spent: Counter[str] = Counter()
    for link in links:
        spent[key(link)] += link.duration
    return {name: nanoseconds / 1e6 for name, nanoseconds in spent.most_common()}
