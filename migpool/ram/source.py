"""The memory at the source: its set-up, its turns in pre-copy, its sections, and what the effects of its jobs mean.

::

    main channel                                        every multifd channel
      START ram: the list of blocks, FLUSH                SYNC
      PART ram: FLUSH                  each round         pages ..., SYNC
      END ram: FLUSH                   machine stopped    pages ..., SYNC

A FLUSH on the main channel says that every channel carries a SYNC. The destination lets no page of a later round
overtake one of an earlier round: it reads nothing behind a SYNC before all channels have theirs. Of machine types up to
8.0 a QEMU takes the end of each section for a FLUSH, and so none is said.

Without multifd channels the pages stand in PART sections of the main channel, one a packet, and no FLUSH is needed: a
page that is sent again stands there again, later.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from itertools import zip_longest
from struct import Struct
from time import monotonic_ns

from migpool.core.device_calls import of
from migpool.core.effects import SendPages, TakePages
from migpool.core.interpreter import Interpreter, Job
from migpool.core.jobs import save_pages
from migpool.core.machine import Machine, Slot
from migpool.core.own_effects import EndRound, LookForDirty, SaveSetup
from migpool.device import MemoryDevice, Pending
from migpool.errors import UsageError
from migpool.precopy.rounds import Precopy, PrecopyLimits, Round, Saved, Turns
from migpool.ram.auto_converge import AutoConverge
from migpool.ram.dirty_pages import PACKETS_AT_ONCE, Pages
from migpool.transport.channel_group import ChannelGroup
from migpool.transport.main_channel import MainChannel
from migpool.wire.configuration import Configuration
from migpool.wire.ram import RamBlock, block_list, multifd_flush, pages, ram_section_end
from migpool.wire.rampacket import PagePacket, RamPacketWriter
from migpool.wire.sections import Kind, head_bytes
from migpool.wire.unread import Buffer

_OFFSET = Struct(">Q")


class PageEffort:
    """What the jobs of the memory really sent, on any thread, and which part of their time that took.

    A page of zeros is looked through and named, but crosses as eight bytes. If its size counted, the rate would be too
    high, and the expected downtime too short; if only its time counted, the rate would be too low. So neither does: all
    that is left at the stop is taken to have content.

    The time is the jobs' own, on all threads together. The zeros' part of it are the looks at packets, by how many of
    their pages hold zeros, and the sending of packets that hold nothing else.

    Attributes:
        bytes: of pages that have been sent so far.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.bytes = self._counted = self._nanoseconds = self._for_zeros = 0

    def looked(self, packets: Sequence[PagePacket], took: int) -> None:
        """Packets were made, in so many nanoseconds."""
        zero = sum([packet.zero for packet in packets])
        self._add(0, took, took * zero // (zero + sum([packet.normal for packet in packets])))

    def sent(self, packets: Sequence[PagePacket], took: int) -> None:
        """Packets were sent, in so many nanoseconds."""
        size = sum([packet.size for packet in packets])
        self._add(size, took, 0 if size else took)

    def since(self) -> tuple[int, float]:
        """Return what has been sent since this was called last, and which part of the time that took."""
        with self._lock:
            sent, spent, zeros = self.bytes - self._counted, self._nanoseconds, self._for_zeros
            self._counted, self._nanoseconds, self._for_zeros = self.bytes, 0, 0
        return sent, 1.0 - zeros / spent if spent else 1.0

    def _add(self, size: int, took: int, for_zeros: int) -> None:
        with self._lock:
            self.bytes += size
            self._nanoseconds += took
            self._for_zeros += for_zeros


class RamSource:
    """The memory of one machine, while it is sent.

    Arguments:
        machine: has a memory.
        group: the multifd channels; there may be none.
        main: the main channel.
        run: runs jobs under the threading model, and returns when all have ended.
        interpreter: performs what is no job.
        throttle: whether vCPUs are slowed down when they write faster than can be sent.

    Attributes:
        check: called with what was measured when the rounds are over; see :meth:`AutoConverge.check`.
    """

    def __init__(
        self,
        machine: Machine,
        group: ChannelGroup,
        main: MainChannel,
        run: Callable[[list[Job]], None],
        interpreter: Interpreter,
        *,
        throttle: bool,
    ) -> None:
        slot = machine.memory
        assert slot is not None
        assert isinstance(slot.device, MemoryDevice)
        self._machine = machine
        self._slot = slot
        self._device = slot.device
        self._group = group
        self._main = main
        self._run = run
        self._interpreter = interpreter
        self._auto_converge = AutoConverge(machine, throttle=throttle)
        self.check = self._auto_converge.check
        self._effort = PageEffort()
        self._writers = threading.local()
        self._names = [block.name for block in slot.device.blocks]
        said = group and not Configuration(machine.name).flushes_each_section
        self._flush = multifd_flush() if said else b""
        self._pages = Pages(slot.device)
        handlers = interpreter.handlers
        handlers.on(TakePages, self._take)
        handlers.on(SendPages, self._send)
        handlers.on(LookForDirty, lambda _: self._pages.look())
        handlers.on(EndRound, lambda effect: self._end_round(last=effect.last))

    @property
    def bytes(self) -> int:
        """Of pages that have been sent so far."""
        return self._effort.bytes

    def set_up(self) -> None:
        """Tell the destination of the blocks, and log from now on what is written.

        Raises:
            UsageError: the device has data for the set-up, which the stream has no place for.
        """
        if self._interpreter.once(SaveSetup(self._slot)):
            raise UsageError(f"{self._slot.name}: a memory device cannot have data for the set-up")
        blocks = [RamBlock(block.name, len(block.memory)) for block in self._device.blocks]
        self._section(Kind.START, block_list(blocks))
        of(self._slot, "start_dirty_log", self._device.start_dirty_log)

    def precopy(self, others: Turns, limits: PrecopyLimits, progress: Callable[[Round], None] | None) -> Precopy:
        """The rounds of the memory and of all iterable devices.

        Arguments:
            others: the turns of the iterable devices.
            limits: what they aim at.
            progress: called after each round.
        """

        def watch(done: Round) -> None:
            if progress is not None:
                progress(done)
            self._auto_converge.after(done)

        slots = (self._slot, *self._machine.iterable)
        return Precopy(slots, _Turns(self, self._slot, others), limits, watch)

    def pending(self) -> Pending:
        """What is left as of the last look."""
        return Pending(self._pages.left)

    def send_round(self) -> Saved:
        """Send every page that is to be sent, once, and see what was written meanwhile."""
        left = self._pages.left
        self._run(self._jobs())
        self._interpreter.once(EndRound(self._slot))
        self._interpreter.once(LookForDirty(self._slot))
        return Saved(left, *self._effort.since())

    def iterate(self) -> None:
        """Begin an iteration without a page: a destination sees by it that the one before is over."""
        self._section(Kind.PART)

    def last_jobs(self) -> list[Job]:
        """The machine stands still: the jobs that send what is left."""
        self._interpreter.once(LookForDirty(self._slot))
        return self._jobs()

    def end(self) -> None:
        """The last jobs have ended, and so has every other one.

        Not before: a destination whose main channel waits for a job could not hear of a FLUSH before that job's chunks,
        which would stand behind the SYNC.
        """
        self._interpreter.once(EndRound(self._slot, last=True))

    def close(self) -> None:
        """Take the throttle away, and log no more. Harmless at any time."""
        self._auto_converge.end()
        of(self._slot, "stop_dirty_log", self._device.stop_dirty_log)

    def let_go(self) -> None:
        """Hold no view of the memory any more: its owner may close it. Every job has ended."""
        self._pages.let_go()

    # ------------------------------------------------------------------ rounds and sections

    def _jobs(self) -> list[Job]:
        """Begin a round with every page that is to be sent; the jobs that carry it out."""
        # With a limit on the rate each packet goes by itself, or it would go in bursts.
        self._pages.begin_round(1 if self._group.paced else PACKETS_AT_ONCE)
        # More jobs than channels or processors would only wait for each other.
        lanes = max(1, min(len(self._group), os.cpu_count() or 1))
        return [Job("pages", save_pages(self._slot), self._slot) for _ in range(lanes)]

    def _end_round(self, *, last: bool) -> None:
        """All jobs of a round have ended: no page of the next one may overtake theirs."""
        if self._group or last:
            self._section(Kind.END if last else Kind.PART)

    def _section(self, kind: Kind, payload: Buffer = b"") -> None:
        self._group.sync(self._slot.name, self._device.page_size)
        self._write(kind, [payload, self._flush])

    def _write(self, kind: Kind, payload: Sequence[Buffer]) -> None:
        self._main.write([head_bytes(self._slot.head(kind)), *payload, ram_section_end(self._slot.section_id)])

    # ------------------------------------------------------------------ pages, on any thread

    def _take(self, _effect: TakePages) -> list[PagePacket] | None:
        begin = monotonic_ns()
        packets = self._pages.take()
        if packets is not None:
            self._effort.looked(packets, monotonic_ns() - begin)
        return packets

    def _send(self, effect: SendPages) -> None:
        begin, packets = monotonic_ns(), effect.packets
        if self._group:
            effect.index = self._group.send_pages(effect.slot.name, effect.index, self._own_writers(), packets)
        else:
            self._write_pages(packets)
        self._effort.sent(packets, monotonic_ns() - begin)

    def _write_pages(self, packets: Sequence[PagePacket]) -> None:
        size = self._device.page_size
        for packet in packets:
            offsets = (number for (number,) in _OFFSET.iter_unpack(packet.offsets))
            contents = (view[at : at + size] for view in packet.views for at in range(0, len(view), size))
            # Pages with content come first; behind them the offsets of pages of zeros are left.
            self._write(Kind.PART, pages(self._names[packet.block], zip_longest(offsets, contents)))

    def _own_writers(self) -> list[RamPacketWriter]:
        """The calling thread's own."""
        try:
            writers: list[RamPacketWriter] = self._writers.writers
        except AttributeError:
            size = self._device.page_size
            writers = self._writers.writers = [RamPacketWriter(self._names, size) for _ in range(PACKETS_AT_ONCE)]
        return writers


class _Turns:
    """A round of jobs for the memory, and each other device's own turn; see :class:`~migpool.precopy.rounds.Turns`."""

    def __init__(self, memory: RamSource, slot: Slot, others: Turns) -> None:
        self._memory = memory
        self._slot = slot
        self._others = others
        self.pause = others.pause
        self.at_once = others.at_once

    def pending(self, slot: Slot) -> Pending:
        return self._memory.pending() if slot is self._slot else self._others.pending(slot)

    def save(self, wanted: Sequence[tuple[Slot, int]]) -> Sequence[Saved]:
        if any(slot is self._slot for slot, _ in wanted):
            return [self._memory.send_round()]  # it has a turn of its own
        return self._others.save(wanted)

    def initial_sent(self, slot: Slot) -> None:
        if slot is not self._slot:  # it has no initial data
            self._others.initial_sent(slot)
