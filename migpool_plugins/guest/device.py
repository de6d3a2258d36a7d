"""The guest's vCPUs as devices: those of ``migpool_plugins.vcpu``, with a pace, a clock and another proof."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from migpool.device import DeviceError, VerificationError
from migpool_plugins.guest.guest_time import VcpuPace, host_number, new_offset
from migpool_plugins.guest.layout import Control, GuestLayout
from migpool_plugins.guest.proof import Standing, prove_vcpu
from migpool_plugins.ram.memory import GuestMemory
from migpool_plugins.vcpu.backend import VcpuMachine, VirtualCpu
from migpool_plugins.vcpu.device import VcpuDevice
from migpool_plugins.vcpu.group import VcpuGroup
from migpool_plugins.vcpu.options import VcpuOptions
from migpool_plugins.vcpu.register_sets import REGS, VcpuState


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
        self, machine: VcpuMachine, options: VcpuOptions, memory: GuestMemory, layout: GuestLayout, rate: int, most: int
    ) -> None:
        self.memory = memory
        self.layout = layout
        self.paces = [VcpuPace(rate, most) for _ in machine.vcpus]
        self._clock_offset = new_offset()
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
        return self._standing(self._vcpu.save()).step

    def verify(self) -> None:
        """Prove that the guest has gone on, and that every page is the one that its steps say."""
        self._refuse_closed()
        before = -1 if self._state is None else self._standing(self._state).step
        try:
            self._let_run()
            self._prove(before)
        except DeviceError as error:
            if self._thread.aborted or isinstance(error, VerificationError):
                raise
            raise VerificationError(error.message) from error

    def _prove(self, before: int) -> None:
        group = self.group
        # Read before the vCPU stands for it: this pause is no part of what the guest is asked about.
        gap = group.control(self.instance_id).longest_gap
        with self._stood() as state:
            prove_vcpu(group.layout, group.memory.view, self._standing(state), before)
        self.remark = f"stood still for {gap / 1e6:.1f} ms by its own clock"

    def _standing(self, state: VcpuState) -> Standing:
        step = REGS.values(state.registers["regs"])["rcx"]
        return Standing(self.instance_id, step, state.checksum)
