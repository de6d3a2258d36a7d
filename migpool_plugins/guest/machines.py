"""The VM of either backend with the guest's memory in it, and the log of what it writes there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from migpool.device import DeviceError
from migpool_plugins.guest.layout import ADDRESS, OUT_BY_DOORBELL, OUT_BY_HALT
from migpool_plugins.guest.options import DirtyLogChoice
from migpool_plugins.ram.hook_log import HookDirtyLog
from migpool_plugins.ram.kvm_logs import RING_SIZE, KvmDirtyBitmap, KvmDirtyRing
from migpool_plugins.ram.memory import DirtyLog, GuestMemory
from migpool_plugins.vcpu.backend import VcpuMachine
from migpool_plugins.vcpu.choice import choose_backend
from migpool_plugins.vcpu.kvm_machine import KvmMachine, MemoryRegion
from migpool_plugins.vcpu.options import BackendChoice

_SLOT = 1
"""The first region that a KVM machine is given."""


@dataclass(frozen=True, slots=True)
class GuestMachine:
    """A VM and what the guest needs to know of it.

    Arguments:
        machine: the VM.
        way_out: which way out of the program it takes.
        steps: how many steps of the program it does in a few milliseconds; the longest batch.
        log: makes the log of the writes to the memory from a context in which every vCPU stands.
    """

    machine: VcpuMachine
    way_out: int
    steps: int
    log: Callable[[Callable[[], AbstractContextManager[None]]], DirtyLog]


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
        kvm = KvmMachine(vcpus, [region], ring=RING_SIZE if dirty_log == "ring" else 0)
        log = KvmDirtyRing if dirty_log == "ring" else KvmDirtyBitmap
        return GuestMachine(kvm, OUT_BY_DOORBELL, 4096, lambda _: log(kvm, _SLOT, region))
    if dirty_log != "auto":
        raise DeviceError(f'guest: dirty_log is "{dirty_log}", which only KVM has: set dirty_log = "auto"')
    # Imported only when it is wanted: the package behind it is optional.
    from migpool_plugins.vcpu.unicorn_machine import UnicornMachine

    machine = UnicornMachine(vcpus)
    for vcpu in machine.vcpus:
        vcpu.map_memory(ADDRESS, len(memory), memory.address)
        vcpu.halts_at = ADDRESS + OUT_BY_HALT
    return GuestMachine(machine, OUT_BY_HALT, 64, partial(HookDirtyLog, machine.vcpus, ADDRESS, len(memory)))
