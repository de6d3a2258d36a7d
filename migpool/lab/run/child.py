"""One side of one migration as a process: ``python -m migpool.lab.run.child FD``.

Started by :mod:`migpool.lab.run.processes`; FD is its end of the control connection, of which
:mod:`migpool.lab.run.messages` tells. It prints nothing, unless it breaks.

Guarantees:

1. It cancels its migration in order when it is told to, when it gets SIGINT or SIGTERM, and when its parent is gone.
2. It outlives its parent by ``ORPHAN_LIMIT`` seconds at most.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from migpool.errors import Cancelled, MigpoolError, UsageError
from migpool.lab.run.messages import ControlChannel, Message
from migpool.lab.run.result import RoundResult
from migpool.lab.run.side import SideRun
from migpool.lab.run.warned import warnings_told
from migpool.scenario.model_names import parse_model
from migpool.scenario.schema import Scenario, parse_scenario
from migpool.transport.address import Address

ORPHAN_LIMIT: Final = 20.0
TICK: Final = 0.1
"""Seconds between two reports of progress."""


class Child:
    """The process's main thread: it listens to the parent while the migration has a thread of its own."""

    def __init__(self, control: ControlChannel) -> None:
        self._control = control
        self._signalled = False
        self._cancelled = False
        self._told = 0
        self._task: Message | None = None
        self._address = ""
        self._run: SideRun | None = None
        self._undo = ExitStack()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_writer.setblocking(False)

    def serve(self) -> None:
        """Do what the parent says, until the migration is over."""
        with (
            self._wake_reader,
            self._wake_writer,
            selectors.DefaultSelector() as selector,
            self._undo,
        ):
            self._catch_signals()
            selector.register(self._control.sock, selectors.EVENT_READ, self._hear)
            selector.register(self._wake_reader, selectors.EVENT_READ, self._wake)
            while self._run is None or not self._run.join(0):
                for key, _ in selector.select(TICK):
                    if key.data() is False:
                        selector.unregister(key.fileobj)
                if self._signalled:
                    self._cancel()
                if self._run is None:
                    if self._cancelled:
                        raise Cancelled("cancelled before it began")
                    self._begin()
                else:
                    self._tell_progress(self._run)
            self._control.send({"result": self._run.result().to_json()})

    def _catch_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note_signal)
        # Python runs a handler only once the selector has returned: the signal itself must wake it.
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)

    def _note_signal(self, *_: object) -> None:
        # Only noted: cancelling takes locks, which this very thread may hold just now.
        self._signalled = True

    def _hear(self) -> bool:
        messages = self._control.receive()
        if messages is None:
            self._cancel()
            # An orphan that cannot end in order ends all the same: nobody is left to end it.
            watchdog = threading.Timer(ORPHAN_LIMIT, os._exit, (1,))
            watchdog.daemon = True
            watchdog.start()
            return False
        for message in messages:
            self._task = message.get("task", self._task)
            self._address = message.get("address", self._address)
            if "cancel" in message:
                self._cancel()
        return True

    def _wake(self) -> bool:
        self._wake_reader.recv(4096)
        return True

    def _cancel(self) -> None:
        self._cancelled = True
        if self._run is not None:
            self._run.cancel()

    def _begin(self) -> None:
        """Begin, if everything is known that it takes."""
        task = self._task
        if task is None or (task["side"] == "source" and not self._address):
            return
        scenario = parse_scenario(task["scenario"], task["where"])
        self._run = SideRun(
            scenario,
            parse_model(task["model"]),
            task["side"],
            task["seed"],
            self._where(scenario),
            where=task["where"],
            watch=lambda state: self._tell({"state": state.value}),
            listening=lambda address: self._tell({"listening": str(address)}),
            ended=self._wake_up,
            progress=lambda done: self._tell({"round": RoundResult.of(done).model_dump()}),
        )
        self._run.start()

    def _where(self, scenario: Scenario) -> Address:
        if self._address:
            return Address.parse(self._address)
        if scenario.channels.transport == "unix":
            private = tempfile.TemporaryDirectory(prefix="migpool-", ignore_cleanup_errors=True)
            return Address(path=str(Path(self._undo.enter_context(private), "migration")))
        return Address(host="127.0.0.1", port=0)

    def _wake_up(self) -> None:
        try:
            self._wake_writer.send(b"\0")
        except OSError:
            pass  # full: it will wake up anyway

    def _tell(self, message: Message) -> None:
        self._control.send(message)

    def _tell_progress(self, run: SideRun) -> None:
        if run.bytes != self._told:
            self._told = run.bytes
            self._tell({"bytes": self._told})


def main() -> None:
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    control = ControlChannel(socket.socket(fileno=descriptor))
    try:
        with warnings_told(lambda text: control.send({"warning": text})):
            Child(control).serve()
    except MigpoolError as error:
        control.send({"error": str(error), "usage": isinstance(error, UsageError)})
    finally:
        control.close()


if __name__ == "__main__":
    main()
