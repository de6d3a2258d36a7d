"""What both ends of a migration share: its states, its switch, its threads, its end."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Final, TypedDict

from migpool.core.buffers import BufferPool
from migpool.core.cancel import CancelSwitch
from migpool.core.device_calls import of, under_way
from migpool.core.effects import Wait
from migpool.core.held_settings import no_garbage_collection, short_switch_interval
from migpool.core.interpreter import Interpreter
from migpool.core.machine import Machine, Slot, per_device
from migpool.core.plugin_errors import traceback_of
from migpool.core.threads import ThreadGroup
from migpool.core.trace import Tracer
from migpool.device import Side
from migpool.errors import Cancelled, MigpoolError, PeerError, PeerGone, TimeLimitExceeded, UsageError
from migpool.migration.agreement import Terms
from migpool.migration.report import DeviceReport, Exchange, SideReport, peak_rss, processors_short
from migpool.migration.settings import Settings
from migpool.migration.states import FINAL, Event, State, StateMachine
from migpool.schedulers.base import Scheduler, Setup
from migpool.transport.address import Address
from migpool.transport.tcp_use import TcpUse

CALLS = 2
"""Calls of devices that last for long that an error names."""
_LOOK: Final = "it stays stopped here; look there before you resume it"


class EndOptions(TypedDict, total=False):
    """What either end may be given beside the machine, the settings and the model; see :class:`Endpoint`."""

    workers: int | None
    watch: Callable[[State], None] | None
    tracer: Tracer | None


class Endpoint(ABC):
    """One end of one migration. Made, run once, and done with.

    Arguments:
        machine: whose devices move. It is not closed here: a machine may be migrated again.
        settings: how.
        scheduler: the threading model, not set up yet.
        workers: how many threads the user asked the model for; ``None`` leaves it to the model.
        watch: called with each new state, on the thread that brought it about.
        tracer: where the spans go, for a caller that wants them otherwise.
    """

    side: ClassVar[Side]

    _address: Address

    def __init__(
        self,
        machine: Machine,
        settings: Settings,
        scheduler: Scheduler,
        *,
        workers: int | None = None,
        watch: Callable[[State], None] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.machine = machine
        self.settings = settings
        self._scheduler = scheduler
        self._workers = workers
        self._watch = watch
        self._states = StateMachine(self._entered)
        self._threads_before = 0
        self._switch = CancelSwitch()
        self._tracer = tracer or Tracer()
        self._threads = ThreadGroup(settings.peer_limit)
        self._threads.entered()  # the thread that calls run
        self._big_lock = threading.Lock()
        self._crossing = machine.crossing(settings.vmsd if settings.channels else "main-channel")
        self._described = self._crossing.described
        self._on_main = {
            slot.number
            for slot in machine.iterable
            if not settings.channels or slot.device.config_channel == "main-channel"
        }
        """The iterable devices whose state crosses on the main channel."""
        self._over_channels = tuple(slot for slot in machine.iterable if slot.number not in self._on_main)
        # The devices whose state crosses over the multifd channels, as both ends count them.
        self._multifd_slots = (*self._over_channels, *self._described)
        self._live = settings.live == "multifd" and settings.channels > 0
        self._terms = Terms(machine.name, settings.credits, bool(self._described), self._live)
        self._began = self._stopped = self._running = self._ended = 0
        self._budget = self._high_water = 0
        self._clock = ""
        self._short_before: int | None = None
        self._short: int | None = None
        self._tcp: tuple[TcpUse, ...] = ()
        self._also = ""
        self._error: BaseException | None = None
        # What holds while the machine stands still.
        self._standstill = contextlib.ExitStack()

    def _entered(self, state: State) -> None:
        if state is State.SWITCHOVER:
            self._threads_before = self._threads.alive
        if self._watch is not None:
            self._watch(state)

    @property
    def state(self) -> State:
        """Where the migration stands."""
        return self._states.state

    @property
    @abstractmethod
    def bytes(self) -> int:
        """How many bytes of state have been sent or received so far."""

    def cancel(self) -> None:
        """Cancel the migration, from any thread; returns at once.

        Once the machine runs at the destination it is too late, and the migration completes.
        """
        self._switch.cancel(Cancelled(f"cancelled at the {self.side}"))

    def run(self, address: Address) -> SideReport:
        """Carry the migration out, and say how it went; what goes wrong is in the report, not raised.

        Arguments:
            address: where to connect to, or to listen.
        """
        self._address = address
        return self._carry_out()

    def _carry_out(self) -> SideReport:
        self._began = time.monotonic_ns()
        first: BaseException | None = None
        self._switch.on_cancel(self._abort_devices)
        with short_switch_interval(self.settings.switch_interval), self._standstill:
            try:
                with contextlib.ExitStack() as stack:
                    try:
                        self._states.happen(Event.BEGIN)
                        self.machine.require_peer_to_peer()
                        self._require_one_way()
                        self._migrate(stack)
                        self._states.happen(Event.CONFIRMED)
                    except BaseException as error:
                        # Before the stack is unwound: its threads end only once the switch is thrown.
                        first = error
                        self._fail(error)
                        raise
                    finally:
                        self._ended = time.monotonic_ns()
            except Exception as error:  # noqa: BLE001 -- told in the report
                if self._error is None:
                    self._fail(error)
                elif error is not first and isinstance(error, TimeLimitExceeded):
                    self._also += f"; {error}"  # a thread is left
            finally:
                if self.state in (State.FAILED, State.CANCELLED):
                    self._undo_noting()
                first = None
                self._let_go()
                _forget_frames(self._error)
                _forget_frames(self._switch.reason)
        return self._report()

    @abstractmethod
    def _migrate(self, stack: contextlib.ExitStack) -> None:
        """Do it. What is opened goes on the stack, which is unwound also after an error."""

    def _reason(self, error: BaseException) -> BaseException:
        """What really went wrong, given how it showed."""
        return error

    def _undo(self) -> None:
        """After a failure, when no thread is left."""
        return

    def _let_go(self) -> None:
        """Hold nothing of the devices any more that they could not close while it is held. No thread is left."""
        return

    @abstractmethod
    def _devices(self) -> Iterator[DeviceReport]:
        """What to say of each device."""

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            error = Cancelled(f"interrupted at the {self.side}")
        self._switch.cancel(error)
        if self.state is State.SENT:
            text = str(error) if isinstance(error, PeerError) else f"{error or repr(error)}; it may run there"
            self._error = PeerError(f"{text}: {_LOOK}")
        else:
            # A wait that was ended by the switch is a consequence; what the switch was thrown for is the reason.
            self._error = self._reason(self._switch.reason or error)
        if isinstance(self._error, PeerError | TimeLimitExceeded):
            # Of what waits is told only which thread it is: here is what the devices do.
            told = [*filter(None, [self._scheduler.hint]), *map(str, under_way()[:CALLS])]
            self._also = "".join(f"; {one}" for one in told)
        if self.state not in FINAL:
            self._states.happen(Event.CANCEL if isinstance(self._error, Cancelled) else Event.FAIL)

    def _abort_devices(self) -> None:
        # Once the machine runs at the destination, its devices there are in use, and those here are done with.
        if self.state is not State.RUNNING:
            per_device(self.machine, lambda slot: of(slot, "abort", slot.device.abort))

    def _undo_noting(self) -> None:
        try:
            self._undo()
        except Exception as error:  # noqa: BLE001 -- the first error is the one to report; this one is added to it
            self._also += f"; and then: {error}"

    def _require_one_way(self) -> None:
        if self._live and self._on_main:
            names = ", ".join(slot.name for slot in self.machine if slot.number in self._on_main)
            raise UsageError(f'{names} must stay on the main channel, but live = "multifd": leave one of both out')

    def _set_up_scheduler(self, interpreter: Interpreter, stack: contextlib.ExitStack) -> None:
        stack.callback(self._scheduler.close)
        self._scheduler.begin(
            Setup(
                side=self.side,
                devices=(*self._other_slots(), *self._multifd_slots),
                channels=self.settings.channels,
                interpreter=interpreter,
                threads=self._threads,
                switch=self._switch,
                workers=self._workers,
                limit=self.settings.peer_limit,
            )
        )

    def _join(self) -> None:
        """Wait until the model has ended all jobs."""
        begin = time.monotonic_ns()
        self._scheduler.drain()
        self._tracer.record(Wait.JOIN, -1, -1, begin)

    def _other_slots(self) -> tuple[Slot, ...]:
        """What else has jobs."""
        return ()

    def _report(self) -> SideReport:
        error = self._error
        text = "" if error is None else str(error) if isinstance(error, MigpoolError) else repr(error)
        return SideReport(
            side=self.side,
            outcome=self.state,
            error=" ".join((text + self._also).split()),
            began=self._began,
            stopped=self._stopped,
            running=self._running,
            ended=self._ended,
            clock=self._clock,
            bytes=self.bytes,
            threads_peak=self._threads.peak,
            budget=self._budget,
            high_water=self._high_water,
            rss_peak=peak_rss(),
            devices=tuple(self._devices()),
            spans=tuple(self._tracer.spans()),
            threads_before=self._threads_before,
            remarks=tuple(self._scheduler.remarks()),
            peer_gone=isinstance(error, PeerGone),
            waited=isinstance(error, PeerError | TimeLimitExceeded),
            traceback=traceback_of(error),
            exchanges=tuple(self._exchanges()),
            connections=self._tcp,
            processors_short=self._short,
        )

    def _stands(self) -> None:
        """The machine stands still, or will at once: see whether there are processors enough from now on."""
        self._standstill.enter_context(no_garbage_collection())
        self._short_before = processors_short()

    def _runs(self) -> None:
        """It runs again."""
        self._standstill.close()
        now = processors_short()
        if now is not None and self._short_before is not None:
            self._short = now - self._short_before

    def _exchanges(self) -> Iterable[Exchange]:
        """PINGs and their answers, as this side saw them."""
        return ()

    def _note_memory(self, pool: BufferPool) -> None:
        self._budget = pool.limit * pool.size
        self._high_water = pool.high_water
        pool.close()


def _forget_frames(error: BaseException | None) -> None:
    """Have the frames that an error came through hold nothing any more: views of the guest's memory are among it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
