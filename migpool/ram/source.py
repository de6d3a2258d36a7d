"""The memory's part in a migration's source: its set-up, its turns in pre-copy, the round after the stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from migpool.core.effects import EndRound, LookForDirty, SaveSetup
from migpool.core.interpreter import Interpreter, Job
from migpool.core.machine import Machine, Slot
from migpool.device import MemoryDevice, Pending
from migpool.errors import UsageError
from migpool.precopy.rounds import Crossed, Precopy, PrecopyLimits, Round, RoundMeasure, Turns
from migpool.ram.auto_converge import AutoConverge
from migpool.ram.page_effort import PageEffort
from migpool.ram.sender import RamSender
from migpool.transport.channel_group import ChannelGroup
from migpool.transport.main_channel import MainChannel


class RamSource:
    """The memory of one machine, while it is sent.

    Arguments:
        machine: has a memory.
        group: the multifd channels.
        main: the main channel.
        run: runs jobs under the threading model, and returns when all have ended.
        interpreter: performs what is no job.
        throttle: whether vCPUs are slowed down when they write faster than can be sent.

    Attributes:
        bytes: of pages that have been sent so far.
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
        self._run = run
        self._interpreter = interpreter
        self._sender = RamSender(slot, slot.device, group, main, self._count)
        self._auto_converge = AutoConverge(machine, throttle=throttle)
        self._effort = PageEffort()
        self._counting = threading.Lock()
        self.bytes = 0
        self._sender.handle(interpreter.handlers)
        self._effort.watch(interpreter.handlers)

    def set_up(self) -> None:
        """Tell the destination of the blocks, and log from now on what is written.

        Raises:
            UsageError: the device has data for the set-up, which the stream has no place for.
        """
        if self._interpreter.once(SaveSetup(self._slot)):
            raise UsageError(f"{self._slot.name}: a memory device cannot have data for the set-up")
        self._sender.begin()

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
        return Precopy(slots, _Turns(self, others), limits, watch, pending=self.pending, crossed=self._crossed)

    def check(self, measured: RoundMeasure, limits: PrecopyLimits) -> None:
        """The rounds are over.

        Raises:
            NotConverging: what is left of the memory does not fit into the downtime limit.
        """
        self._auto_converge.check(measured, limits)

    def pending(self, slot: Slot) -> Pending:
        """What is left of the memory as of the last look; of another device, what it says."""
        return Pending(self._sender.pages.left) if slot is self._slot else slot.device.pending()

    def is_at(self, slot: Slot) -> bool:
        """Whether the slot is the memory's."""
        return slot is self._slot

    def send_round(self) -> int:
        """Send every page that is to be sent, once, and see what was written meanwhile; return the bytes of pages."""
        sent = self._sender.pages.left
        self._run(self._sender.jobs())
        self._interpreter.once(EndRound(self._slot))
        self._look()
        return sent

    def last_jobs(self) -> list[Job]:
        """The machine stands still: the jobs that send what is left."""
        self._look()
        return self._sender.jobs()

    def end(self) -> None:
        """The last jobs have ended, and so has every other one.

        Not before: a destination whose main channel waits for a job could not hear of a FLUSH before that job's chunks,
        which would stand behind the SYNC.
        """
        self._interpreter.once(EndRound(self._slot, last=True))

    def close(self) -> None:
        """Take the throttle away, and log no more."""
        self._auto_converge.end()
        self._sender.stop()

    def let_go(self) -> None:
        """Hold no view of the memory any more: its owner may close it. Every job has ended."""
        self._sender.let_go()

    def _crossed(self, slot: Slot, saved: int) -> Crossed:
        return self._effort.since() if slot is self._slot else Crossed(saved)

    def _look(self) -> None:
        self._interpreter.once(LookForDirty(self._slot))

    def _count(self, size: int) -> None:
        with self._counting:
            self.bytes += size


class _Turns:
    """A round of jobs for the memory, and each other device's own turn; see :class:`~migpool.precopy.rounds.Turns`."""

    def __init__(self, memory: RamSource, others: Turns) -> None:
        self._memory = memory
        self._others = others
        self.at_once = others.at_once

    def save(self, wanted: Sequence[tuple[Slot, int]]) -> Sequence[int]:
        if any(self._memory.is_at(slot) for slot, _ in wanted):
            return [self._memory.send_round()]  # it has a turn of its own
        return self._others.save(wanted)

    def initial_sent(self, slot: Slot) -> None:
        if not self._memory.is_at(slot):  # it has no initial data
            self._others.initial_sent(slot)

    def pause(self, seconds: float) -> None:
        self._others.pause(seconds)
