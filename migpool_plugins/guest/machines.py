"""The VM of either backend with the guest's memory in it, and the log of what it writes there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from migpool.device import DeviceError
from migpool_plugins.guest.layout import ADDRESS, OUT_BY_DOORBELL
from migpool_plugins.guest.options import DirtyLogChoice
from migpool_plugins.ram.device import DirtyLog
from migpool_plugins.ram.kvm_log import KvmDirtyLog
from migpool_plugins.ram.kvm_ring import RING_SIZE, KvmDirtyRing
from migpool_plugins.ram.memory import GuestMemory
from migpool_plugins.vcpu.backend import Machine
from migpool_plugins.vcpu.choice import choose_backend
from migpool_plugins.vcpu.kvm_machine import KvmMachine, MemoryRegion
from migpool_plugins.vcpu.options import BackendChoice

__all__ = ["GuestMachine", "make_machine"]

Paused = Callable[[], AbstractContextManager[None]]
_SLOT = 1
"""The first region that a KVM machine is given."""


class GuestMachine:
    """A VM and what the guest needs to know of it.

    Attributes:
        machine: the VM.
        way_out: which way out of the program it takes.
        steps: how many steps of the program it does in a few milliseconds; the longest batch.
    """

    def __init__(self, machine: Machine, way_out: int, steps: int, log: Callable[[Paused], DirtyLog]) -> None:
        self.machine = machine
        self.way_out = way_out
        self.steps = steps
        self._log = log

    def log(self, paused: Paused) -> DirtyLog:
        """The log of the writes to the memory.

        Arguments:
            paused: a context in which every vCPU stands.
        """
        return self._log(paused)


def make_machine(
    choice: BackendChoice, vcpus: int, memory: GuestMemory, dirty_log: DirtyLogChoice = "auto"
) -> GuestMachine:
    """Make the VM.

    Raises:
        DeviceError: the chosen backend does not work here, or has no such log.
    """
    maker = choose_backend(choice)
    if isinstance(maker, partial) and maker.func is KvmMachine:
        region = MemoryRegion(memory.address, ADDRESS, len(memory))
        if dirty_log == "ring":
            ringed = KvmMachine(vcpus, [region], ring=RING_SIZE)
            return GuestMachine(ringed, OUT_BY_DOORBELL, 4096, lambda _: KvmDirtyRing(ringed, _SLOT, region))
        kvm = KvmMachine(vcpus, [region])
        return GuestMachine(kvm, OUT_BY_DOORBELL, 4096, lambda _: KvmDirtyLog(kvm, _SLOT, region))
    if dirty_log != "auto":
        raise DeviceError(f'guest: dirty_log is "{dirty_log}", which only KVM has: set dirty_log = "auto"')
    from migpool_plugins.guest.unicorn_guest import unicorn_guest

    return unicorn_guest(vcpus, memory)
