"""What the main channel's sections do to the destination's devices: set-up, pre-copy, configs, rounds of the memory.

Guarantees:

1. A section is for a device of this machine, and comes when it may: set-up first, each config once, no state of an
   iterable device after the switchover, unless it crosses here and not over the multifd channels.
2. Everything is loaded on the thread that reads the main channel, before the next item is read.
3. The source hears when its machine may stop: ``acknowledgements.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from migpool.core.effects import SayLoaded
from migpool.core.interpreter import Interpreter, Job
from migpool.core.jobs import load_section
from migpool.core.machine import Machine, Slot
from migpool.core.own_effects import AwaitSyncs, LoadIterated, LoadPages, LoadSetup
from migpool.errors import ProtocolError
from migpool.migration.acknowledgements import Acknowledgements
from migpool.migration.sections import MachineSchema
from migpool.wire.ram import MultifdFlush, RamBlocks, RamPages, RamSection, RamSectionEnd
from migpool.wire.records import Mark
from migpool.wire.sections import Kind, Section
from migpool.wire.stream import DeviceSection

if TYPE_CHECKING:
    from migpool.ram.destination import RamDestination

MemoryItem: TypeAlias = RamSection | RamBlocks | RamPages | MultifdFlush | RamSectionEnd


@dataclass(frozen=True, slots=True)
class LiveRounds:
    """What devices give while they run comes over the multifd channels.

    Attributes:
        begin: called when a device has chunks in this round.
        end: called to wait until everything is loaded that has been begun.
    """

    begin: Callable[[Slot], None]
    end: Callable[[], None]


class SectionLoader:
    """Loads what comes on the main channel.

    Arguments:
        machine: whose devices are loaded.
        schema: knows whose a section is, and the config within.
        memory: takes the pages; ``None`` for a machine without memory.
        interpreter: performs it.
        acknowledgements: hears what may be answered to the source.
        channels: how many multifd channels there are.
        on_main: the numbers of the iterable devices whose state and config come here.
        described: the devices that are not iterable and whose config comes on those channels.
        live: what to do in a round of pre-copy, if its chunks come on the multifd channels.
        memory_complete: called once the last page of the memory is in its place.

    Attributes:
        bytes: of configs and pages that have come on the main channel.
    """

    def __init__(
        self,
        machine: Machine,
        schema: MachineSchema,
        memory: RamDestination | None,
        interpreter: Interpreter,
        acknowledgements: Acknowledgements,
        *,
        channels: int,
        on_main: Collection[int],
        described: Sequence[Slot] = (),
        memory_complete: Callable[[], None] | None = None,
        live: LiveRounds | None = None,
    ) -> None:
        self._live = live
        self._in_round: set[int] = set()
        self._channels = channels
        self._on_main = on_main
        self._described = {slot.number for slot in described}
        self._memory_complete = memory_complete
        self._machine = machine
        self._schema = schema
        self._memory = memory
        self._interpreter = interpreter
        self._acknowledgements = acknowledgements
        self._begun: set[int] = set()
        self._seen: set[int] = set()
        self.bytes = 0

    def iterable(self, item: DeviceSection, *, runs: bool) -> None:
        """Load a section of an iterable device.

        Arguments:
            item: the section.
            runs: whether the machine still runs at the source.

        Raises:
            ProtocolError: no such device, or state that has no place here.
            DeviceError: the device cannot load it.
        """
        head = item.head
        slot = self._schema.slot(head.idstr, head.instance_id, item.offset)
        here = slot.number in self._on_main
        data = [record.data for record in item.records if record.mark is Mark.DATA]
        configs = [record.data for record in item.records if record.mark is Mark.CONFIG]
        if head.kind is Kind.START:
            self._interpreter.once(LoadSetup(slot, bytes(data[0]) if data else b"", head.version))
            self._begun.add(slot.number)
            if not here:  # it has come once its config has
                self._seen.add(slot.number)
            self._acknowledgements.set_up(self._begun)
            return
        if runs:
            self._acknowledgements.gives(slot.number)
        if self._live is not None and runs and not configs and not data:
            self._round(self._live, slot, item)
        elif not here and (configs or (data and (self._live is not None or not runs))):
            raise ProtocolError(
                item.offset,
                f"{head.kind.name} section of {slot.name}",
                'no state here but on the multifd channels (vmsd = "main-channel" for a device that sends it here)',
            )
        elif here and slot.number in self._seen:
            raise ProtocolError(item.offset, f"{head.kind.name} section of {slot.name}", "nothing after its config")
        else:
            for piece in data:
                self._interpreter.once(LoadIterated(slot, memoryview(piece)))
            if _says_initial(item):
                self._acknowledgements.initial_sent(slot.number)
            for config in configs:
                self._load_config(slot, self._schema.recorded(slot, config))

    def _round(self, live: LiveRounds, slot: Slot, item: DeviceSection) -> None:
        """A device has chunks in this round; or has had all of its initial data in those before."""
        initial = _says_initial(item)
        if initial or slot.number in self._in_round:
            live.end()
            self._in_round.clear()
        if initial:
            self._acknowledgements.initial_sent(slot.number)
            return
        self._in_round.add(slot.number)
        live.begin(slot)

    def section(self, item: Section) -> None:
        """Load a section of a device that is not iterable: data for its set-up, or its config.

        Raises:
            ProtocolError: no such device, or its config has come before.
            DeviceError: the device cannot load it.
        """
        head = item.head
        slot = self._schema.slot(head.idstr, head.instance_id, item.offset)
        if head.kind not in (Kind.START, Kind.FULL) or slot.number in self._seen:
            raise ProtocolError(item.offset, str(head), "each device that is not iterable once, in a FULL section")
        data = self._schema.within(slot, item)
        if head.kind is Kind.START:
            self._interpreter.once(LoadSetup(slot, data))
            return
        if slot.number in self._described:
            raise ProtocolError(item.offset, str(head), "no config here but on the multifd channels")
        self._load_config(slot, data)

    def _load_config(self, slot: Slot, config: bytes) -> None:
        for number in slot.after:
            other = self._machine.slots[number]
            if other.device.optional and number not in self._seen:  # it would have come before, so it never does
                self._seen.add(number)
                self._interpreter.once(SayLoaded(other))
        self._seen.add(slot.number)
        self.bytes += len(config)
        self._interpreter.run(Job("section", load_section(slot, config), slot))

    def memory(self, item: MemoryItem) -> None:
        """Take an item of the memory's: its blocks, pages, the end of a round.

        Raises:
            ProtocolError: the machine has no memory, or another; or the item is out of place.
            DeviceError: the memory cannot be set up.
        """
        memory, slot = self._memory, self._machine.memory
        if memory is None or slot is None:
            raise ProtocolError(item.offset, "section", "a device of this machine, found RAM: it has no memory")
        match item:
            case RamSection(head):
                if (head.kind is Kind.START) is (slot.number in self._seen):
                    raise ProtocolError(item.offset, str(head), "one START section of RAM, before all others")
                if head.kind is Kind.START:
                    self._interpreter.once(LoadSetup(slot, b""))
                    self._seen.add(slot.number)
                elif head.kind is Kind.PART:
                    self._acknowledgements.iterates()
            case RamBlocks():
                memory.check_blocks(item)
            case RamPages():
                self.bytes += self._interpreter.once(LoadPages(slot, item))
            case MultifdFlush():
                if not self._channels:
                    raise ProtocolError(item.offset, "RAM", "pages here, found that they are on multifd channels")
                self._interpreter.once(AwaitSyncs(slot))
            case RamSectionEnd(head):
                memory.complete = head.kind is Kind.END
                if memory.complete:
                    self._interpreter.once(SayLoaded(slot))
                    if self._memory_complete is not None:
                        self._memory_complete()

    def absent(self) -> list[str]:
        """What has not come of what a whole stream has, by name."""
        seen = self._seen | self._described  # who has jobs is waited for there
        absent = [slot.name for slot in self._machine if not (slot.number in seen or slot.device.optional)]
        if self._memory is not None and not self._memory.complete:
            absent.insert(0, "the last pages of the memory")
        return absent


def _says_initial(item: DeviceSection) -> bool:
    """Whether the section says that all initial data of its device has been sent."""
    return any(record.mark is Mark.INITIAL_DATA_SENT for record in item.records)
