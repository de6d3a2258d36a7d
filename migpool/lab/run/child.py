"""One side of one migration as a process: ``python -m migpool.lab.run.child FD [NETWORK OFFSET]``.

Started by :mod:`migpool.lab.run.process_pair`; FD is its end of the connection, over which the two say to each other, a
JSON object a line::

    parent                                     child
      {"task": {...}}                  ->        side, scenario, model, seed, where; of two hosts: the destination's
                                                 host, insecure, exchanges
      {"address": "tcp:127.0.0.1:34567"} ->      to the source: where the destination listens
      {"cancel": true}                 ->        once
                                       <-        {"state": "setup"} ...
                                       <-        {"listening": "tcp:127.0.0.1:34567"}
                                       <-        {"bytes": 1048576}      a few times a second
                                       <-        {"round": {...}}        of pre-copy, when it is over
                                       <-        {"warning": "..."}      what Python or a library warns of
                                       <-        {"calls": [...]}        of devices, that last for long; once a second
                                       <-        {"result": {...}}       the side's result, and the end
                                       <-        {"error": "...", "usage": true, "traceback": ""} no migration at all

NETWORK is a descriptor of the network namespace to enter, OFFSET how many seconds its clock is to be ahead: both are
done before there is a second thread. The task then has a ``host``, where the destination listens.

Each end reads the other's death as the end of the connection. The child prints nothing, unless it breaks.

Guarantees:

1. It cancels its migration in order when it is told to, when it gets SIGINT or SIGTERM, and when its parent is gone.
2. It outlives its parent by ``ORPHAN_LIMIT`` seconds at most.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from traceback import format_stack
from typing import Any, Final

from migpool.core.device_calls import exits_told
from migpool.core.plugin_errors import traceback_of
from migpool.device import Side
from migpool.errors import BuildError, Cancelled, MigpoolError, UsageError
from migpool.lab.run.link.namespaces import enter_network, shift_clocks
from migpool.lab.run.long_calls import long_calls
from migpool.lab.run.result import RoundResult
from migpool.lab.run.side import SideRun, warnings_told
from migpool.scenario.model_syntax import parse_model
from migpool.scenario.schema import Scenario, parse_scenario
from migpool.transport.address import Address

REALLY_EXIT: Final = os._exit
"""Not told of as a device's call of it would be."""
ORPHAN_LIMIT: Final = 20.0
TICK: Final = 0.1
"""Seconds between two reports of progress."""

SECOND: Final = 1.0
"""Seconds between two looks for calls that last for long."""

Message = dict[str, Any]
READ_SIZE = 1 << 18


class ControlChannel:
    """One end of the connection. ``sock``: a connected stream socket; owned from now on."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._kept = b""
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message, from any thread; nothing happens if nobody is there to take it."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            with self._sending:
                self.sock.sendall(data)
        except OSError:
            pass

    def receive(self) -> list[Message] | None:
        """The messages that one read brings, perhaps none yet; ``None`` at the end. Waits for the read."""
        try:
            data = self.sock.recv(READ_SIZE)
        except OSError:
            return None
        if not data:
            return None
        *lines, self._kept = (self._kept + data).split(b"\n")
        return [json.loads(line) for line in lines]


class Child:
    """The process's main thread, while a thread listens to the parent and the migration has one of its own."""

    def __init__(self, control: ControlChannel) -> None:
        self._control = control
        self._told: Message = {}
        self._complete = threading.Event()
        self._signalled = False
        self._cancelled = threading.Event()
        self._run: SideRun | None = None
        self._looked = 0.0
        self._calls_told = False

    def serve(self) -> None:
        """Do what the parent says, until the migration is over."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note_signal)
        threading.Thread(target=self._listen, name="control", daemon=True).start()
        while not self._complete.wait(TICK):
            self._cancel_if_signalled()
        if self._cancelled.is_set():
            raise Cancelled("cancelled before it began")
        with ExitStack() as undo:
            self._run = run = self._made(self._told["task"], undo)
            run.start()
            if self._cancelled.is_set():  # by a word that came before there was anything to cancel
                run.cancel()
            told = 0
            while not run.join(TICK):
                self._cancel_if_signalled()
                self._tell_long_calls(run.side)
                if run.bytes != told:
                    told = run.bytes
                    self._control.send({"bytes": told})
            self._control.send({"result": run.result().to_json()})

    def _tell_long_calls(self, side: Side) -> None:
        if (now := time.monotonic()) < self._looked + SECOND:
            return
        self._looked = now
        calls = [call.to_json() for call in long_calls(side)]
        if calls or self._calls_told:
            self._control.send({"calls": calls})
        self._calls_told = bool(calls)

    def _note_signal(self, *_: object) -> None:
        # Only noted: cancelling takes locks, which this very thread may hold just now.
        self._signalled = True

    def _cancel_if_signalled(self) -> None:
        if self._signalled:
            self._cancel()

    def _listen(self) -> None:
        while (messages := self._control.receive()) is not None:
            for message in messages:
                self._told |= message
            if "cancel" in self._told:
                self._cancel()
            elif "address" in self._told or self._told.get("task", {}).get("side") == "destination":
                self._complete.set()
        self._cancel()
        # An orphan that cannot end in order ends all the same: nobody is left to end it.
        time.sleep(ORPHAN_LIMIT)
        REALLY_EXIT(1)

    def _cancel(self) -> None:
        self._cancelled.set()
        self._complete.set()
        if self._run is not None:
            self._run.cancel()

    def _made(self, task: Message, undo: ExitStack) -> SideRun:
        scenario = parse_scenario(task["scenario"], task["where"])
        return SideRun(
            scenario,
            parse_model(task["model"]),
            task["side"],
            task["seed"],
            self._where(scenario, undo),
            where=task["where"],
            insecure=task.get("insecure", False),
            exchanges=task.get("exchanges", 0),
            watch=lambda state: self._control.send({"state": state.value}),
            listening=lambda address: self._control.send({"listening": str(address)}),
            progress=lambda done: self._control.send({"round": RoundResult.of(done).model_dump()}),
        )

    def _where(self, scenario: Scenario, undo: ExitStack) -> Address:
        if "address" in self._told:
            return Address.parse(self._told["address"])
        if scenario.channels.transport == "unix":
            private = tempfile.TemporaryDirectory(prefix="migpool-", ignore_cleanup_errors=True)
            return Address(path=str(Path(undo.enter_context(private), "migration")))
        return Address(host=self._told["task"].get("host", "127.0.0.1"), port=0)


def _enter(network: int, offset: float) -> None:
    enter_network(network)
    os.close(network)
    if offset:
        shift_clocks(offset)


def main() -> None:
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    control = ControlChannel(socket.socket(fileno=descriptor))
    faulthandler.enable(2)

    def tell_exit(text: str) -> None:
        control.send(
            {"error": text, "usage": False, "unbuilt": False, "traceback": "".join(format_stack(sys._getframe(2)))}
        )

    try:
        if len(sys.argv) > 2:
            _enter(int(sys.argv[2]), float(sys.argv[3]))
        with warnings_told(lambda text: control.send({"warning": text})), exits_told(tell_exit):
            Child(control).serve()
    except MigpoolError as error:
        told = {"usage": isinstance(error, UsageError), "unbuilt": isinstance(error, BuildError)}
        control.send({"error": str(error), "traceback": traceback_of(error), **told})


if __name__ == "__main__":
    main()
