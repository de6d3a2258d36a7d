"""What the devices of one VM have in common: the machine, the vCPUs' threads, and who closes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from migpool.device import Device
from migpool_plugins.vcpu.backend import VcpuMachine, VirtualCpu
from migpool_plugins.vcpu.options import VcpuOptions
from migpool_plugins.vcpu.state import StateFormat
from migpool_plugins.vcpu.thread import VcpuThread

BOARD: Final = -1
"""Stands for the board where a vCPU has its index."""


class VcpuGroup:
    """The vCPUs of one VM and their board: they stop together, and the last one to close gives back the VM.

    Attributes:
        loaded: the vCPUs that have been given a state.
    """

    def __init__(self, machine: VcpuMachine, options: VcpuOptions) -> None:
        self.machine = machine
        self.threads: Sequence[VcpuThread] = [
            VcpuThread(vcpu.index, self.batch_of(vcpu), options.halt_ms / 1000) for vcpu in machine.vcpus
        ]
        self.loaded: set[int] = set()
        self._open = {BOARD, *range(len(self.threads))}
        self._limit = options.limit_s

    def batch_of(self, vcpu: VirtualCpu) -> Callable[[], None]:
        """Return what a vCPU's thread runs again and again: here, the guest to the end of a batch."""
        return vcpu.run_batch

    def noted(self, left_out: Sequence[str] = ()) -> str:
        """What a reader of the result should know: the backend, and what of a whole state this host lacks."""
        lacks = f" without {', '.join(self.machine.lacks)}" if self.machine.lacks else ""
        return f"{self.machine.name}{lacks}" + (f"; left out, unused: {', '.join(left_out)}" if left_out else "")

    @property
    def standing(self) -> bool:
        """Whether no vCPU runs, and none will until it is let go."""
        return all(thread.standing for thread in self.threads)

    def run(self, limit: float) -> None:
        """Let every vCPU go, and return when all run: within ``limit`` seconds, or with a :class:`DeviceError`."""
        for thread in self.threads:
            thread.go()
        for thread in self.threads:
            thread.wait_running(limit)

    def ask_to_stand(self) -> None:
        """Ask every vCPU to stop, so that the batches which they are in end at the same time."""
        for thread in self.threads:
            thread.ask_to_stand()

    def leave(self, index: int) -> None:
        """End the thread of a vCPU, none of :data:`BOARD`; the last gives the VM back. Harmless when repeated."""
        if index not in self._open:
            return
        if index != BOARD:
            self.threads[index].end(self.machine.expel, self._limit)
        self._open.discard(index)
        if not self._open:
            self.machine.close()


class GroupDevice(Device):
    """A device of a group's VM, whose whole state is one config that names every value.

    Arguments:
        group: the VM that it belongs to.
        member: the vCPU's index, or :data:`BOARD`.
        form: of the config.
    """

    def __init__(self, group: VcpuGroup, member: int, form: StateFormat) -> None:
        self.note = group.noted()
        self._group = group
        self._machine = group.machine
        self._member = member
        self._format = form
        self._closed = False

    def close(self) -> None:
        self._closed = True
        self._group.leave(self._member)

    def exact_config(self) -> bool:
        return True

    def measure_config(self, data: memoryview) -> int | None:
        return self._format.measure(self.instance_id, data)
