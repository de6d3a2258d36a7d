"""The source's end of a migration.

::

    source                                                  destination
      |  main channel: header, configuration, PING             |
      |  N channels: initial packet                            |
      |<------------------------------- PONG, WELCOME, GRANTs  |   room for one chunk a device
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
resumed. From then on the destination decides; once RUNNING has come, the machine is there, whatever else goes wrong.
GRANTs are ``window.py``'s; a destination that speaks only QEMU's return path sends PONG and SHUT alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from migpool.answering import ENDED_EARLY
from migpool.answers import RUNS_THERE, Answers
from migpool.channel.address import Address
from migpool.channel.multifd import ChannelGroup
from migpool.channel.pace import Pace
from migpool.channel.sockets import connect, prepare, send_all, shut
from migpool.effects import Wait
from migpool.endpoint import Endpoint, of, per_device
from migpool.errors import Cancelled, PeerError, TimeLimitExceeded, UsageError, VerificationError
from migpool.interpreter import Interpreter, Job
from migpool.iterating import Iterating
from migpool.jobs import keep_config, save_sections, save_state
from migpool.machine import Machine, Slot
from migpool.mainchannel import MainChannel, counted, describe
from migpool.memory import BufferPool
from migpool.memorysource import MemorySource
from migpool.precopy import Limits, Precopy, Round
from migpool.report import DeviceReport, boot_id, digest_of
from migpool.schedulers.base import Scheduler
from migpool.sending import Gates, KeptConfigs, Sending
from migpool.settings import Settings
from migpool.states import Event, State
from migpool.trace import Tracer
from migpool.wire.commands import open_return_path, ping, switchover_start
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.events import eof, header, vm_description
from migpool.wire.extension import CREDITS_CAPABILITY
from migpool.wire.multifd import initial_packet
from migpool.wire.records import end_payload, setup_payload
from migpool.wire.sections import section_end, section_start

__all__ = ["Source"]

HEADWAY = 0.5
"""The part of the limit for the peer within which the devices must make headway while the machine runs."""
PATIENCE = 2.0
"""Seconds that a failed source gives the destination to say why."""


class Source(Endpoint):
    """Sends a machine; see :class:`~migpool.endpoint.Endpoint`.

    Arguments:
        progress: called after each round of pre-copy, on the migration's thread.
    """

    side = "source"

    _answers: Answers
    _gates: Gates
    _group: ChannelGroup
    _interpreter: Interpreter
    _kept: KeptConfigs
    _main: MainChannel
    _memory: MemorySource | None
    _pace: Pace | None
    _pool: BufferPool

    def __init__(
        self,
        machine: Machine,
        settings: Settings,
        scheduler: Scheduler,
        *,
        workers: int | None = None,
        watch: Callable[[State], None] | None = None,
        tracer: Tracer | None = None,
        progress: Callable[[Round], None] | None = None,
    ) -> None:
        super().__init__(machine, settings, scheduler, workers=workers, watch=watch, tracer=tracer)
        self._progress = progress

    def _prepare(self) -> None:
        self._bytes_of = dict.fromkeys((slot.number for slot in self.machine), 0)
        self._config_of = dict.fromkeys(self._bytes_of, 0)
        self._precopied = dict.fromkeys(self._bytes_of, 0)
        self._redone: Mapping[int, int] = {}
        self._verified: dict[int, bool] = {}
        self._linked = False
        self._memory = None
        self._round_trip = 0

    # ------------------------------------------------------------------ the migration, from top to bottom

    def _migrate(self, address: Address, stack: contextlib.ExitStack) -> None:
        self._connect(address, stack)
        self._greet()
        self._agree_on_chunks(stack)
        self._set_up_devices()
        description = describe(self.machine)
        self._set_up_scheduler(self._interpreter, stack)
        if self.settings.credits:
            self._answers.wait("the destination's set-up", lambda: self._answers.acknowledged > 0)
        self._states.happen(Event.CONNECTED)
        self._iterate()
        self._states.happen(Event.SWITCH_OVER)
        self._stop_machine()
        self._save()
        self._main.write([eof(), *vm_description(description)])
        self._await_running()
        self._states.happen(Event.RUNNING)
        self._confirm()

    def _connect(self, address: Address, stack: contextlib.ExitStack) -> None:
        settings = self.settings
        deadline = time.monotonic() + settings.connect_limit
        socks = []
        for number in range(settings.channels + 1):
            self._switch.check()
            sock = stack.enter_context(connect(address, deadline, settings.connect_limit))
            prepare(sock, limit=settings.peer_limit, tick=settings.tick, congestion=settings.congestion)
            if number:
                send_all(sock, [initial_packet(number - 1)], f"channel {number - 1}")
            else:
                # The destination must know how the stream begins before it can make sense of a channel.
                send_all(sock, [header()], "main channel")
            socks.append(sock)
        main, channels = socks[0], socks[1:]
        self._switch.on_cancel(lambda: shut(main, reading=False))
        self._main = MainChannel(main)
        self._pace = Pace(settings.max_bandwidth, self._switch) if settings.max_bandwidth else None
        self._group = ChannelGroup(channels, self._tracer, self._switch, self._pace)
        self._gates = Gates(self.machine, self._switch, credited=settings.credits)
        self._answers = Answers(
            main,
            self._switch,
            settings.peer_limit,
            self._gates.grant,
            self._gates.waiting,
            extension=settings.credits,
        )
        self._linked = True
        stack.callback(self._threads.close)
        self._threads.start("return-path", self._answers.listen)
        stack.callback(shut, main)
        stack.callback(self._answers.stop)

    def _greet(self) -> None:
        capabilities = (CREDITS_CAPABILITY,) if self.settings.credits else None
        asked = time.monotonic_ns()
        self._main.write(
            [configuration(Configuration(self.machine.name, capabilities=capabilities)), open_return_path(), ping(1)]
        )
        self._answers.wait("the first answer", lambda: bool(self._answers.pong_at))
        self._round_trip = self._answers.pong_at - asked

    def _agree_on_chunks(self, stack: contextlib.ExitStack) -> None:
        chunk = self.settings.chunk
        if self.settings.credits:
            self._answers.wait("the destination's terms", lambda: self._answers.welcome is not None)
            welcome = self._answers.welcome
            if welcome is not None:
                if welcome.devices != len(self.machine.iterable):
                    raise UsageError(
                        f"the destination has {welcome.devices} iterable devices, "
                        f"this machine {len(self.machine.iterable)}: start both ends with the same scenario"
                    )
                chunk = min(chunk, welcome.chunk)
        self._kept = KeptConfigs(self._switch)
        self._pool = BufferPool(chunk, len(self.machine.iterable) + 1)
        stack.callback(self._note_memory, self._pool)
        sending = Sending(
            self.machine,
            self._gates,
            self._kept,
            self._group,
            self._main,
            self._pool,
            self._bytes_of,
            self._config_of,
            splice=self.settings.splice,
        )
        stack.callback(sending.close)
        handlers = sending.handlers()
        self._memory = self._make_memory(stack)
        if self._memory is not None:
            self._memory.handle(handlers)
        self._interpreter = Interpreter(handlers, self._big_lock, self._tracer, self._switch)

    def _make_memory(self, stack: contextlib.ExitStack) -> MemorySource | None:
        if self.machine.memory is None:
            return None
        throttle = self.settings.auto_converge
        memory = MemorySource(
            self.machine, self._group, self._main, self._run_jobs, throttle=throttle, tracer=self._tracer
        )
        stack.callback(memory.close)
        return memory

    def _memory_slots(self) -> tuple[Slot, ...]:
        return () if self.machine.memory is None else (self.machine.memory,)

    def _set_up_devices(self) -> None:
        if self._memory is not None:
            self._memory.set_up()
        # The iterable ones last: the destination is ready once it has heard of the last of them.
        for slot in (*self.machine.sections, *self.machine.iterable):
            device = slot.device
            begin = time.monotonic_ns()
            data = of(slot, "save_setup", device.save_setup)
            self._tracer.record(Wait.SETUP, slot.number, -1, begin)
            if device.iterable or data:
                self._main.write(
                    section_start(
                        slot.number,
                        device.idstr,
                        setup_payload(data) if device.iterable else counted(data),
                        instance_id=device.instance_id,
                        version=device.version,
                    )
                )

    def _iterate(self) -> None:
        """Save what can be saved while the machine runs, until the rest fits into the downtime limit."""
        chunk = self._pool.take()
        iterating = Iterating(self._main, chunk, self._tracer, self._switch, self._bytes_of, self._precopied)
        settings, answers = self.settings, self._answers
        # The destination, which waits for data, would give up a little later, and could not say for which device.
        limits = Limits(settings.downtime_limit, settings.rounds, settings.peer_limit * HEADWAY)
        precopy = self._precopy(iterating, limits)
        self._redone = precopy.redone
        before = answers.acknowledged
        measured = precopy.run()
        if precopy.with_initial:
            loaded = f"the initial data of {', '.join(precopy.with_initial)} to be loaded at the destination"
            answers.wait(loaded, lambda: answers.acknowledged > before)
            measured = precopy.run()  # what has changed meanwhile
        if self._memory is not None and self.machine.memory is not None:
            self._precopied[self.machine.memory.number] = self._memory.bytes
            self._memory.check(measured, limits)
        self._pool.give_back(chunk)

    def _precopy(self, iterating: Iterating, limits: Limits) -> Precopy:
        if self._memory is not None:
            return self._memory.precopy(iterating, limits, self._progress)
        return Precopy(self.machine.iterable, iterating, limits, self._progress)

    def _run_jobs(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._scheduler.submit(job)
        self._scheduler.drain()

    def _stop_machine(self) -> None:
        """In two steps: no device is spoken to by a peer after it has stopped."""
        self._stopped = time.monotonic_ns()
        for slot in self.machine:
            self._switch.check()
            begin = time.monotonic_ns()
            of(slot, "quiesce", slot.device.quiesce)
            self._tracer.record(Wait.QUIESCE, slot.number, -1, begin)
        for slot in self.machine:
            self._switch.check()
            begin = time.monotonic_ns()
            of(slot, "stop", slot.device.stop)
            self._tracer.record(Wait.STOP, slot.number, -1, begin)

    def _save(self) -> None:
        if self._pace is not None:
            self._pace.lift()
        together = self.settings.together
        self._main.write(switchover_start())
        memory = self._memory
        if together:
            self._submit_configs()
        if memory is not None:
            for job in memory.last_jobs():
                self._scheduler.submit(job)
            if not together:
                self._join()
        for slot in self.machine.iterable:
            self._scheduler.submit(Job("save", save_state(slot), slot))
        if not together:
            self._join()
            self._submit_configs()
        for slot in self.machine.iterable:
            self._main.write(section_end(slot.number, end_payload()))
        self._interpreter.run(Job("sections", save_sections(self.machine.sections)))
        self._join()
        if memory is not None:
            memory.end()

    def _join(self) -> None:
        begin = time.monotonic_ns()
        self._scheduler.drain()
        self._tracer.record(Wait.JOIN, -1, -1, begin)

    def _submit_configs(self) -> None:
        """The small jobs first: they wait for nobody, and no model keeps them waiting behind those that do."""
        for slot in self.machine.sections:
            if slot.device.config_job:
                self._scheduler.submit(Job("config", keep_config(slot, self._kept.keep), slot))

    def _await_running(self) -> None:
        answers = self._answers
        try:
            if self.settings.credits:
                answers.wait("the machine to run at the destination", lambda: answers.running is not None)
            else:
                answers.wait("the destination's last word", lambda: answers.shut is not None)
        except (Cancelled, TimeLimitExceeded):
            if not self._ask_for_verdict():
                raise
        running = answers.running
        if running is not None and running.boot_id == boot_id():
            self._clock, self._running = "monotonic", running.nanoseconds
        else:
            self._clock = "return-path"
            self._running = (answers.running_at or time.monotonic_ns()) - self._round_trip // 2

    def _ask_for_verdict(self) -> bool:
        """Everything has been sent: whether the machine moves is the destination's decision, not ours any more.

        The end of the main channel asks it to give up. It answers with RUNNING if it is too late for that, and ends the
        connection without it otherwise; only then may the machine run here.
        """
        self._main.end()
        runs = self._answers.verdict(self.settings.peer_limit)
        if runs is None:
            self._states.happen(Event.DOUBT)
            raise PeerError(
                f"the destination has not said within {self.settings.peer_limit:g} s whether the machine runs there: "
                "it stays stopped here; look there before you resume it"
            )
        return runs

    def _confirm(self) -> None:
        """Hear the destination out, and compare every device's state with what was saved here."""
        answers = self._answers
        answers.wait("the destination's last word", lambda: answers.shut is not None)
        if answers.failure:
            raise PeerError(f"{RUNS_THERE}: {answers.failure}")
        for slot in self.machine:
            theirs = answers.digests.get(slot.number)
            ours = of(slot, "fingerprint", partial(digest_of, slot.device))
            if theirs is not None and any(theirs) and any(ours):
                self._verified[slot.number] = ours == theirs
        wrong = [slot.name for slot in self.machine if self._verified.get(slot.number) is False]
        if wrong:
            raise VerificationError(f"{RUNS_THERE} its state is not what was sent: {', '.join(wrong)}")

    # ------------------------------------------------------------------ afterwards

    def _reason(self, error: BaseException) -> BaseException:
        # A broken channel is how a failure of the destination shows first; its own words say more.
        if not (self._linked and isinstance(error, PeerError | TimeLimitExceeded)):
            return error
        theirs = self._answers.reason(PATIENCE)
        # That it saw this end give up is no reason of its own: the limit that was exceeded here is.
        consequence = isinstance(error, TimeLimitExceeded) and ENDED_EARLY in str(theirs)
        return error if theirs is None or consequence else theirs

    def _undo(self) -> None:
        # All answer again before any begins something: the stop, backwards.
        woken = per_device(self.machine, lambda slot: of(slot, "wake", slot.device.wake))
        resumed = per_device(self.machine, lambda slot: of(slot, "resume", slot.device.resume))
        if (error := woken or resumed) is not None:
            raise error

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
                precopied=self._precopied[number],
                redone=self._redone.get(number, 0),
                config=self._config_of[number],
            )
