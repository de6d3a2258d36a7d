"""The guest's vCPUs as devices: those of ``migpool_plugins.vcpu``, with a pace, a clock and another proof.

The clock counts nanoseconds, forward only, and goes on across a migration. On one host it is CLOCK_MONOTONIC and an
offset, so a migration takes for the guest just as long as it takes. On another host, whose CLOCK_MONOTONIC has another
beginning, the offset is made anew from the wall clock.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from migpool_plugins.guest.layout import Control, GuestLayout, steps_in
from migpool_plugins.memory import Memory
from migpool_plugins.vcpu.backend import VcpuMachine, VirtualCpu
from migpool_plugins.vcpu.device import VcpuDevice, VcpuGroup
from migpool_plugins.vcpu.options import VcpuOptions

INTERVAL = 0.005
"""Seconds from one batch to the next."""


def host_number() -> int:
    """A number of 63 bits for this boot of this kernel; another one each time where there is no such thing."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return uuid.UUID(text).int >> 65
    except (OSError, ValueError):
        return uuid.uuid4().int >> 65


class VcpuPace:
    """One vCPU's pace. Used by its own thread; only ``throttle`` may be set by another.

    Arguments:
        rate: pages a second; 0 for as many as it can.
        most: the longest batch, in pages.

    Attributes:
        batch: pages in a batch.
        throttle: for which share of the time the vCPU is kept asleep beyond its pace, from 0 to below 1.
    """

    def __init__(self, rate: int, most: int) -> None:
        self.batch = min(most, max(1, round(rate * INTERVAL))) if rate else most
        self._interval = self.batch / rate if rate else 0.0
        self.throttle = 0.0
        self._due = 0.0

    def rest(self, began: float, now: float) -> float:
        """How long to rest after a batch that began and ended at these moments, in seconds by any clock."""
        awake = 1.0 - self.throttle
        interval = self._interval / awake
        # A vCPU that woke a little late keeps to the beat; one that could not keep it does not hurry afterwards.
        due = (self._due if began - self._due < interval else began) + interval
        if self.throttle:
            due = max(due, now + (now - began) * self.throttle / awake)
        self._due = max(due, now)
        return self._due - now


class GuestGroup(VcpuGroup):
    """The vCPUs of one guest.

    Arguments:
        machine: the VM.
        options: limits.
        memory: of the guest.
        layout: of the memory.
        rate: pages a second that each vCPU writes.
        most: the longest batch, in pages.
    """

    def __init__(
        self, machine: VcpuMachine, options: VcpuOptions, memory: Memory, layout: GuestLayout, rate: int, most: int
    ) -> None:
        self.memory = memory
        self.layout = layout
        self.paces = [VcpuPace(rate, most) for _ in machine.vcpus]
        self._clock_offset = time.time_ns() - time.monotonic_ns()
        super().__init__(machine, options)

    def batch_of(self, vcpu: VirtualCpu) -> Callable[[], None]:
        pace = self.paces[vcpu.index]

        def run() -> None:
            began = time.monotonic()
            vcpu.run_batch()
            vcpu.put("rax", time.monotonic_ns() + self._clock_offset)
            self.threads[vcpu.index].halt = pace.rest(began, time.monotonic())

        return run

    def begin(self) -> None:
        """The guest begins here: write its memory."""
        self.layout.fill(self.memory.view, self._clock_offset, host_number())

    def arrive(self) -> None:
        """The guest has come: its clock goes on. Harmless when repeated, as it is for each vCPU."""
        control = self.control(0)
        if control.host == host_number():
            self._clock_offset = control.clock_offset

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Every vCPU stands; those that ran go on afterwards."""
        running = [thread for thread in self.threads if not thread.standing]
        for thread in running:
            thread.ask_to_stand()
        try:
            for thread in running:
                thread.wait_standing(self._limit)
            yield
        finally:
            for thread in running:
                thread.go()

    def control(self, index: int) -> Control:
        """What stands in a vCPU's control page."""
        return Control.read(self.memory.view, self.layout.control(index))


class GuestVcpu(VcpuDevice):
    """One vCPU of the guest; arguments as those of :class:`VcpuDevice`."""

    def __init__(self, group: GuestGroup, index: int, seed: int, options: VcpuOptions) -> None:
        super().__init__(group, index, seed, options)
        self.group = group

    def throttle(self, share: float) -> None:
        self.group.paces[self.instance_id].throttle = share

    def start(self) -> None:
        self.group.arrive()
        super().start()

    def steps(self) -> int:
        """How many steps it has done; it must stand."""
        return steps_in(self._part.save())

    def _proved_before(self) -> int:
        return -1 if self._state is None else steps_in(self._state)

    def _prove(self, before: int) -> None:
        group = self.group
        # Read before the vCPU stands for it: this pause is no part of what the guest is asked about.
        gap = group.control(self.instance_id).longest_gap
        with self._stood() as state:
            group.layout.prove(group.memory.view, self.instance_id, state, before)
        self.remark = f"stood still for {gap / 1e6:.1f} ms by its own clock"
