"""What devices declare that their own work takes, from both ends and from several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from migpool.device import StateCosts
from migpool.lab.run.side import SideResult


def device_costs(source: SideResult, destination: SideResult) -> list[StateCosts | None]:
    """What each device's own work takes, in the machine's order.

    A lock that only one end knows cannot hold up the other: it counts only if both have it.
    """
    return [
        None if ours is None else ours if theirs is None or theirs.shared_lock else replace(ours, shared_lock="")
        for ours, theirs in zip(source.costs, destination.costs, strict=True)
    ]


def least_costs(runs: Sequence[Sequence[StateCosts | None]]) -> list[StateCosts | None]:
    """The least that each device declares in any run: after pre-copy, what is left to do differs from run to run.

    Arguments:
        runs: what :func:`device_costs` gives for each run, at least one.
    """
    return [_least(declared) for declared in zip(*runs, strict=True)]


def _least(declared: Sequence[StateCosts | None]) -> StateCosts | None:
    known = [costs for costs in declared if costs is not None]
    if len(known) < len(declared):
        return None
    times = [field.name for field in fields(StateCosts) if field.name != "shared_lock"]
    lock = known[0].shared_lock if len({costs.shared_lock for costs in known}) == 1 else ""
    return StateCosts(**{name: min(getattr(costs, name) for costs in known) for name in times}, shared_lock=lock)
