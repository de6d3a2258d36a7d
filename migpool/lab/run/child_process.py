"""A process that migrates one side, as the process that compares sees it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from migpool.device import Side
from migpool.lab.run.messages import ControlChannel, Message
from migpool.lab.run.result import RoundResult
from migpool.lab.run.side import SideResult
from migpool.migration.states import State
from migpool.transport.address import Address

PATIENCE: Final = 5.0
"""Seconds between asking and telling, and between telling and killing."""
LAST_WORDS: Final = 3
"""Lines of what a process printed before it broke that are repeated."""


@dataclass(frozen=True, slots=True)
class SideOutcome:
    """How one process ended.

    Attributes:
        result: what it said of its migration; ``None`` if it did not come to that.
        failure: why there is no result, in one line; empty if there is one.
        freed: whether it was ended only because the other side had ended: then that one's error is the reason.
    """

    result: SideResult | None
    failure: str
    freed: bool = False
    warnings: tuple[str, ...] = ()

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

    Attributes:
        state: the last one that it told of.
        bytes: how much state it has sent or received, as it told.
        rounds: of pre-copy, as it told of them.
        listening: the destination's address; empty until it listens.
        outcome: how it ended; ``None`` until then.
        ended: when that was, on ``time.monotonic``; 0 until then.
        usage: why it refused to begin, if the scenario or the model is at fault.
    """

    def __init__(self, side: Side, task: Message) -> None:
        self.side = side
        self.state = State.NONE
        self.bytes = 0
        self.rounds: list[RoundResult] = []
        self.warnings: list[str] = []
        self.listening = ""
        self.outcome: SideOutcome | None = None
        self.ended = 0.0
        self.usage = ""
        self._learnt = self._asked = self._freed = False
        self._entered: list[State] = []
        with ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.enter_context(ours)
            self._printed = undo.enter_context(tempfile.TemporaryFile())
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "migpool.lab.run.child", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=self._printed,
                    stderr=self._printed,
                    pass_fds=(theirs.fileno(),),
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
        return [(self.side, state) for state in states]

    def _take(self, message: Message) -> None:
        match message:
            case {"state": state}:
                self.state = State(state)
                self._entered.append(self.state)
            case {"bytes": count}:
                self.bytes = count
            case {"round": form}:
                self.rounds.append(RoundResult(**form))
            case {"warning": text}:
                self.warnings.append(text)
            case {"listening": address}:
                self.listening = address
            case {"result": form}:
                self.outcome = SideOutcome(SideResult.from_json(form), "")
                self.bytes = self.outcome.result.report.bytes if self.outcome.result else self.bytes
            case {"error": error, "usage": usage}:
                self.outcome = SideOutcome(None, error)
                self.usage = error if usage else ""

    def learn(self, address: str) -> None:
        """Tell the source where the destination listens, once."""
        if address and not self._learnt:
            self._learnt = True
            self.control.send({"address": address})

    def cancel(self, *, freed: bool = False) -> None:
        """Ask it to cancel, once. ``freed``: the other side has ended, which is the reason."""
        if not self._asked and self.outcome is None:
            self._asked = True
            self._freed = freed
            self.control.send({"cancel": True})

    def give_up(self, limit: float) -> None:
        """It has not ended, and nothing moves any more."""
        if self.outcome is None:
            self.outcome = SideOutcome(
                None, f"nothing has moved for {limit:g} s in state {self.state.value}: the process was ended"
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
        self.control.close()  # to the process this is its parent's end: it cancels in order what it still does
        with self._printed:
            for tell in (None, self._process.terminate, self._process.kill):
                if tell is not None:
                    tell()
                try:
                    self._process.wait(PATIENCE)
                    break
                except subprocess.TimeoutExpired:
                    continue
        if self.listening.startswith("unix:"):
            # It removes its socket's directory itself, unless it was killed.
            shutil.rmtree(Path(Address.parse(self.listening).path).parent, ignore_errors=True)
