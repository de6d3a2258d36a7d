"""Loads a machine from a file, and lets it run: a destination whose main channel is the file, and that answers nobody.

Nothing starts before everything has been loaded; after an error nothing has started.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Unpack

from migpool.core.machine import Machine
from migpool.errors import UsageError
from migpool.migration.destination import Destination
from migpool.migration.endpoint import EndOptions
from migpool.migration.report import SideReport
from migpool.migration.return_path_writer import ReturnPathWriter
from migpool.migration.settings import Settings
from migpool.migration.states import Event
from migpool.schedulers.base import Scheduler
from migpool.wire.events import StreamEvent
from migpool.wire.stream import StreamReader

READ_SIZE = 4 << 20


class SnapshotDestination(Destination):
    """Loads one machine, once.

    Arguments:
        machine, settings, scheduler, options: as a destination's; the devices have no state yet.
    """

    _remedy = "it is of another machine: name its scenario"

    _file: BinaryIO
    _path: Path

    def __init__(
        self, machine: Machine, settings: Settings, scheduler: Scheduler, **options: Unpack[EndOptions]
    ) -> None:
        super().__init__(machine, replace(settings, channels=0, splice=False), scheduler, **options)

    def load(self, path: Path) -> SideReport:
        """Load the file, let the machine run, and have every device prove that it goes on.

        Raises:
            UsageError: the file cannot be read.
            MigpoolError: it is not whole, or not this machine's, or a device refuses its state or its proof.
        """
        self._path = path
        report = self._carry_out()
        if self._error is not None:
            raise self._error
        return report

    def _accept(self, stack: contextlib.ExitStack) -> tuple[socket.socket, ...]:
        try:
            self._file = stack.enter_context(self._path.open("rb"))
        except OSError as error:
            raise self._unreadable(error) from None
        self._return_path = ReturnPathWriter(lambda _: None)
        return ()

    def _start_receivers(self, channels: Sequence[socket.socket], stack: contextlib.ExitStack) -> None:
        del channels
        self._accepted = True
        stack.callback(self._threads.close)

    def _read_items(self, reader: StreamReader) -> Iterator[StreamEvent]:
        try:
            while data := self._file.read(READ_SIZE):
                self._switch.check()
                reader.feed(data)
                yield from reader.events()
        except OSError as error:
            raise self._unreadable(error) from None
        reader.end()
        yield from reader.events()

    def _load(self) -> None:
        super()._load()
        for item in self._items:  # nothing starts from a file that is cut in its last bytes
            self._take(item)
        self._states.happen(Event.SWITCH_OVER)

    def _unreadable(self, error: OSError) -> UsageError:
        return UsageError(f"{self._path} cannot be read: {error.strerror or error}")
