"""The source's end of a migration.

::

    source                                                  destination
      |  main channel: header, configuration, PING             |
      |  N channels: initial packet                            |
      |<------------------------------- PONG, WELCOME, GRANTs  |   room for one chunk a device
      |  FULL of each early device                             |   load_config
      |  START of each iterable device                         |   load_setup
      |<------------------------------------- SWITCHOVER_ACK   |
      |  PART ... while the machine runs                       |   load_state
      |  PART with "initial data sent", of each device         |   ... when some have initial data
      |<------------------------------------- SWITCHOVER_ACK   |   and it is loaded: the machine may stop
    quiesce: the downtime begins                               |
    stop                                                       |
      |  SWITCHOVER_START                                      |   the load jobs begin
      |  channels: chunks          (the save jobs)   GRANTs <->|   load_state, load_config
      |  END, FULL sections        (the sections job)          |   load_config
      |  EOF, description                                      |
      |                                                        |   wake
      |<-------------------------------------------- RUNNING   |   start: the downtime ends
      |<------------------------------- DIGESTs, SHUT 0        |   every device compared

Until everything has been sent, any failure leaves the machine running here: every device wakes, then every device is
resumed. From then on the destination decides, and only its refusal has the machine run here again; once RUNNING has
come, the machine is there, whatever else goes wrong.
GRANTs are those of ``migpool/flow/window.py``; a destination that speaks only QEMU's return path sends PONG and SHUT
alone.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Unpack
from uuid import UUID

from migpool.core.buffers import BufferPool
from migpool.core.effects import Wait
from migpool.core.interpreter import Interpreter, Job
from migpool.core.jobs import save_sections
from migpool.core.machine import Machine, Slot
from migpool.core.own_effects import SaveSetup
from migpool.core.stop_start import run_again, stop
from migpool.errors import PeerError, TimeLimitExceeded
from migpool.migration.agreement import agreed_chunk
from migpool.migration.completion import Completion
from migpool.migration.endpoint import EndOptions, Endpoint
from migpool.migration.kept_configs import KeptConfigs
from migpool.migration.pings import Pings
from migpool.migration.report import DeviceReport, Exchange
from migpool.migration.return_path import ReturnPath
from migpool.migration.return_path_writer import ENDED_EARLY, GAVE_UP, told
from migpool.migration.save_handlers import Gates, SaveHandlers
from migpool.migration.save_jobs import SaveJobs
from migpool.migration.sections import describe, setup_section
from migpool.migration.settings import Settings
from migpool.migration.states import Event
from migpool.precopy.device_turn import DeviceTurns, LiveTurns
from migpool.precopy.rounds import Precopy, PrecopyLimits, Round, RoundMeasure
from migpool.schedulers.base import Scheduler
from migpool.transport.channel_group import ChannelGroup
from migpool.transport.connect import connect_all
from migpool.transport.credentials import credentials
from migpool.transport.main_channel import MainChannel
from migpool.transport.rate_limit import RateLimit
from migpool.transport.sockets import prepare, send_all, send_last, shut
from migpool.transport.tcp_use import tcp_use
from migpool.wire.commands import failed, switchover_start
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.records import end_payload
from migpool.wire.sections import section_end
from migpool.wire.stream import eof, header, vm_description
from migpool.wire.unread import Buffer

if TYPE_CHECKING:
    from migpool.ram.source import RamSource

HEADWAY = 0.5
"""The part of the limit for the peer within which the devices must make headway while the machine runs."""
PATIENCE = 2.0
"""Seconds that a failed source gives the destination to say why."""


class Source(Endpoint):
    """Sends a machine; see :class:`~migpool.migration.endpoint.Endpoint`.

    Arguments:
        progress: called after each round of pre-copy, on the migration's thread.
    """

    side = "source"

    _return_path: ReturnPath
    _end: Callable[[], None]
    _gates: Gates
    _group: ChannelGroup
    _interpreter: Interpreter
    _jobs: SaveJobs
    _main: MainChannel
    _memory: RamSource | None
    _rate_limit: RateLimit | None = None
    _pool: BufferPool

    def __init__(
        self,
        machine: Machine,
        settings: Settings,
        scheduler: Scheduler,
        *,
        progress: Callable[[Round], None] | None = None,
        **options: Unpack[EndOptions],
    ) -> None:
        super().__init__(machine, settings, scheduler, **options)
        self._progress = progress
        self._number_of = {slot.name: slot.number for slot in machine}
        self._bytes_of = dict.fromkeys((slot.number for slot in self.machine), 0)
        self._config_of = dict.fromkeys(self._bytes_of, 0)
        self._omitted: set[int] = set()
        self._precopied = dict.fromkeys(self._bytes_of, 0)
        self._redone: Mapping[int, int] = {}
        self._following: Mapping[int, int] = {}
        self._verified: dict[int, bool] = {}
        self._linked = self._all_sent = False
        self._memory = None
        self._pings: Pings | None = None
        self._connections: dict[str, socket.socket] = {}

    # ------------------------------------------------------------------ the migration, from top to bottom

    def _migrate(self, stack: contextlib.ExitStack) -> None:
        self._connect(stack)
        self._greet()
        self._prepare_jobs(self._agree_on_chunk(), stack)
        self._set_up_devices()
        # Of an optional device it is known only after the stop whether it has a section.
        optional = any(slot.device.optional for slot in self.machine)
        description = b"" if optional else self._describe()
        self._set_up_scheduler(self._interpreter, stack)
        if self.settings.credits:
            self._return_path.wait("the destination's set-up", lambda: self._return_path.acknowledged > 0)
        self._states.happen(Event.CONNECTED)
        self._iterate()
        self._relate_clocks()
        self._states.happen(Event.SWITCH_OVER)
        self._stands()
        self._stopped = time.monotonic_ns()
        stop(self.machine, self._tracer, self._switch.check)
        self._save()
        if optional:
            description = self._describe()
        self._hand_over([eof(), *vm_description(description)])

    def _describe(self) -> bytes:
        crossing = self._crossing
        sections = (*crossing.early, *crossing.sections, *crossing.late_sections)
        return describe(
            self.machine.name, [slot for slot in sections if slot.number not in self._omitted], self._described
        )

    def _connect(self, stack: contextlib.ExitStack) -> None:
        settings = self.settings
        uuid = UUID(settings.uuid).bytes if settings.uuid else secrets.token_bytes(16)
        main, channels = connect_all(
            self._address,
            settings.channels,
            header() + configuration(self._terms.configuration(uuid)),
            uuid,
            limit=settings.connect_limit,
            prepare=partial(prepare, limit=settings.peer_limit, tick=settings.tick, congestion=settings.congestion),
            check=self._switch.check,
            stack=stack,
            credentials=credentials(settings.tls, "client", settings.tls_hostname),
            anybody=settings.insecure,
        )
        self._main = MainChannel(partial(send_all, main, what="main channel"), partial(send_last, main))
        # Before a channel ends, or the destination would take that for the failure.
        self._switch.on_cancel(self._say_why)
        self._switch.on_cancel(partial(shut, main, reading=False))
        self._end = partial(shut, main, reading=False)
        self._connections = {"main": main, **{str(number): sock for number, sock in enumerate(channels)}}
        self._rate_limit = RateLimit(settings.max_bandwidth, self._switch) if settings.max_bandwidth else None
        self._group = ChannelGroup(channels, self._waited_for_channel, self._switch, self._rate_limit)
        self._gates = Gates(self._multifd_slots, self._switch, credited=settings.credits, open_for=self._on_main)
        self._return_path = ReturnPath(
            main,
            self._switch,
            settings.peer_limit,
            self._gates.grant,
            self._waiting,
            len(self.machine),
            extension=settings.credits,
        )
        self._linked = True
        stack.callback(self._threads.close)
        self._threads.start("return-path", self._return_path.listen)
        stack.callback(shut, main)
        stack.callback(self._return_path.stop)

    def _waited_for_channel(self, name: str, index: int, since: int) -> None:
        self._tracer.record(Wait.CHANNEL, self._number_of[name], index, since)

    def _greet(self) -> None:
        self._pings = Pings(self._main, self._return_path)
        self._pings.greet()

    def _relate_clocks(self) -> None:
        if self._pings is not None:
            self._pings.relate_clocks(self.settings.exchanges)

    def _exchanges(self) -> list[Exchange]:
        return [] if self._pings is None else self._pings.exchanges()

    def _agree_on_chunk(self) -> int:
        if self.settings.credits:
            self._return_path.wait("the destination's terms", lambda: self._return_path.welcome is not None)
            if (welcome := self._return_path.welcome) is not None:
                return agreed_chunk(welcome, self.settings.chunk, len(self._multifd_slots))
        return self.settings.chunk

    def _prepare_jobs(self, chunk: int, stack: contextlib.ExitStack) -> None:
        jobs = self._jobs = SaveJobs(
            self.machine, self._on_main, self.settings.in_flight, chunk, self._scheduler, self._switch
        )
        self._pool = BufferPool(chunk, jobs.most + 1)
        stack.callback(self._note_memory, self._pool)
        save_handlers = SaveHandlers(
            self._multifd_slots,
            self._gates,
            self._group,
            self._main,
            self._pool,
            self._bytes_of,
            self._config_of,
            self._omitted,
            splice=self.settings.splice and not self.settings.tls,
            lanes=jobs.lanes,
            on_main=self._on_main,
        )
        stack.callback(save_handlers.close)
        stack.callback(self._note_connections)
        handlers = save_handlers.handlers()
        KeptConfigs(self._switch).handle(handlers)
        jobs.shared_reads.handle(handlers)
        self._interpreter = Interpreter(handlers, self._big_lock, self._tracer, self._switch)
        self._memory = self._make_memory(stack)

    def _make_memory(self, stack: contextlib.ExitStack) -> RamSource | None:
        if self.machine.memory is None:
            return None
        # Here, since numpy comes with it: what loads that pays for it, and for the thread that it keeps.
        from migpool.ram.source import RamSource

        throttle = self.settings.auto_converge
        memory = RamSource(self.machine, self._group, self._main, self._run_jobs, self._interpreter, throttle=throttle)
        stack.callback(memory.close)
        return memory

    def _other_slots(self) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.machine if slot is self.machine.memory or slot.number in self._on_main)

    def _set_up_devices(self) -> None:
        self._interpreter.run(Job("sections", save_sections(self._crossing.early)))
        for slot in self._crossing.early:
            self._precopied[slot.number] = self._bytes_of[slot.number]
        if self._memory is not None:
            self._memory.set_up()
        # The iterable ones last: the destination is ready once it has heard of the last of them.
        for slot in (*self.machine.sections, *self.machine.iterable):
            data = self._interpreter.once(SaveSetup(slot))
            if section := setup_section(slot, data):
                self._main.write(section)

    def _iterate(self) -> None:
        """Save what can be saved while the machine runs, until the rest fits into the downtime limit."""
        chunk = self._pool.take()
        common = (self._main, chunk, self._interpreter, self._switch, self._bytes_of, self._precopied)
        turns: DeviceTurns = DeviceTurns(*common)
        if self._live:
            turns = live = LiveTurns(*common, self._run_jobs)
            self._following = live.following
        settings = self.settings
        # The destination, which waits for data, would give up a little later, and could not say for which device.
        limits = PrecopyLimits(settings.downtime_limit, settings.rounds, settings.peer_limit * HEADWAY)
        precopy = self._precopy(turns, limits)
        self._redone = precopy.redone
        wait_for_answer = self._next_answer(precopy)
        measured = precopy.run()
        if precopy.with_initial:
            wait_for_answer(f"the initial data of {', '.join(precopy.with_initial)} to be loaded at the destination")
            measured = precopy.run()  # what has changed meanwhile
        if self._memory is not None and self.machine.memory is not None:
            self._precopied[self.machine.memory.number] = self._memory.bytes
            self._check_rounds(self._memory, measured, limits)
        self._pool.give_back(chunk)

    def _next_answer(self, precopy: Precopy) -> Callable[[str], None]:
        """What waits for the destination to be ready once more; it may be so before the wait begins."""
        return_path, before = self._return_path, self._return_path.acknowledged
        counts = Configuration(self.machine.name).counts_acknowledgements
        # A QEMU, which has a type's version and memory, refuses this of a device that it does not pre-copy.
        precopy.all_say = self.settings.credits or counts is None or self._memory is None

        def wait(answer: str) -> None:
            if self._memory is not None and not precopy.all_say:
                self._memory.iterate()
            each = counts and not self.settings.credits
            wanted = before + (sum(slot.number in precopy.told for slot in self.machine.iterable) if each else 1)
            return_path.wait(answer, lambda: return_path.acknowledged >= wanted)

        return wait

    def _check_rounds(self, memory: RamSource, measured: RoundMeasure, limits: PrecopyLimits) -> None:
        """The rounds are over: what is left must fit into the downtime."""
        memory.check(measured, limits)

    def _precopy(self, turns: DeviceTurns, limits: PrecopyLimits) -> Precopy:
        if self._memory is not None:
            return self._memory.precopy(turns, limits, self._progress)
        return Precopy(self.machine.iterable, turns, limits, self._progress)

    def _waiting(self) -> str:
        """Asked at every tick that nothing has come from the destination."""
        self._scheduler.look()
        return self._gates.waiting()

    def _run_jobs(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._scheduler.take(job)
        self._scheduler.drain()

    def _switch_over(self) -> None:
        if self._rate_limit is not None:
            self._rate_limit.lift()
        self._main.write(switchover_start())

    def _save(self) -> None:
        self._switch_over()
        # What goes into one channel anyway goes there in order.
        together = self.settings.together and bool(self._group)
        configs = (*self._crossing.sections, *self._crossing.late_sections)
        memory = self._memory
        if together:
            self._jobs.submit_configs(configs)
        if memory is not None:
            for job in memory.last_jobs():
                self._scheduler.take(job)
            if not together:
                self._join()
            if not self._group:
                memory.end()
        self._jobs.submit(self._crossing.jobs, self._following)
        if not together:
            self._join()
            self._jobs.submit_configs(configs)
        for slot in self._over_channels:
            self._main.write(section_end(slot.section_id, end_payload()))
        self._interpreter.run(Job("sections", save_sections(self._crossing.sections)))
        self._join()
        if memory is not None and self._group:
            memory.end()
        if late := self._crossing.late_jobs:
            self._jobs.submit(late, self._following)
            self._join()
        self._interpreter.run(Job("sections", save_sections(self._crossing.late_sections)))

    def _note_connections(self) -> None:
        uses = (tcp_use(name, sock) for name, sock in self._connections.items())
        self._tcp = tuple(use for use in uses if use is not None)

    def _hand_over(self, end: Sequence[Buffer]) -> None:
        settings = self.settings
        # What the kernel has seen of it leaves out how long the destination took for the first answer.
        use = tcp_use("main", self._connections["main"])
        first = 0 if self._pings is None else self._pings.round_trip
        seen = round(use.least_rtt_ms * 1e6) if use is not None and use.least_rtt_ms else first
        completion = Completion(
            self.machine,
            self._return_path,
            self._end,
            credited=settings.credits,
            limit=settings.peer_limit,
            sent=time.monotonic_ns(),
            round_trip=min(seen, first),
        )
        self._all_sent = True
        self._return_path.expect_running()
        self._states.happen(Event.SENT)
        # A part of the stream's end may arrive, whatever becomes of the rest.
        send_end = partial(self._main.write, end)
        self._running, self._clock = completion.running(send_end, partial(self._states.happen, Event.REFUSED))
        self._runs()
        self._states.happen(Event.RUNNING)
        completion.confirm(self._verified, self._omitted)

    # ------------------------------------------------------------------ afterwards

    def _say_why(self) -> None:
        """Tell the destination why this end gives up, if it understands that and nothing that is sent is cut by it."""
        reason = self._switch.reason
        if self._linked and self._return_path.welcome is not None and not self._all_sent and reason is not None:
            self._main.write_last(failed(told(reason)))

    def _reason(self, error: BaseException) -> BaseException:
        self._say_why()  # another thread may have thrown the switch and not have come to it, and this one hangs up
        # A broken channel is how a failure of the destination shows first; its own words say more.
        if not (self._linked and isinstance(error, PeerError | TimeLimitExceeded)):
            return error
        theirs = self._return_path.reason(PATIENCE)
        # That it saw this end give up is no reason of its own: the limit that was exceeded here is.
        consequence = isinstance(error, TimeLimitExceeded) and ENDED_EARLY in str(theirs)
        return error if theirs is None or consequence or GAVE_UP in str(theirs) else theirs

    def _undo(self) -> None:
        if (error := run_again(self.machine)) is not None:
            raise error

    def _let_go(self) -> None:
        if self._memory is not None:
            self._memory.let_go()

    @property
    def _paged(self) -> int:
        return 0 if self._memory is None else self._memory.bytes

    @property
    def bytes(self) -> int:
        """How many bytes of state have been sent so far."""
        return sum(self._bytes_of.values()) + self._paged

    def _devices(self) -> Iterator[DeviceReport]:
        for slot in self.machine:
            number, device = slot.number, slot.device
            paged = slot is self.machine.memory
            yield DeviceReport(
                slot.name,
                device.note,
                device.iterable,
                self._paged if paged else self._bytes_of[number],
                self._verified.get(number),
                bytes_before_stop=self._precopied[number],
                redone=self._redone.get(number, 0),
                config=self._config_of[number],
                described=slot in self._described,
            )
