"""One end of a migration by migpool itself, in a process of its own: ``python -m benchmarks.datapath.side``.

Arguments: ``source`` or ``destination``, the task as JSON, and the devices' descriptors with commas between. The
destination prints its address on a line of its own; the source reads it from its standard input. Both end with their
account as one line of JSON.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from benchmarks.datapath import calls, leg
from benchmarks.datapath.devices import (
    BenchmarkDevice,
    Blocking,
    FromMemfd,
    FromNothing,
    FromPipe,
    FromSocket,
    FromSplice,
    ToMemfd,
    ToNothing,
    ToSplice,
)
from benchmarks.datapath.failure import BenchmarkFailure
from benchmarks.datapath.task import Account, Task
from migpool.core.machine import Machine
from migpool.core.trace import Recorder, Tracer
from migpool.migration.destination import Destination
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.transport.address import Address

DELAY = 0.002
"""Seconds that a blocking device takes for a chunk."""
BARE = {"channels": leg, "calls": calls}
"""What moves the state without a migration, by ``Task.bare``."""


class NoTrace(Tracer):
    """Records nothing."""

    def recorder(self) -> Recorder:
        """One that lets every span go."""
        return _forget


_forget = cast("Recorder", len)
"""Takes no time worth speaking of, unlike a function of ours."""


class CpuMeter:
    """CPU time of this process while the state moves. Its methods watch the migration's states.

    Arguments:
        begins: the state in which the clock starts; it stops when the machine runs at the destination.
    """

    def __init__(self, begins: State) -> None:
        self._begins = begins
        self._begun = self._ended = (0.0, 0.0)

    def watch(self, state: State) -> None:
        """The migration is in a new state."""
        if state is self._begins:
            self._begun = _cpu()
        elif state is State.RUNNING:
            self._ended = _cpu()

    def spent(self) -> tuple[float, float]:
        """Seconds in user mode and in the kernel."""
        return self._ended[0] - self._begun[0], self._ended[1] - self._begun[1]


def _cpu() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def scheduler(name: str) -> Scheduler:
    """Make a threading model by its registered name."""
    found = entry_points(group="migpool.schedulers", name=name)
    if not found:
        raise BenchmarkFailure(f"there is no threading model {name!r}: install migpool into this environment")
    made = next(iter(found)).load()()
    if not isinstance(made, Scheduler):
        raise BenchmarkFailure(f"{name!r} is no threading model")
    return made


def source_device(task: Task, number: int, fds: Sequence[int]) -> BenchmarkDevice:
    """The source's half of a device."""
    size = task.size
    match task.reading:
        case "none":
            return FromNothing(number, size)
        case "blocking":
            return Blocking(number, size, DELAY)
        case "pread":
            return FromMemfd(number, size, fds[number])
        case "splice":
            return FromSplice(number, size, fds[number])
        case "read":
            return FromPipe(number, size, fds[number])
        case "recv":
            return FromSocket(number, size, fds[number])
    raise BenchmarkFailure(f"no such reading: {task.reading!r}")


def destination_device(task: Task, number: int, fds: Sequence[int]) -> BenchmarkDevice:
    """The destination's half of a device."""
    match task.writing:
        case "none":
            return ToNothing(number, task.size)
        case "pwrite":
            return ToMemfd(number, task.size, fds[number])
        case "splice":
            return ToSplice(number, task.size, fds[number])
    raise BenchmarkFailure(f"no such writing: {task.writing!r}")


@contextlib.contextmanager
def computing(wanted: bool) -> Iterator[None]:
    """Have a thread compute meanwhile, if ``wanted``."""
    over = threading.Event()

    def compute() -> None:
        number = 1
        while not over.is_set():
            for _ in range(1000):
                number = number * 1103515245 % 2147483647

    thread = threading.Thread(target=compute)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if wanted:
            thread.join()


def settings(task: Task) -> Settings:
    """The task's settings; a benchmark waits a minute for nobody."""
    return Settings(
        channels=task.channels,
        chunk=task.chunk,
        budget=task.budget,
        credits=task.credits,
        splice="splice" in (task.reading, task.writing),
        peer_limit=20.0,
        accept_limit=20.0,
    )


def send_bare(task: Task, devices: Sequence[BenchmarkDevice], address: Address) -> Account:
    """Send without a migration."""
    before = _cpu()
    began = BARE[task.bare].send(devices, settings(task), address)
    return _bare(began, task.bytes, before)


def receive_bare(task: Task, devices: Sequence[BenchmarkDevice], address: Address) -> Account:
    """Receive without a migration."""
    before = _cpu()
    ended, moved = BARE[task.bare].receive(devices, settings(task), address, _listening)
    return _bare(ended, moved, before)


def _bare(stamp: int, moved: int, before: tuple[float, float]) -> Account:
    user, system = _cpu()
    return Account("", stamp, 0.0, moved, user - before[0], system - before[1])


def _listening(bound: Address) -> None:
    print(bound, flush=True)  # noqa: T201 -- the answer to whoever started this process


def run_source(task: Task, fds: Sequence[int]) -> Account:
    """Send; the address comes on the standard input."""
    address = Address.parse(sys.stdin.readline().strip())
    devices = [source_device(task, number, fds) for number in range(task.devices)]
    if task.bare:
        return send_bare(task, devices, address)
    meter = CpuMeter(State.SWITCHOVER)
    machine = Machine("bench", devices)
    source = Source(
        machine,
        settings(task),
        scheduler(task.source),
        workers=task.workers or None,
        tracer=None if task.trace else NoTrace(),
        watch=meter.watch,
    )
    with computing(task.busy), contextlib.closing(machine):
        report = source.run(address)
        user, system = meter.spent()
    first = min(device.first for device in devices)
    return Account(report.error, first, (report.running - report.stopped) * 1e-9, report.bytes, user, system)


def run_destination(task: Task, fds: Sequence[int], address: str) -> Account:
    """Receive."""
    devices = [destination_device(task, number, fds) for number in range(task.devices)]
    if task.bare:
        return receive_bare(task, devices, Address.parse(address))
    # ACTIVE, since the first chunks may be here before SWITCHOVER_START is; nothing happens between the two.
    meter = CpuMeter(State.ACTIVE)
    machine = Machine("bench", devices)
    destination = Destination(
        machine,
        settings(task),
        scheduler(task.destination),
        workers=task.workers or None,
        tracer=None if task.trace else NoTrace(),
        watch=meter.watch,
        listening=_listening,
    )
    with contextlib.closing(machine):
        report = destination.run(Address.parse(address))
        user, system = meter.spent()
    last = max(device.last for device in devices)
    return Account(report.error, last, 0.0, sum(device.done for device in devices), user, system)


def main() -> None:
    """Run the end that the arguments name."""
    side, text, descriptors, address = sys.argv[1:]
    task = Task.decode(text)
    if task.reading == "blocking":
        # Else the kernel lets each sleep last 50 microseconds longer; threads inherit it from the one that makes them.
        with contextlib.suppress(OSError):
            Path("/proc/self/timerslack_ns").write_text("1")
    fds = [int(word) for word in descriptors.split(",") if word]
    account = run_source(task, fds) if side == "source" else run_destination(task, fds, address)
    print(account.encode(), flush=True)  # noqa: T201 -- the same


if __name__ == "__main__":
    main()
