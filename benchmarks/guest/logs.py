"""What each of KVM's two dirty logs costs: a look at it, and the guest that is logged."""

from __future__ import annotations

import ctypes
import mmap
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.datapath.failure import BenchmarkFailure
from migpool.device import Device, DeviceContext, MemoryDevice
from migpool_plugins.guest import devices
from migpool_plugins.guest.device import GuestVcpu
from migpool_plugins.ram.logs import RING_SIZE, KvmDirtyBitmap, KvmDirtyRing
from migpool_plugins.vcpu import program
from migpool_plugins.vcpu.kvm_machine import OWN_MEMORY, KvmMachine, MemoryRegion

__all__ = ["LOGS", "compare_large", "compare_logs"]

LOGS = ("bitmap", "ring")
VCPUS = 2
RATES = (2000, 20000, 0)
"""Pages a second that each vCPU writes; 0 for as many as it can."""
INTERVAL = 0.05
"""Seconds between two looks, about what a round of pre-copy takes."""
LOOKS = 8
LIMIT = 10.0
LARGE = (1, 4, 16)
"""GiB of memory that is mapped and never touched, but for one page."""
_NORESERVE = 0x4000
"""MAP_NORESERVE of ``linux/mman.h``; Python 3.11 has no name for it."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What some looks gave.

    Arguments:
        look: median milliseconds of one.
        pages: named by all of them.
        rate: pages a second that all vCPUs wrote meanwhile.
    """

    look: float
    pages: int
    rate: float


@contextmanager
def running(log: str, rate: int) -> Iterator[list[Device]]:
    """A guest that runs."""
    options: dict[str, str | int] = {"backend": "kvm", "dirty_log": log, "rate": rate, "memory": "256MiB"}
    made = list(devices(DeviceContext("source", options, VCPUS, 1)))
    try:
        yield made
    finally:
        for device in reversed(made):
            device.close()


def measured(log: str, rate: int) -> Logged:
    """Let a guest run, and look again and again."""
    with running(log, rate) as made:
        memory, vcpu = made[0], made[1]
        assert isinstance(memory, MemoryDevice)
        assert isinstance(vcpu, GuestVcpu)
        for thread in vcpu.group.threads:
            thread.wait_batches(2, LIMIT)  # each has read its clock, and said at which step
        memory.start_dirty_log()
        memory.take_dirty(0)
        begun, before = time.monotonic(), steps_of(vcpu)
        looks, pages = [], 0
        for _ in range(LOOKS):
            time.sleep(INTERVAL)
            at = time.perf_counter()
            answer = memory.take_dirty(0)
            looks.append((time.perf_counter() - at) * 1000)
            pages += int(np.unpackbits(np.frombuffer(answer, dtype=np.uint8)).sum())
        written = steps_of(vcpu) - before
        took = time.monotonic() - begun
        memory.stop_dirty_log()
        return Logged(statistics.median(looks), pages, written / took)


def steps_of(vcpu: GuestVcpu) -> int:
    """How many pages all vCPUs have written so far, as of their last readings of the clock."""
    group = vcpu.group
    return sum(group.control(index).step_at_clock for index in range(VCPUS))


def compare_logs(rounds: int) -> None:
    """Measure both in turns, and say what came of it."""
    found: dict[tuple[int, str], list[Logged]] = {(rate, log): [] for rate in RATES for log in LOGS}
    for number in range(rounds):
        for rate, log in list(found) if number % 2 else reversed(list(found)):
            found[rate, log].append(measured(log, rate))
    for (rate, log), each in found.items():
        sys.stdout.write(
            f"{VCPUS} vCPUs, {rate or 'all they can'} pages/s each, {log}: a look {spread([one.look for one in each])} "
            f"ms, {statistics.median(one.pages for one in each):.0f} pages named, "
            f"the guest wrote {statistics.median(one.rate for one in each):.0f} pages/s\n"
        )


def look_at_large(gib: int, log: str, looks: int) -> list[float]:
    """Milliseconds of each look at memory of so many GiB of which one page has been written since the last."""
    size = gib << 30
    with closing(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)) as memory:
        region = MemoryRegion(ctypes.addressof(ctypes.c_char.from_buffer(memory)), OWN_MEMORY, size)
        with closing(KvmMachine(1, [region], ring=RING_SIZE if log == "ring" else 0)) as machine:
            known = KvmDirtyRing(machine, 1, region) if log == "ring" else KvmDirtyBitmap(machine, 1, region)
            known.start()
            known.take()
            found = []
            for _ in range(looks):
                machine.vcpus[0].boot(program.start_registers(seed=1, index=0, batch=512, way_out=machine.way_out))
                machine.vcpus[0].put("rdi", OWN_MEMORY)
                machine.vcpus[0].run_batch()
                at = time.perf_counter()
                answer = known.take()
                found.append((time.perf_counter() - at) * 1000)
                if answer.count(0) != len(answer) - 1:
                    raise BenchmarkFailure(f"the dirty {log} names other pages than the one that was written")
            known.stop()
            return found


def compare_large(rounds: int) -> None:
    """Measure both in turns on memory that is hardly written, and say what came of it."""
    found: dict[tuple[int, str], list[float]] = {(gib, log): [] for gib in LARGE for log in LOGS}
    for number in range(rounds):
        for gib, log in list(found) if number % 2 else reversed(list(found)):
            found[gib, log] += look_at_large(gib, log, LOOKS)
    for (gib, log), looks in found.items():
        sys.stdout.write(f"{gib} GiB, one page written, {log}: a look {spread(looks)} ms\n")


def spread(values: Sequence[float]) -> str:
    """The median, the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
