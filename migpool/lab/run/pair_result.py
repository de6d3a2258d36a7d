"""How a run between two processes ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from migpool.lab.run.clocks import Clocks, on_one_clock
from migpool.lab.run.link.use import LinkUse
from migpool.lab.run.long_calls import LongCall
from migpool.lab.run.result import RoundResult
from migpool.lab.run.side import SideResult

CALLS: Final = 3
"""Calls that last for long that an error names."""


@dataclass(frozen=True, slots=True)
class SideOutcome:
    """How one process ended.

    Attributes:
        result: what it said of its migration; ``None`` if it did not come to that.
        trace: the traceback of what a plug-in raised before there was a migration.
        failure: why there is no result, in one line; empty if there is one.
        freed: whether it was ended only because the other side had ended: then that one's error is the reason.
    """

    result: SideResult | None
    failure: str
    freed: bool = False
    warnings: tuple[str, ...] = ()
    trace: str = ""

    @property
    def traceback(self) -> str:
        """Of what a plug-in raised that it must not; empty without one."""
        return self.trace if self.result is None else self.result.traceback

    @property
    def error(self) -> str:
        """What went wrong, in one line; empty if nothing did."""
        return self.failure if self.result is None else self.result.error

    @property
    def lost_its_peer(self) -> bool:
        """Whether its error says no more than that the other side is gone."""
        return self.result is not None and self.result.report.peer_gone


@dataclass(frozen=True, slots=True)
class PairResult:
    """How one run ended.

    Arguments:
        cancelled: whether the run was cancelled from here.
        unbuilt: whether a side could not make its machine.
        calls: of devices, those that lasted for long when the first side ended.
        clocks: how the two hosts' clocks stood to each other, if there were two: the results are on the source's.
        link: the one that was made for it.
    """

    source: SideOutcome
    destination: SideOutcome
    cancelled: bool
    rounds: tuple[RoundResult, ...] = ()
    unbuilt: bool = False
    calls: tuple[LongCall, ...] = ()
    clocks: Clocks | None = None
    link: LinkUse | None = None

    @property
    def both(self) -> tuple[SideResult, SideResult] | None:
        """The two sides' results, if both told of theirs."""
        source, destination = self.source.result, self.destination.result
        return None if source is None or destination is None else (source, destination)

    @property
    def verified(self) -> bool | None:
        """Whether both sides completed, and the state that runs at the destination is proven to be the one sent.

        ``None`` if they completed and not every state was compared.
        """
        source, destination = self.source.result, self.destination.result
        if source is None or destination is None or not destination.succeeded:
            return False
        return source.verified

    @property
    def error(self) -> str:
        """Why the run failed, in one line that names the side; empty if it did not."""
        # A process that is gone explains what the other one says; and a side that only lost its peer knows less
        # than that peer. Otherwise the source knows both sides' words.
        sides = [(self.source, "source"), (self.destination, "destination")]
        sides.sort(key=lambda pair: (pair[0].freed, pair[0].result is not None, pair[0].lost_its_peer))
        for side, name in sides:
            if side.error:
                waited = side.result is not None and side.result.report.waited
                calls = [f"; {call}" for call in self.calls[:CALLS] if waited and call.what not in side.error]
                return "".join((f"{name}: {side.error}", *calls))
        return ""

    def on_the_sources_clock(self, offset: float) -> PairResult:
        """The same with the destination's times on it. ``offset``: how many seconds the destination's own was ahead."""
        ours, theirs, link = self.source, self.destination, self.link
        if ours.result is None or theirs.result is None:
            return self
        source, destination = ours.result.report, theirs.result.report
        if link is not None and source.stopped and destination.running:
            truth = destination.running - round(offset * 1e9) - source.stopped
            link = link.model_copy(update={"true_downtime_ms": truth / 1e6 if offset else None})
        source, destination, clocks = on_one_clock(source, destination)
        return replace(
            self,
            source=replace(ours, result=replace(ours.result, report=source)),
            destination=replace(theirs, result=replace(theirs.result, report=destination)),
            link=link,
            clocks=clocks,
        )
