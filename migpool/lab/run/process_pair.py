"""One migration between two processes of its own, watched and ended from here.

Guarantees:

1. When :meth:`ProcessPair.run` has returned or raised, both processes are gone, whatever they were doing: asked first
   (a cancel in order), then told (SIGTERM), then killed.
2. Each process is the leader of a session of its own: Ctrl-C reaches only the process that compares.
3. If this process dies, both end by themselves.
4. A run in which nothing moves any more is ended after a limit, and says so.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

from migpool.device import Side
from migpool.errors import UsageError
from migpool.lab.run.clocks import EXCHANGES
from migpool.lab.run.link.process import RealLink
from migpool.lab.run.local_process import PATIENCE, LocalProcess, SideProcess
from migpool.lab.run.long_calls import LongCall
from migpool.lab.run.pair_result import PairResult
from migpool.lab.run.result import RoundResult
from migpool.lab.run.watched_side import WatchedSide
from migpool.migration.states import State
from migpool.scenario.schema import Scenario
from migpool.schedulers.host_threads import HostThreads

TICK: Final = 0.1
SPARE: Final = 20.0
"""Seconds on top of the migration's own limits before a run in which nothing happens is ended from here."""
CANCEL_LIMIT: Final = 10.0
"""Seconds that a cancel in order may take."""
CANCEL_ALONE: Final = 1.0
"""Seconds that the destination has to notice by itself that the source was cancelled, before it is cancelled too."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What can be seen of a migration that is under way.

    Attributes:
        bytes: how much state has been sent.
        changes: the states that were entered since the last time, with the side that did; a state that was left again
            at once is among them.
        rounds: of pre-copy, all so far.
        calls: of devices at either end, those that last for long.
    """

    source: State
    destination: State
    bytes: int
    changes: tuple[tuple[Side, State], ...] = ()
    rounds: tuple[RoundResult, ...] = ()
    calls: tuple[LongCall, ...] = ()


class Hosts(Protocol):
    """Where the two processes of a run are."""

    def start(self, side: Side) -> SideProcess:
        """Start a side's process."""

    def told(self, side: Side) -> dict[str, Any]:
        """What that process must know of its place; see the task in :mod:`migpool.lab.run.child`."""


@dataclass(frozen=True, slots=True)
class ThisHost:
    """Both are on this host.

    Arguments:
        link: the one at whose ends they are.
        offset: how many seconds the destination's clock is to be ahead.
        threads: those that the migrations of the source's host have together.
    """

    link: RealLink | None = None
    offset: float = 0.0
    threads: HostThreads | None = None

    def start(self, side: Side) -> SideProcess:
        network = None if self.link is None else self.link.networks[side]
        if side == "source":
            return LocalProcess(network, threads=self.threads)
        return LocalProcess(network, self.offset)

    def told(self, side: Side) -> dict[str, Any]:
        del side
        if self.link is None:
            return {}
        # Nobody else is in the namespaces of a link.
        return {"host": self.link.host, "insecure": True} | ({"exchanges": EXCHANGES} if self.offset else {})


class ProcessPair:
    """Runs one migration between two processes.

    Arguments:
        seed: the same at both ends.
        where: the scenario's file, for errors.
        hosts: where they are; ``None``: here, at the ends of the scenario's link if it is to be made.
    """

    def __init__(self, scenario: Scenario, model: str, seed: int, where: str, hosts: Hosts | None = None) -> None:
        self._hosts = hosts
        self._task: dict[str, Any] = {
            "scenario": scenario.model_dump(mode="json"),
            "model": model,
            "seed": seed,
            "where": where,
        }
        self._link = scenario.link
        limits = scenario.limits
        self._limit = limits.peer + limits.connect + SPARE
        self._alone = limits.peer + PATIENCE
        self._cancelled = 0.0

    def run(self, observe: Callable[[Observed], None], stop: Callable[[], bool]) -> PairResult:
        """Run it.

        Arguments:
            observe: called several times a second.
            stop: asked as often; once it says true the migration is cancelled.

        Raises:
            UsageError: a side refuses to begin, because of the scenario or the model; or the link cannot be made.
        """
        use = None
        with ExitStack() as stack:
            hosts, link = self._hosts, None
            if hosts is None and self._link.imposed:
                link = RealLink(self._link, self._task["seed"])
                stack.callback(link.end)
            hosts = hosts or ThisHost(link, self._link.clock_offset)
            destination = self._started("destination", hosts, stack)
            source = self._started("source", hosts, stack)
            selector = stack.enter_context(selectors.DefaultSelector())
            for process in (source, destination):
                selector.register(process.control.sock, selectors.EVENT_READ, process)
            seen: object = None
            calls: tuple[LongCall, ...] = ()
            moved = time.monotonic()
            while selector.get_map():
                for key, _ in selector.select(TICK):
                    process = key.data
                    process.hear()
                    if process.outcome is not None:
                        selector.unregister(key.fileobj)
                source.learn(destination.listening)
                changes = (*source.entered(), *destination.entered())
                if source.outcome is None and destination.outcome is None:
                    calls = (*source.calls, *destination.calls)
                observe(Observed(source.state, destination.state, source.bytes, changes, tuple(source.rounds), calls))
                if stop() and not self._cancelled:
                    self._cancelled = time.monotonic()
                    source.cancel()
                self._free_the_lonely(source, destination)
                now = (source.state, destination.state, source.bytes, destination.bytes, self._cancelled)
                if now != seen:
                    seen, moved = now, time.monotonic()
                limit = CANCEL_LIMIT if self._cancelled or source.asked or destination.asked else self._limit
                if time.monotonic() - moved > limit:
                    source.give_up(limit)
                    destination.give_up(limit)
                    break
            if link is not None:
                use = link.use()
        if usage := source.usage or destination.usage:
            raise UsageError(usage)
        result = PairResult(
            source.ending(),
            destination.ending(),
            bool(self._cancelled),
            tuple(source.rounds),
            source.unbuilt or destination.unbuilt,
            calls,
            link=use,
        )
        return result.on_the_sources_clock(self._link.clock_offset)

    def _started(self, side: Side, hosts: Hosts, stack: ExitStack) -> WatchedSide:
        child = WatchedSide(side, self._task | hosts.told(side), hosts.start(side))
        stack.callback(child.end)
        return child

    def _free_the_lonely(self, source: WatchedSide, destination: WatchedSide) -> None:
        """End the waiting of a side whose other side has ended, if it does not end by itself."""
        if source.outcome is not None and destination.state in (State.NONE, State.SETUP):
            destination.cancel(freed=True)
        if destination.outcome is not None and not destination.listening:
            source.cancel(freed=True)
        now = time.monotonic()
        for gone, left in ((source, destination), (destination, source)):
            if gone.ended and now - gone.ended > self._alone:
                left.cancel(freed=True)
        if self._cancelled and now - self._cancelled > CANCEL_ALONE:
            # A source that has sent everything waits for the destination's word on whose the machine is.
            destination.cancel()
