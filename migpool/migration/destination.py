"""The destination's end of a migration; the sequence is drawn at the top of ``source.py``.

The main channel is read by the migration's own thread, each multifd channel by a thread of its own that is there
before any load job runs. Nothing starts here until every device has been loaded. On an error nothing starts at all,
and the source is told why; an error after the start is told too, but the machine stays here.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Unpack

from migpool.core.buffers import BufferPool
from migpool.core.device_calls import of
from migpool.core.effects import EndLiveTurn
from migpool.core.interpreter import Interpreter
from migpool.core.machine import Machine, Slot
from migpool.core.stop_start import stand, start
from migpool.device import MemoryDevice
from migpool.errors import Cancelled, MigpoolError, PeerError, PeerGone, ProtocolError
from migpool.flow.window import Windows, rooms_for
from migpool.migration.acknowledgements import Acknowledgements
from migpool.migration.endpoint import EndOptions, Endpoint
from migpool.migration.incoming import Incoming
from migpool.migration.kept_configs import KeptConfigs
from migpool.migration.liveness import Liveness
from migpool.migration.load_handlers import LoadHandlers
from migpool.migration.load_jobs import LoadJobs
from migpool.migration.report import DeviceReport, Exchange, boot_id, digest_of
from migpool.migration.return_path_writer import ENDED_EARLY, GAVE_UP, ReturnPathWriter
from migpool.migration.section_loader import LiveRounds, SectionLoader
from migpool.migration.sections import MachineSchema
from migpool.migration.settings import Settings
from migpool.migration.states import Event, State
from migpool.schedulers.base import Scheduler
from migpool.transport.address import Address
from migpool.transport.connections import Connections
from migpool.transport.sockets import MAIN_READ_SIZE, read_some, send_all, shut
from migpool.wire.commands import Command, CommandKind, failed_reason, ping_value
from migpool.wire.configuration import Configuration
from migpool.wire.ram import MultifdFlush, RamBlocks, RamPages, RamSection, RamSectionEnd
from migpool.wire.returnpath import CREDITS_CAPABILITY, Digest, Pong, Running, Shut, SwitchoverAck, Welcome
from migpool.wire.sections import Section
from migpool.wire.stream import DeviceSection, Eof, FileHeader, StreamEvent, StreamReader, VmDescription

if TYPE_CHECKING:
    from migpool.ram.destination import RamDestination

LOGGER = logging.getLogger(__name__)
HASTE = 0.6
"""The destination knows what is missing, so it gives up a little earlier than the source, which would only say that."""
MOST_EXCHANGES = 64
"""Of which times are kept: a source may ask for ever."""
GOODBYE = 2.0
"""Seconds for the source to close the connection after the last word."""


class Destination(Endpoint):
    """Receives a machine; see :class:`~migpool.migration.endpoint.Endpoint`.

    Arguments:
        listening: called with the address, once a source can connect; a TCP port of 0 has become a real one in it.
    """

    side = "destination"

    _remedy = "start both ends with the same scenario"

    _return_path: ReturnPathWriter
    _main: socket.socket
    _reader: StreamReader
    _interpreter: Interpreter
    _load_handlers: LoadHandlers
    _sections: SectionLoader
    _liveness: Liveness

    def __init__(
        self,
        machine: Machine,
        settings: Settings,
        scheduler: Scheduler,
        *,
        listening: Callable[[Address], None] | None = None,
        **options: Unpack[EndOptions],
    ) -> None:
        super().__init__(machine, settings, scheduler, **options)
        self._schema = MachineSchema(machine)
        self._incoming = Incoming(settings, self._schema, self._switch, listening)
        self._jobs = LoadJobs(scheduler, self._on_main, keep=settings.config_load == "after-iterables")
        self._acknowledgements = Acknowledgements(
            {slot.number for slot in self.machine.iterable}, lambda: self._return_path.answer(SwitchoverAck())
        )
        self._deciding = threading.Lock()
        self._decided = False
        self._accepted = False
        self._answered: list[Exchange] = []
        self._memory: RamDestination | None = None
        self._gave_up: PeerGone | None = None

    # ------------------------------------------------------------------ the migration, from top to bottom

    def _migrate(self, stack: contextlib.ExitStack) -> None:
        channels = self._accept(stack)
        try:
            self._make_room(stack)
            self._start_receivers(channels, stack)
            self._set_up_scheduler(self._interpreter, stack)
            self._load()
            self._start_machine()
            self._confirm()
        except BaseException as error:
            self._refuse(error)
            raise
        self._say_goodbye()

    def cancel(self) -> None:
        """Cancel the migration, from any thread; returns at once. Once the machine runs here it is too late."""
        if not self._withdraw(Cancelled("cancelled at the destination")):
            self._abort_devices()  # one may block in its start

    def _withdraw(self, reason: MigpoolError) -> bool:
        """Give up, unless it is decided that the machine runs here; returns whether it was given up."""
        with self._deciding:
            if not self._decided:
                self._switch.cancel(reason)
            return not self._decided

    def _accept(self, stack: contextlib.ExitStack) -> tuple[socket.socket, ...]:
        connections = Connections(self.settings.channels, noted=LOGGER.warning)
        try:
            self._incoming.accept(self._address, connections, stack)
        except MigpoolError as error:
            if connections.main is not None:
                self._meet(connections)
                self._refuse(error)
            raise
        main = self._meet(connections)
        for sock in (main, *connections.channels):
            self._switch.on_cancel(partial(shut, sock, writing=sock is not main))
        return connections.channels

    def _meet(self, connections: Connections) -> socket.socket:
        main = self._main = connections.main_channel
        self._uuid = connections.uuid
        self._reader = StreamReader(self._schema, multifd=bool(self.settings.channels))
        self._reader.feed(connections.said)  # it was read when the connection said what it is
        self._items = self._read_items()
        self._return_path = ReturnPathWriter(partial(send_all, main, what="return path"))
        return main

    def _refuse(self, error: BaseException) -> None:
        """Tell the source why, as well as it understands."""
        self._hear_greeting()
        self._switch.cancel(error)
        self._return_path.fail(self._switch.reason or error, runs=self.state is State.RUNNING)

    def _start_receivers(self, channels: Sequence[socket.socket], stack: contextlib.ExitStack) -> None:
        self._accepted = True
        stack.callback(self._threads.close)
        for number, receive in enumerate(self._load_handlers.receivers(channels)):
            self._threads.start(f"channel-{number}", receive)
        for sock in channels:
            stack.callback(shut, sock)
        stack.callback(shut, self._main)

    def _make_room(self, stack: contextlib.ExitStack) -> None:
        described = len(self._described)
        in_need = len(self._over_channels) + bool(described)
        chunk, self._rooms = rooms_for(self.settings.budget, self.settings.chunk, in_need)
        # Buffers are there before they are needed: none for a machine whose state comes as pages and sections alone.
        pool = BufferPool(chunk, self._rooms if in_need and self.settings.channels else 1)
        stack.callback(self._note_memory, pool)
        named = f" ({HASTE:.0%} of limits.peer: raise that for a source, or a host, that is only slow)"
        self._liveness = Liveness(self._switch, self.settings.peer_limit * HASTE, self._scheduler.look, named)
        memory = self._memory = self._make_memory()
        self._load_handlers = LoadHandlers(
            self._multifd_slots,
            pool,
            self._return_path.grant,
            self._tracer,
            self._switch,
            self._liveness,
            memory,
            splice=self.settings.splice and not self.settings.tls,
        )
        self._chunk = chunk
        handlers = self._load_handlers.handlers()
        handlers.on(EndLiveTurn, self._jobs.end_round)
        submit_configs = partial(self._jobs.submit_configs, self._over_channels)
        KeptConfigs(self._switch, self._over_channels, submit_configs).handle(handlers)
        chunks = self._load_handlers.chunk_queues
        self._interpreter = Interpreter(handlers, self._big_lock, self._tracer, self._switch, chunks)
        self._sections = SectionLoader(
            self.machine,
            self._schema,
            memory,
            self._interpreter,
            self._acknowledgements,
            channels=self.settings.channels,
            on_main=self._on_main,
            described=self._described,
            memory_complete=partial(self._jobs.submit, self._crossing.late_jobs),
            live=LiveRounds(self._jobs.begin_round, self._scheduler.drain) if self._live else None,
        )

    def _make_memory(self) -> RamDestination | None:
        slot = self.machine.memory
        if slot is None or not isinstance(slot.device, MemoryDevice):
            return None
        # Here, as at the source: only a machine with memory needs numpy.
        from migpool.ram.destination import RamDestination

        settings = self.settings
        return RamDestination(slot, slot.device, settings.channels, settings.tick, self._switch)

    def _load(self) -> None:
        for item in self._items:
            self._take(item)
            if isinstance(item, Eof):
                break
        if absent := self._sections.absent():
            raise PeerError(
                f"the stream ended without {', '.join(absent[:3])}{' and others' if absent[3:] else ''}: {self._remedy}"
            )
        if self.state is State.ACTIVE:
            if self._multifd_slots:  # whose jobs have never begun
                raise PeerError(
                    f"the stream ended without SWITCHOVER_START, and so without {self._multifd_slots[0].name}"
                )
            self._states.happen(Event.SWITCH_OVER)  # a source that loads nothing behind it need not say it
        self._join()

    def _read_items(self) -> Iterator[StreamEvent]:
        reader = self._reader
        while True:
            yield from reader.events()
            data = read_some(self._main, MAIN_READ_SIZE, self._idle)
            if data:
                reader.feed(data)  # nothing is lost, whatever comes next: it may be the source's last words
            self._switch.check()
            if not data:
                try:
                    reader.end()
                except ProtocolError as error:
                    raise PeerGone(f"{ENDED_EARLY} ({error})") from None
                yield from reader.events()
                return
            self._liveness.moved = True

    def _watch_the_source(self) -> None:
        """See the source end the connection, whatever the other threads are doing: it has taken the machine back.

        A source that knows credits keeps the main channel open until it has heard the last word from here.
        """
        watch = select.poll()
        watch.register(self._main, select.POLLRDHUP)
        watch.poll()
        self._withdraw(
            PeerGone(f"{ENDED_EARLY} ({self._load_handlers.chunk_queues.missing() or 'before the machine ran here'})")
        )

    def _hear_greeting(self) -> None:
        """Learn what the source understands, if the failure came before: else it could not be told why."""
        if self._return_path.extended is not None:
            return
        self._liveness = Liveness(self._switch, GOODBYE, self._scheduler.look)
        with contextlib.suppress(Exception):  # the failure that came first is the one to tell
            for item in self._items:
                self._take(item)
                if isinstance(item, Configuration):
                    break

    def _say_goodbye(self) -> None:
        """Take the description, and let the source close first: nothing that it still says is lost in a reset."""
        self._liveness = Liveness(self._switch, GOODBYE, self._scheduler.look)
        with contextlib.suppress(MigpoolError):
            for _ in self._items:
                continue

    def _start_machine(self) -> None:
        with self._deciding:
            self._switch.check()
            self._decided = True
        started: list[Slot] = []
        try:
            start(self.machine, self._tracer, started)
        except BaseException:
            if stand(started) is not None:
                self._tell_running()  # it cannot be said that it does not
            raise
        self._tell_running()

    def _tell_running(self) -> None:
        self._running = time.monotonic_ns()
        self._states.happen(Event.RUNNING)
        if self._return_path.extended:
            self._return_path.answer(Running(boot_id(), self._running))
        self._runs()

    def _confirm(self) -> None:
        """Prove that what runs here is what was sent."""
        for slot in self.machine:
            of(slot, "verify", slot.device.verify)
        for slot in self.machine if self._return_path.extended else ():
            digest = digest_of(slot)
            self._return_path.answer(Digest(slot.number, digest))
        self._return_path.answer(Shut(0))

    def _exchanges(self) -> list[Exchange]:
        return self._answered

    # ------------------------------------------------------------------ the items of the main channel

    def _take(self, item: StreamEvent) -> None:
        match item:
            case FileHeader() | Eof() | VmDescription():
                pass
            case Configuration():
                self._configure(item)
            case Command(kind):
                self._command(kind, item)
            case DeviceSection():
                self._sections.iterable(item, runs=self.state is State.ACTIVE)
            case Section():
                self._sections.section(item)
            case RamSection() | RamBlocks() | RamPages() | MultifdFlush() | RamSectionEnd():
                self._sections.memory(item)
            case _:
                raise ProtocolError(item.offset, "item", f"no packages, found {type(item).__name__}")

    def _configure(self, item: Configuration) -> None:
        self._return_path.extended = CREDITS_CAPABILITY in (item.capabilities or ())
        self._incoming.close()
        self._terms.check(item, self._uuid if self.settings.channels else None, self._remedy)
        self._acknowledgements.ours = self._return_path.extended
        self._acknowledgements.counted = item.counts_acknowledgements
        self._states.happen(Event.CONNECTED)

    def _command(self, kind: CommandKind, item: Command) -> None:
        if kind is CommandKind.OPEN_RETURN_PATH:
            if self._return_path.extended:
                self._threads.start("source-watch", self._watch_the_source)
                iterable, described = len(self._over_channels), len(self._described)
                self._return_path.answer(Welcome(self._chunk, iterable + described))
                if iterable or described:
                    windows = Windows(
                        iterable,
                        self._rooms,
                        each=self.settings.device_budget // self._chunk if self.settings.device_budget else None,
                        described=described,
                    )
                    self._load_handlers.chunk_queues.use_credits(windows)
            self._acknowledgements.opened()
        elif kind is CommandKind.PING:
            value, now = ping_value(item), time.monotonic_ns()
            self._return_path.answer(Pong(value))
            if len(self._answered) < MOST_EXCHANGES:
                self._answered.append(Exchange(value, now, now))
        elif kind is CommandKind.SWITCHOVER_START:
            self._stands()
            self._states.happen(Event.SWITCH_OVER)
            if self._memory is not None:
                self._memory.stopped()
            if self._live:
                self._scheduler.drain()  # a device's last round ends before its next chunks are asked for
            self._jobs.submit(self._crossing.jobs)
        elif kind is CommandKind.FAILED and self._return_path.extended:
            raise self._hear_why(item)
        else:
            raise ProtocolError(item.offset, "command", f"none of post-copy or COLO, found {kind.name}")

    def _idle(self) -> None:
        waited_for = self._load_handlers.chunk_queues.starved()
        if not waited_for and not self._scheduler.busy:
            waited_for = "main channel: the next item has not come"
        self._liveness.idle(waited_for)

    # ------------------------------------------------------------------ afterwards

    def _hear_why(self, item: Command) -> PeerGone:
        self._gave_up = PeerGone(f"{GAVE_UP}: {failed_reason(item)}")
        return self._gave_up

    def _reason(self, error: BaseException) -> BaseException:
        # The end of a connection is how a failure of the source shows first; its own words say more.
        if not (self._accepted and self._return_path.extended and isinstance(error, PeerGone)):
            return error
        # Of what lies here unread, the last may be no more than half; and the reader may have ended with an error.
        with contextlib.suppress(Exception):
            while self._gave_up is None:
                for item in self._reader.events():
                    if isinstance(item, Command) and item.kind is CommandKind.FAILED:
                        self._hear_why(item)
                if not (data := read_some(self._main, MAIN_READ_SIZE, self._idle)):
                    break
                self._reader.feed(data)
        return self._gave_up or error

    def _let_go(self) -> None:
        if self._memory is not None:
            self._memory.let_go()

    @property
    def bytes(self) -> int:
        """How many bytes of state have been received so far."""
        return self._sections.bytes + self._load_handlers.bytes_received if self._accepted else 0

    def _devices(self) -> Iterator[DeviceReport]:
        for slot in self.machine:
            device = slot.device
            described = slot in self._described
            held = self._load_handlers.chunk_queues.most_held(slot) if self._accepted else 0
            yield DeviceReport(
                slot.name, device.note, device.iterable, remark=device.remark, described=described, high_water=held
            )
