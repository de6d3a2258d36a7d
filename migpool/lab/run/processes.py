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
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from migpool.device import Side
from migpool.errors import UsageError
from migpool.lab.run.child import ControlChannel, Message
from migpool.lab.run.clocks import EXCHANGES, Clocks, on_one_clock
from migpool.lab.run.link.process import RealLink
from migpool.lab.run.link.use import LinkUse
from migpool.lab.run.local_process import PATIENCE, LocalProcess, SideProcess
from migpool.lab.run.long_calls import LongCall
from migpool.lab.run.result import RoundResult
from migpool.lab.run.side import SideResult
from migpool.migration.states import State
from migpool.scenario.schema import Scenario
from migpool.schedulers.host_threads import HostThreads
from migpool.transport.address import Address

TICK: Final = 0.1
SPARE: Final = 20.0
"""Seconds on top of the migration's own limits before a run in which nothing happens is ended from here."""
CANCEL_LIMIT: Final = 10.0
"""Seconds that a cancel in order may take."""
CANCEL_ALONE: Final = 1.0
"""Seconds that the destination has to notice by itself that the source was cancelled, before it is cancelled too."""
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


class ChildProcess:
    """One of the two processes of a run, started.

    Arguments:
        task: what it is told; see :mod:`migpool.lab.run.child`.
        process: its process; ended by :meth:`end`.

    Attributes:
        state, bytes, rounds, warnings: what it told of so far; the state is the last one.
        calls: of its devices, those that last for long now.
        asked: whether it was asked to cancel.
        listening: the destination's address; empty until it listens.
        outcome: how it ended; ``None`` until then.
        ended: when that was, on ``time.monotonic``; 0 until then.
        usage: why it refused to begin, if the scenario or the model is at fault.
        unbuilt: whether its machine could not be made.
    """

    def __init__(self, side: Side, task: Message, process: SideProcess) -> None:
        self.side = side
        self._process = process
        self.state = State.NONE
        self.bytes = 0
        self.rounds: list[RoundResult] = []
        self.warnings: list[str] = []
        self.listening = ""
        self.calls: list[LongCall] = []
        self.outcome: SideOutcome | None = None
        self.ended = 0.0
        self.usage = ""
        self.unbuilt = False
        self._learnt = self._freed = self.asked = False
        self._entered: list[tuple[Side, State]] = []
        self.control = ControlChannel(process.sock)
        self.control.send({"task": task | {"side": side}})

    def hear(self) -> None:
        """Take what the process says, or its end."""
        messages = self.control.receive()
        for message in messages or ():
            self._take(message)
        if messages is None and self.outcome is None:
            self.outcome = SideOutcome(None, self._how_it_ended())
        if self.outcome is not None:
            self.ended = time.monotonic()

    def entered(self) -> list[tuple[Side, State]]:
        """The states since the last call."""
        states, self._entered = self._entered, []
        return states

    def _take(self, message: Message) -> None:
        match message:
            case {"state": state}:
                self.state = State(state)
                self._entered.append((self.side, self.state))
            case {"bytes": count}:
                self.bytes = count
            case {"round": form}:
                self.rounds.append(RoundResult(**form))
            case {"calls": forms}:
                self.calls = [LongCall.from_json(form) for form in forms]
            case {"warning": text}:
                self.warnings.append(text)
            case {"listening": address}:
                self.listening = address
            case {"result": form}:
                self.outcome = SideOutcome(SideResult.from_json(form), "")
                self.bytes = self.outcome.result.report.bytes if self.outcome.result else self.bytes
            case {"error": error, "usage": usage, "unbuilt": unbuilt, "traceback": trace}:
                self.outcome = SideOutcome(None, error, trace=trace)
                self.usage = error if usage else ""
                self.unbuilt = unbuilt

    def learn(self, address: str) -> None:
        """Tell the source where the destination listens, once."""
        if address and not self._learnt:
            self._learnt = True
            self.control.send({"address": address})

    def cancel(self, *, freed: bool = False) -> None:
        """Ask it to cancel, once. ``freed``: the other side has ended, which is the reason."""
        if not self.asked and self.outcome is None:
            self.asked = True
            self._freed = freed
            self.control.send({"cancel": True})

    def give_up(self, limit: float) -> None:
        """It has not ended, and nothing moves any more."""
        if self.outcome is None:
            calls = "".join(f"; {call}" for call in self.calls[:CALLS])
            self.outcome = SideOutcome(
                None, f"nothing has moved for {limit:g} s in state {self.state.value}: the process was ended{calls}"
            )

    def ending(self) -> SideOutcome:
        """How it ended."""
        outcome = self.outcome or SideOutcome(None, f"the {self.side} process was ended")
        return replace(outcome, freed=self._freed, warnings=tuple(self.warnings))

    def _how_it_ended(self) -> str:
        how = self._process.how_it_ended()
        return (
            f"the {self.side} process ended without a result {how}"
            if how
            else (f"the {self.side} process said nothing more")
        )

    def end(self) -> None:
        """See that the process is gone, and everything of it."""
        self._process.end()
        if self.listening.startswith("unix:"):
            # It removes its socket's directory itself, unless it was killed.
            shutil.rmtree(Path(Address.parse(self.listening).path).parent, ignore_errors=True)


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


def _on_one_clock(pair: PairResult, offset: float) -> PairResult:
    """The pair with the destination's times on the source's clock; ``offset``: how many seconds its own was ahead."""
    ours, theirs, link = pair.source, pair.destination, pair.link
    if ours.result is None or theirs.result is None:
        return pair
    source, destination = ours.result.report, theirs.result.report
    if link is not None and source.stopped and destination.running:
        truth = destination.running - round(offset * 1e9) - source.stopped
        link = link.model_copy(update={"true_downtime_ms": truth / 1e6 if offset else None})
    source, destination, clocks = on_one_clock(source, destination)
    return replace(
        pair,
        source=replace(ours, result=replace(ours.result, report=source)),
        destination=replace(theirs, result=replace(theirs.result, report=destination)),
        link=link,
        clocks=clocks,
    )


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
        return _on_one_clock(result, self._link.clock_offset)

    def _started(self, side: Side, hosts: Hosts, stack: ExitStack) -> ChildProcess:
        child = ChildProcess(side, self._task | hosts.told(side), hosts.start(side))
        stack.callback(child.end)
        return child

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
