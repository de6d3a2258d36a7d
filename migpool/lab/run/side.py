"""One side of one migration on a thread of its own; what this process is warned of meanwhile, and holds afterwards."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import JsonValue, TypeAdapter

from migpool.core import returned
from migpool.core.device_calls import of
from migpool.core.machine import Machine, Slot
from migpool.core.plugin_errors import traceback_of
from migpool.device import Side, StateCosts
from migpool.errors import BuildError, MigpoolError, UsageError
from migpool.lab.run.result import SideTrace
from migpool.migration.destination import Destination
from migpool.migration.endpoint import Endpoint
from migpool.migration.report import SideReport
from migpool.migration.source import Source
from migpool.migration.states import State
from migpool.precopy.rounds import Round
from migpool.scenario.build import build_machine
from migpool.scenario.model_syntax import Model
from migpool.scenario.schema import Scenario
from migpool.transport.address import Address


@dataclass(frozen=True, slots=True)
class SideResult:
    """What is left of a side when it is over.

    Attributes:
        costs: what each device's own work takes, in the machine's order; ``None`` for one that does not know.
        closing: what went wrong when the devices were closed, in one line; empty if nothing did.
        closing_traceback: of that, if a plug-in raised it.
    """

    report: SideReport
    costs: tuple[StateCosts | None, ...] = ()
    closing: str = ""
    closing_traceback: str = ""

    @property
    def traceback(self) -> str:
        """Of what a plug-in raised that it must not; empty without one."""
        return self.report.traceback or self.closing_traceback

    @property
    def error(self) -> str:
        """Why it failed, in one line; empty if it did not."""
        return self.report.error or self.closing

    @property
    def succeeded(self) -> bool:
        """Whether everything went well here, to the end."""
        return self.report.succeeded and not self.closing

    @property
    def verified(self) -> bool | None:
        """As the report's, and false if the devices could not be closed."""
        return False if self.closing else self.report.verified

    def to_json(self) -> dict[str, JsonValue]:
        """What ``json.dumps`` takes and :meth:`from_json` gives back: it crosses to the process that compares."""
        bare = _BARE.dump_python(replace(self, report=replace(self.report, spans=())), mode="json")
        return {"side": bare, "trace": SideTrace.of(self.report.spans).model_dump()}

    @staticmethod
    def from_json(form: dict[str, JsonValue]) -> SideResult:
        result = _BARE.validate_python(form["side"])
        return replace(result, report=replace(result.report, spans=SideTrace.model_validate(form["trace"]).read()))


_BARE: Final = TypeAdapter(SideResult)


@dataclass(eq=False)
class SideRun:
    """One side of one migration, so that the caller's thread stays free to wait, look and cancel.

    Guarantees:

    1. :meth:`cancel` may be called at any time, from a signal handler's thread too, and takes effect whether the
       machine is still being built, migrates, or is done.
    2. When :meth:`join` has returned true, the devices are closed and the thread has ended.

    Arguments:
        seed: the same at both ends.
        address: where to connect to, or to listen.
        where: the scenario's file, for errors.
        insecure, exchanges: see :class:`~migpool.migration.settings.Settings`.
        watch: called with each new state, on the migration's thread.
        listening: called at the destination with the address, once a source can connect; same thread.
        progress: called at the source after each round of pre-copy, same thread.
    """

    scenario: Scenario
    model: Model
    side: Side
    seed: int
    address: Address
    _: KW_ONLY
    where: str = ""
    insecure: bool = False
    exchanges: int = 0
    watch: Callable[[State], None] | None = None
    listening: Callable[[Address], None] | None = None
    progress: Callable[[Round], None] | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._endpoint: Endpoint | None = None
        self._cancelled = False
        self._result: SideResult | None = None
        self._failure: BaseException | None = None
        # Not a daemon: a device that is being closed must not be cut off by the interpreter's end.
        self._thread = threading.Thread(target=self._run, name="migration")

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        """Cancel the migration; returns at once."""
        with self._lock:
            self._cancelled = True
            endpoint = self._endpoint
        if endpoint is not None:
            endpoint.cancel()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it is over; returns whether it is."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def bytes(self) -> int:
        """How many bytes of state have been sent or received so far."""
        endpoint = self._endpoint
        return 0 if endpoint is None else endpoint.bytes

    def result(self) -> SideResult:
        """How it went, once it is over.

        Raises:
            UsageError, BuildError: the machine could not be built.
        """
        if self._failure is not None:
            raise self._failure
        assert self._result is not None, "the migration is not over"
        return self._result

    def _run(self) -> None:
        """What the migration's thread does."""
        try:
            self._result = self._migrate(self._built())
        except BaseException as error:  # noqa: BLE001 -- raised by result(), on the thread that asks
            self._failure = error

    def _built(self) -> Machine:
        try:
            return build_machine(self.scenario, self.side, self.seed, self.where)
        except UsageError:
            raise
        except MigpoolError as error:
            raise BuildError(str(error)) from error

    def _migrate(self, machine: Machine) -> SideResult:
        closing = trace = ""
        try:
            endpoint = self._make(machine)
            with self._lock:
                self._endpoint = endpoint
                cancelled = self._cancelled
            if cancelled:
                endpoint.cancel()
            report = endpoint.run(self.address)
            costs = tuple(of(slot, "costs", partial(_costs, slot)) for slot in machine)
        finally:
            try:
                machine.close()
            except Exception as error:  # noqa: BLE001 -- a plug-in's; it must not hide how the migration went
                closing = " ".join(f"closing the devices: {error}".split())
                trace = traceback_of(error)
        return SideResult(report, costs, closing, trace)

    def _make(self, machine: Machine) -> Endpoint:
        part = self.model.part(self.side)
        make = (
            partial(Source, progress=self.progress)
            if self.side == "source"
            else partial(Destination, listening=self.listening)
        )
        return make(
            machine,
            replace(self.scenario.settings(), insecure=self.insecure, exchanges=self.exchanges),
            part.make(),
            workers=part.workers,
            watch=self.watch,
        )


def _costs(slot: Slot) -> StateCosts | None:
    return returned.costs(slot, "costs", slot.device.costs())


@contextmanager
def warnings_told(tell: Callable[[str], object]) -> Iterator[None]:
    """While this is entered, every warning, Python's own or logged, is told instead of printed: each line once.

    Arguments:
        tell: is called with a line, on the thread that warns.
    """
    handler = _Telling(tell)
    logging.captureWarnings(True)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        logging.captureWarnings(False)


class _Telling(logging.Handler):
    """Tells records from WARNING on; the handler's own lock keeps two threads from telling one line twice."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        # The line of code that Python quotes under a warning says less than where it stands.
        text = next(iter(record.getMessage().splitlines()), "")
        if text not in self._told:
            self._told.add(text)
            self._tell(text)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds: after a migration, what that one has left behind.

    Arguments:
        threads: how many threads it has, the main one included; the kernel's count, not only Python's.
        resident_bytes: its memory that is resident.
    """

    threads: int
    descriptors: int
    resident_bytes: int


def footprint() -> Footprint | None:
    """This process's own; ``None`` where the system does not tell, as only Linux does."""
    try:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
        # The listing itself holds one descriptor while it lasts.
        descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1
        return Footprint(int(status["Threads"]), descriptors, int(status["VmRSS"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        return None
