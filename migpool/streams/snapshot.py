"""A running machine into a file, and out of it again: the source and the destination of a migration without channels.

Without multifd channels everything stands in the main stream: pages in PART sections of RAM, the state of an iterable
device in PART sections of records and its config in the END section. So ``migpool inspect`` reads the file, and so does
whoever reads QEMU's stream. Nobody answers on either side.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Unpack

from migpool.core.machine import Machine
from migpool.errors import UsageError
from migpool.migration.destination import Destination
from migpool.migration.endpoint import EndOptions
from migpool.migration.report import SideReport
from migpool.migration.return_path_writer import ReturnPathWriter
from migpool.migration.save_handlers import Gates
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.migration.states import Event
from migpool.precopy.rounds import Precopy, PrecopyLimits, Round, RoundMeasure
from migpool.schedulers.base import Scheduler
from migpool.streams.file.file import StreamFile
from migpool.transport.channel_group import ChannelGroup
from migpool.transport.main_channel import MainChannel
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.stream import StreamEvent, StreamReader, header
from migpool.wire.unread import Buffer

if TYPE_CHECKING:
    from migpool.ram.source import RamSource

READ_SIZE = 4 << 20


class SnapshotSource(Source):
    """Saves one machine, once, into a file that is its main channel.

    Afterwards it stands still; after an error it runs on. The memory is written in rounds while the machine runs, as
    for a migration, so it stands still only for the last one. A page that was written again stands in the file again,
    later: who loads the file in order ends with the last state.

    Arguments:
        machine, settings, scheduler, progress, options: as a source's.
        file: where to. It is kept when it is whole, and the machine stands still only if that goes well.
    """

    def __init__(
        self,
        machine: Machine,
        settings: Settings,
        scheduler: Scheduler,
        file: StreamFile,
        *,
        progress: Callable[[Round], None] | None = None,
        **options: Unpack[EndOptions],
    ) -> None:
        alone = replace(settings, channels=0, credits=False, splice=False)
        super().__init__(machine, alone, scheduler, progress=progress, **options)
        self._file = file

    def save(self) -> SideReport:
        """Save it.

        Raises:
            MigpoolError: it cannot be saved, or this was cancelled; it runs on.
        """
        report = self._carry_out()
        if self._error is not None:
            raise self._error
        return report

    def _connect(self, stack: contextlib.ExitStack) -> None:
        file = self._file
        self._main = MainChannel(lambda buffers: file.write(*buffers))
        self._group = ChannelGroup((), self._waited_for_channel, self._switch)
        self._gates = Gates(self._multifd_slots, self._switch, credited=False, open_for=self._on_main)
        stack.callback(self._threads.close)

    def _greet(self) -> None:
        self._main.write([header(), configuration(Configuration(self.machine.name))])

    def _next_answer(self, precopy: Precopy) -> Callable[[str], None]:
        del precopy
        return lambda _: None  # who loads the file has all of it at once

    def _check_rounds(self, memory: RamSource, measured: RoundMeasure, limits: PrecopyLimits) -> None:
        """However much is left, it is written: nobody waits for this machine."""

    def _switch_over(self) -> None:
        """Nobody is told."""

    def _hand_over(self, end: Sequence[Buffer]) -> None:
        self._main.write(end)
        self._file.keep()
        self._running, self._clock = time.monotonic_ns(), "monotonic"
        self._states.happen(Event.RUNNING)


class SnapshotDestination(Destination):
    """Loads one machine, once, from a file that is its main channel, and lets it run.

    Nothing starts before everything has been loaded; after an error nothing has started.

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
        self._reader = StreamReader(self._schema)
        self._items = self._read_items()
        return ()

    def _start_receivers(self, channels: Sequence[socket.socket], stack: contextlib.ExitStack) -> None:
        del channels
        self._accepted = True
        stack.callback(self._threads.close)

    def _read_items(self) -> Iterator[StreamEvent]:
        return self._reader.read(self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        try:
            while data := self._file.read(READ_SIZE):
                self._switch.check()
                yield data
        except OSError as error:
            raise self._unreadable(error) from None

    def _load(self) -> None:
        super()._load()
        for item in self._items:  # nothing starts from a file that is cut in its last bytes
            self._take(item)

    def _unreadable(self, error: OSError) -> UsageError:
        return UsageError(f"{self._path} cannot be read: {error.strerror or error}")
