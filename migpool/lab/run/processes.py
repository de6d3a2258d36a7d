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
from typing import Any, Final

from migpool.device import Side
from migpool.errors import UsageError
from migpool.lab.run.child_process import PATIENCE, ChildProcess, SideOutcome
from migpool.lab.run.result import RoundResult
from migpool.lab.run.side import SideResult
from migpool.migration.states import State
from migpool.scenario.schema import Scenario

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
    """

    source: State
    destination: State
    bytes: int
    changes: tuple[tuple[Side, State], ...] = ()
    rounds: tuple[RoundResult, ...] = ()


@dataclass(frozen=True, slots=True)
class PairResult:
    """How one run ended. ``cancelled``: whether the run was cancelled from here."""

    source: SideOutcome
    destination: SideOutcome
    cancelled: bool
    rounds: tuple[RoundResult, ...] = ()

    @property
    def both(self) -> tuple[SideResult, SideResult] | None:
        """The two sides' results, if both told of theirs."""
        source, destination = self.source.result, self.destination.result
        return None if source is None or destination is None else (source, destination)

    @property
    def verified(self) -> bool:
        """Whether both sides completed, and the state that runs at the destination is proven to be the one sent."""
        return all(side.result is not None and side.result.verified for side in (self.source, self.destination))

    @property
    def error(self) -> str:
        """Why the run failed, in one line that names the side; empty if it did not."""
        # A process that is gone explains what the other one says; and a side that only lost its peer knows less
        # than that peer. Otherwise the source knows both sides' words.
        sides = [(self.source, "source"), (self.destination, "destination")]
        sides.sort(key=lambda pair: (pair[0].freed, pair[0].result is not None, pair[0].lost_its_peer))
        return next((f"{name}: {side.error}" for side, name in sides if side.error), "")


class ProcessPair:
    """Runs one migration between two processes.

    Arguments:
        seed: the same at both ends.
        where: the scenario's file, for errors.
    """

    def __init__(self, scenario: Scenario, model: str, seed: int, where: str) -> None:
        self._scenario = scenario
        self._task: dict[str, Any] = {
            "scenario": scenario.model_dump(mode="json"),
            "model": model,
            "seed": seed,
            "where": where,
        }
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
            UsageError: a side refuses to begin, because of the scenario or the model.
        """
        with ExitStack() as stack:
            destination = ChildProcess("destination", self._task)
            stack.callback(destination.end)
            source = ChildProcess("source", self._task)
            stack.callback(source.end)
            with selectors.DefaultSelector() as selector:
                self._watch(selector, source, destination, observe, stop)
        if usage := source.usage or destination.usage:
            raise UsageError(usage)
        return PairResult(source.ending(), destination.ending(), bool(self._cancelled), tuple(source.rounds))

    def _watch(
        self,
        selector: selectors.BaseSelector,
        source: ChildProcess,
        destination: ChildProcess,
        observe: Callable[[Observed], None],
        stop: Callable[[], bool],
    ) -> None:
        for process in (source, destination):
            selector.register(process.control.sock, selectors.EVENT_READ, process)
        seen: object = None
        moved = time.monotonic()
        while selector.get_map():
            for key, _ in selector.select(TICK):
                process = key.data
                process.hear()
                if process.outcome is not None:
                    selector.unregister(key.fileobj)
            source.learn(destination.listening)
            changes = (*source.entered(), *destination.entered())
            observe(Observed(source.state, destination.state, source.bytes, changes, tuple(source.rounds)))
            if stop() and not self._cancelled:
                self._cancelled = time.monotonic()
                source.cancel()
            self._free_the_lonely(source, destination)
            now = (source.state, destination.state, source.bytes, destination.bytes, self._cancelled)
            if now != seen:
                seen, moved = now, time.monotonic()
            limit = CANCEL_LIMIT if self._cancelled else self._limit
            if time.monotonic() - moved > limit:
                for process in (source, destination):
                    process.give_up(limit)
                return

    def _free_the_lonely(self, source: ChildProcess, destination: ChildProcess) -> None:
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
