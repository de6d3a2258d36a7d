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
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from migpool.device import Side
from migpool.errors import UsageError
from migpool.lab.run.child import ControlChannel, Message
from migpool.lab.run.clocks import on_source_clock
from migpool.lab.run.link.process import RealLink
from migpool.lab.run.link.use import LinkUse
from migpool.lab.run.long_calls import LongCall
from migpool.lab.run.result import RoundResult
from migpool.lab.run.side import SideResult
from migpool.migration.states import State
from migpool.scenario.schema import Scenario
from migpool.transport.address import Address

TICK: Final = 0.1
SPARE: Final = 20.0
"""Seconds on top of the migration's own limits before a run in which nothing happens is ended from here."""
CANCEL_LIMIT: Final = 10.0
"""Seconds that a cancel in order may take."""
CANCEL_ALONE: Final = 1.0
"""Seconds that the destination has to notice by itself that the source was cancelled, before it is cancelled too."""
PATIENCE: Final = 5.0
"""Seconds between asking and telling, and between telling and killing."""
CALLS: Final = 3
"""Calls that last for long that an error names."""
LAST_WORDS: Final = 3
"""Lines of what a process printed before it broke that are repeated."""


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
        link: the one that it is at an end of.
        offset: how many seconds its clock is to be ahead.

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

    def __init__(self, side: Side, task: Message, link: RealLink | None = None, offset: float = 0.0) -> None:
        self.side = side
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
        with ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.enter_context(ours)
            self._printed = undo.enter_context(tempfile.TemporaryFile())
            networks = [] if link is None else [link.networks[side]]
            with theirs:
                place = [str(network) for network in networks] + [str(offset)] * len(networks)
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "migpool.lab.run.child", str(theirs.fileno()), *place],
                    stdin=subprocess.DEVNULL,
                    stdout=self._printed,
                    stderr=self._printed,
                    pass_fds=(theirs.fileno(), *networks),
                    start_new_session=True,
                )
            undo.pop_all()
        self.control = ControlChannel(ours)
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
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return f"the {self.side} process said nothing more"
        how = f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
        self._printed.seek(0)
        lines = self._printed.read().decode(errors="replace").split("\n")
        last = " | ".join([line.strip() for line in lines if line.strip()][-LAST_WORDS:])
        return f"the {self.side} process ended without a result ({how})" + (f": {last}" if last else "")

    def end(self) -> None:
        """See that the process is gone, and everything of it."""
        # To the process the end of the connection is its parent's end: it cancels in order what it still does.
        with self._printed:
            for tell in (self.control.sock.close, self._process.terminate, self._process.kill):
                tell()
                try:
                    self._process.wait(PATIENCE)
                    break
                except subprocess.TimeoutExpired:
                    continue
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
        link: the one that was made for it.
    """

    source: SideOutcome
    destination: SideOutcome
    cancelled: bool
    rounds: tuple[RoundResult, ...] = ()
    unbuilt: bool = False
    calls: tuple[LongCall, ...] = ()
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


def _on_one_clock(pair: PairResult, offset: float) -> PairResult:
    """The pair with the destination's times on the source's clock; ``offset``: how many seconds its own was ahead."""
    if pair.both is None:
        return pair
    source, destination = (side.report for side in pair.both)
    link = pair.link
    if link is not None and source.stopped and destination.running:
        truth = destination.running - round(offset * 1e9) - source.stopped
        link = link.model_copy(update={"true_downtime_ms": truth / 1e6 if offset else None})
    told = replace(pair.both[1], report=on_source_clock(source, destination))
    return replace(pair, destination=replace(pair.destination, result=told), link=link)


class ProcessPair:
    """Runs one migration between two processes.

    Arguments:
        seed: the same at both ends.
        where: the scenario's file, for errors.
    """

    def __init__(self, scenario: Scenario, model: str, seed: int, where: str) -> None:
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
            link = RealLink(self._link, self._task["seed"]) if self._link.imposed else None
            task = self._task
            if link is not None:
                stack.callback(link.end)
                task = task | {"host": link.host}
            destination = ChildProcess("destination", task, link, self._link.clock_offset)
            stack.callback(destination.end)
            source = ChildProcess("source", task, link)
            stack.callback(source.end)
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
            use,
        )
        return _on_one_clock(result, self._link.clock_offset)

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
