"""One of the two processes of a run, as it is seen from here."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from migpool.device import Side
from migpool.lab.run.child import ControlChannel, Message
from migpool.lab.run.local_process import SideProcess
from migpool.lab.run.long_calls import LongCall
from migpool.lab.run.pair_result import CALLS, SideOutcome
from migpool.lab.run.result import RoundResult
from migpool.lab.run.side import SideResult
from migpool.migration.states import State
from migpool.transport.address import Address


class WatchedSide:
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
