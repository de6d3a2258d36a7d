"""Saves a running machine into a file: a source whose main channel is the file, and that nobody answers.

The memory is written in rounds while the machine runs, as for a migration, so it stands still only for the last one. A
page that was written again stands in the file again, later: who loads the file in order ends with the last state.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from migpool.core.machine import Machine
from migpool.migration.endpoint import EndOptions
from migpool.migration.report import SideReport
from migpool.migration.save_handlers import Gates
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.migration.states import Event
from migpool.precopy.rounds import PrecopyLimits, Round, RoundMeasure
from migpool.schedulers.base import Scheduler
from migpool.streams.file.file import StreamFile
from migpool.transport.channel_group import ChannelGroup
from migpool.transport.main_channel import MainChannel
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.events import header

if TYPE_CHECKING:
    from migpool.ram.source import RamSource


class SnapshotSource(Source):
    """Saves one machine, once. Afterwards it stands still; after an error it runs on.

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
        self._gates = Gates(self._multifd_slots, self._switch, credited=False)
        stack.callback(self._threads.close)

    def _greet(self) -> None:
        self._main.write([header(), configuration(Configuration(self.machine.name))])

    def _next_answer(self) -> Callable[[str], None]:
        return lambda _: None  # who loads the file has all of it at once

    def _check_rounds(self, memory: RamSource, measured: RoundMeasure, limits: PrecopyLimits) -> None:
        """However much is left, it is written: nobody waits for this machine."""

    def _switch_over(self) -> None:
        """Nobody is told."""

    def _hand_over(self) -> None:
        self._file.keep()
        self._running, self._clock = time.monotonic_ns(), "monotonic"
        self._states.happen(Event.RUNNING)
