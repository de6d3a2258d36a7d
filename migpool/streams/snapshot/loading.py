"""Loads a machine from a file that :mod:`migpool.streams.snapshot.saving` wrote, and lets it run.

Nothing starts before everything has been loaded; after an error nothing has started.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import LoadConfig
from migpool.core.interpreter import Handlers, Interpreter, Job, of
from migpool.core.jobs import load_section
from migpool.core.machine import Machine, Slot
from migpool.core.stop_start import start
from migpool.core.trace import Tracer
from migpool.device import MemoryDevice
from migpool.errors import PeerError, ProtocolError, UsageError
from migpool.migration.main_channel import MachineSchema
from migpool.ram.destination import MemoryReceiving
from migpool.wire.configuration import Configuration
from migpool.wire.events import DeviceSection, Event
from migpool.wire.ram import MultifdFlush, RamBlocks, RamPages, RamSection, RamSectionEnd
from migpool.wire.records import Mark
from migpool.wire.sections import Kind, Section
from migpool.wire.stream import StreamReader

__all__ = ["SnapshotLoading"]

_SLICE = 4 << 20
_LENGTH = 4
"""Bytes of the length before a config that has no format of its own."""


class SnapshotLoading:
    """Loads one machine, once.

    Arguments:
        machine: its devices have no state yet. It is not closed here.
        check: called for every piece of the file; raises to give up.
    """

    def __init__(self, machine: Machine, check: Callable[[], None]) -> None:
        self._machine = machine
        self._check = check
        self._schema = MachineSchema(machine)
        self._complete: set[int] = set()
        handlers = Handlers()
        handlers.on(LoadConfig, lambda effect: effect.slot.device.load_config(effect.config))
        switch = CancelSwitch()
        self._interpreter = Interpreter(handlers, threading.Lock(), Tracer(), switch)
        slot = machine.memory
        self._memory: MemoryReceiving | None = None
        if slot is not None and isinstance(slot.device, MemoryDevice):
            self._memory = MemoryReceiving(slot, slot.device, 0, 1.0, switch)

    def run(self, path: Path) -> None:
        """Load the file, let the machine run, and have every device prove that it goes on.

        Raises:
            UsageError: the file cannot be read.
            MigpoolError: it is not whole, or not this machine's, or a device refuses its state or its proof.
        """
        try:
            self._load(path)
        finally:
            if self._memory is not None:
                self._memory.let_go()
        absent = [slot.name for slot in self._machine if slot.number not in self._complete]
        if absent:
            raise PeerError(f"{path} ends without {', '.join(absent[:3])}: it is of another machine: name its scenario")
        start(self._machine, Tracer())
        for slot in self._machine:
            of(slot, "verify", slot.device.verify)

    def _load(self, path: Path) -> None:
        reader = StreamReader(self._schema)
        try:
            with path.open("rb") as file:
                while data := file.read(_SLICE):
                    self._check()
                    reader.feed(data)
                    for item in reader.events():
                        self._take(item)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
        reader.end()
        for item in reader.events():
            self._take(item)

    def _take(self, item: Event) -> None:
        match item:
            case Configuration(machine=name) if name != self._machine.name:
                raise ProtocolError(item.offset, "configuration", f"the machine {self._machine.name!r}, found {name!r}")
            case RamSection() | RamBlocks() | RamPages() | MultifdFlush() | RamSectionEnd():
                self._take_memory(item)
            case DeviceSection():
                self._take_records(item)
            case Section(head):
                slot = self._schema.slot(head.idstr, head.instance_id, item.offset)
                data = self._schema.within(slot, item)
                if head.kind is Kind.START:
                    of(slot, "load_setup", partial(slot.device.load_setup, data))
                else:
                    self._config(slot, data)
            case _:
                pass

    def _take_memory(self, item: RamSection | RamBlocks | RamPages | MultifdFlush | RamSectionEnd) -> None:
        memory, slot = self._memory, self._machine.memory
        if memory is None or slot is None:
            raise ProtocolError(item.offset, "section", "a device of this machine, found RAM: it has no memory")
        match item:
            case RamSection(head) if head.kind is Kind.START:
                of(slot, "load_setup", partial(slot.device.load_setup, b""))
            case RamBlocks():
                memory.check_blocks(item)
            case RamPages():
                memory.load_pages(item)
            case MultifdFlush():
                raise ProtocolError(item.offset, "RAM", "pages in the file, found that they are on multifd channels")
            case RamSectionEnd(head) if head.kind is Kind.END:
                self._complete.add(slot.number)
            case _:
                pass

    def _take_records(self, item: DeviceSection) -> None:
        head = item.head
        slot = self._schema.slot(head.idstr, head.instance_id, item.offset)
        data = [record.data for record in item.records if record.mark is Mark.DATA]
        if head.kind is Kind.START:
            of(slot, "load", partial(slot.device.check_version, head.version))
            of(slot, "load_setup", partial(slot.device.load_setup, bytes(data[0]) if data else b""))
            return
        for piece in data:
            of(slot, "load_state", partial(slot.device.load_state, memoryview(piece)))
        for record in item.records:
            if record.mark is Mark.CONFIG:
                self._config(slot, bytes(record.data)[_LENGTH:])

    def _config(self, slot: Slot, config: bytes) -> None:
        self._interpreter.run(Job("section", load_section(slot, config), slot))
        self._complete.add(slot.number)
