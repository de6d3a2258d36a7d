"""Saves a running machine into a file, in the form of QEMU's migration stream.

The jobs are those of a migration; only what their effects mean is different: what would go into a channel goes into
the file. The memory is written in rounds while the machine runs, as for a migration, so it stands still only for the
last one. A page that was written again stands in the file again, later: who loads the file in order ends with the last
state.

Everything is in the main stream, so ``migpool inspect`` reads the file: pages in PART sections of RAM, the state of an
iterable device in PART sections of records and its config in the END section.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import numpy as np

from migpool.core.buffers import Chunk
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import (
    Acquire,
    Credit,
    ReadState,
    Release,
    SaveConfig,
    Send,
    SendPages,
    SendSection,
    TakePages,
)
from migpool.core.interpreter import Handlers, Interpreter, Job, of
from migpool.core.jobs import save_pages, save_sections, save_state
from migpool.core.machine import Machine, Slot
from migpool.core.stop_start import run_again, stop
from migpool.core.trace import Tracer
from migpool.device import MemoryDevice, Pending
from migpool.errors import DeviceError
from migpool.migration.main_channel import config_section, counted, describe, setup_section
from migpool.migration.settings import Settings
from migpool.precopy.rounds import Limits, Precopy, Round
from migpool.ram.auto_converge import Converging
from migpool.ram.dirty_pages import PagePacket, Pages
from migpool.ram.page_effort import PageEffort
from migpool.streams.file.file import StreamFile
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.events import eof, header, vm_description
from migpool.wire.ram import RamBlock, RamBlocks
from migpool.wire.records import config_record, data_record, end_payload
from migpool.wire.sections import Kind, SectionHead, section_end, section_part

__all__ = ["SnapshotSaving"]


class SnapshotSaving:
    """Saves one machine, once. Afterwards it stands still; after an error it runs on.

    Arguments:
        machine: it runs. It is not closed here.
        settings: the size of a chunk, and what the rounds aim at.
        file: where to; whether it is kept is up to the caller.
        check: called before every chunk and packet, and before each device stops; raises to give up.
        progress: called after each round.
    """

    def __init__(
        self,
        machine: Machine,
        settings: Settings,
        file: StreamFile,
        check: Callable[[], None],
        progress: Callable[[Round], None] | None = None,
    ) -> None:
        self._machine = machine
        self._settings = settings
        self._file = file
        self._check = check
        self._progress = progress
        self._memory = _Memory(machine.memory, file, check) if machine.memory is not None else None
        self._converging = Converging(machine, throttle=settings.auto_converge)
        self._effort = PageEffort()
        self._interpreter = Interpreter(self._handlers(), threading.Lock(), Tracer(), CancelSwitch())

    def run(self) -> None:
        """Save it.

        Raises:
            MigpoolError: it cannot be saved; it runs on.
        """
        try:
            self._begin()
            self._iterate()
            stop(self._machine, Tracer(), self._check)
            self._end()
        except BaseException:
            self._log_no_more()
            run_again(self._machine)
            raise
        self._log_no_more()

    # ------------------------------------------------------------------ from top to bottom

    def _begin(self) -> None:
        self._machine.refuse_restless()
        self._file.write(header(), configuration(Configuration(self._machine.name)))
        if self._memory is not None:
            self._memory.begin()
        for slot in (*self._machine.sections, *self._machine.iterable):
            self._file.write(*setup_section(slot, of(slot, "save_setup", slot.device.save_setup)))
        self._description = describe(self._machine)

    def _iterate(self) -> None:
        memory, place = self._memory, self._machine.memory
        if memory is None or place is None:
            return
        limits = Limits(self._settings.downtime_limit, self._settings.rounds)
        turns = _Turns(memory, partial(self._interpreter.run))
        Precopy(
            (place,),
            turns,
            limits,
            self._watch,
            pending=lambda _: Pending(memory.pages.left),
            crossed=lambda *_: self._effort.since(),
        ).run()

    def _watch(self, done: Round) -> None:
        if self._progress is not None:
            self._progress(done)
        self._converging.after(done)

    def _end(self) -> None:
        if self._memory is not None:
            self._memory.look()
            self._interpreter.run(self._memory.job())
            self._memory.end()
        for slot in self._machine.iterable:
            self._interpreter.run(Job("save", save_state(slot), slot))
        self._interpreter.run(Job("sections", save_sections(self._machine.sections)))
        self._file.write(eof(), *vm_description(self._description))

    def _log_no_more(self) -> None:
        self._converging.end()
        if self._memory is not None:
            self._memory.device.stop_dirty_log()
            self._memory.pages.let_go()

    # ------------------------------------------------------------------ effects

    def _handlers(self) -> Handlers:
        handlers = Handlers()
        handlers.on(Acquire, lambda _: Chunk(self._settings.chunk))
        handlers.on(Release, lambda effect: effect.chunk.close())
        handlers.on(ReadState, self._read_state)
        handlers.on(Credit, self._credit)
        handlers.on(Send, self._send)
        handlers.on(SaveConfig, lambda effect: effect.slot.device.save_config())
        handlers.on(SendSection, self._send_section)
        if self._memory is not None:
            handlers.on(TakePages, self._memory.take)
            handlers.on(SendPages, self._memory.send)
            self._effort.watch(handlers)
        return handlers

    def _credit(self, effect: Credit) -> int:
        self._check()
        return effect.index + 1  # it is asked for every chunk

    def _read_state(self, effect: ReadState) -> int:
        chunk = effect.chunk
        if not isinstance(chunk, Chunk):
            raise DeviceError("its state cannot be spliced into a file")
        length = effect.slot.device.save_state(chunk.buffer)
        if not 0 <= length <= len(chunk.buffer):
            raise DeviceError(f"save_state says it filled {length} bytes of a buffer of {len(chunk.buffer)}")
        chunk.length = length
        return length

    def _send(self, effect: Send) -> None:
        number, chunk = effect.slot.number, effect.chunk
        if isinstance(chunk, bytes):
            self._file.write(*section_end(number, [*config_record(b"".join(counted(chunk))), end_payload()]))
        elif isinstance(chunk, Chunk):
            self._file.write(*section_part(number, [*data_record(chunk.payload), end_payload()]))

    def _send_section(self, effect: SendSection) -> None:
        self._file.write(*config_section(effect.slot, effect.config))


class _Memory:
    """The memory's sections and pages."""

    def __init__(self, slot: Slot, file: StreamFile, check: Callable[[], None]) -> None:
        assert isinstance(slot.device, MemoryDevice)
        self._slot = slot
        self.device = slot.device
        self._file = file
        self._check = check
        self._head = SectionHead(Kind.START, slot.number, self.device.idstr, 0, self.device.version)
        self.pages = Pages(self.device)

    def begin(self) -> None:
        of(self._slot, "save_setup", self.device.save_setup)
        blocks = tuple(RamBlock(block.name, len(block.memory)) for block in self.device.blocks)
        self._file.blocks(self._head, RamBlocks(blocks))
        of(self._slot, "start_dirty_log", self.device.start_dirty_log)

    def look(self) -> None:
        of(self._slot, "take_dirty", self.pages.look)

    def job(self) -> Job:
        self.pages.begin_round()
        return Job("pages", save_pages(self._slot), self._slot)

    def end(self) -> None:
        self._file.ram_ended(self._head)

    def take(self, effect: TakePages) -> list[PagePacket] | None:
        del effect
        self._check()
        return self.pages.take()

    def send(self, effect: SendPages) -> None:
        for packet in effect.packets:
            self._send(packet)

    def _send(self, packet: PagePacket) -> None:
        offsets = np.frombuffer(packet.offsets, dtype=">u8").tolist()
        size = self.device.page_size
        content = (view[at : at + size] for view in packet.views for at in range(0, len(view), size))
        normal = list(zip(offsets[: packet.normal], content, strict=True))
        zero = [(offset, None) for offset in offsets[packet.normal :]]
        self._file.pages(self._head, self.device.blocks[packet.block].name, [*normal, *zero])


class _Turns:
    """The memory's turns of pre-copy; see :class:`~migpool.precopy.rounds.Turns`."""

    def __init__(self, memory: _Memory, run: Callable[[Job], object]) -> None:
        self._memory = memory
        self._run = run

    def save(self, slot: Slot, precopy: int) -> int:
        del slot, precopy
        sent = self._memory.pages.left
        self._run(self._memory.job())
        self._memory.look()
        return sent

    def initial_sent(self, slot: Slot) -> None:
        del slot

    def pause(self, seconds: float) -> None:
        del seconds
