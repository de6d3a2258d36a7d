"""A guest that writes its memory while it moves, and proves afterwards that no write was lost.

``program/program.S`` is the guest, ``layout.py`` its memory and the proof, ``pattern.py`` the order of its writes,
``device.py`` the vCPUs. The memory is a device of ``migpool_plugins.ram``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Final, TypeAlias

from migpool.device import Device, DeviceContext, DeviceError
from migpool_plugins.guest.device import GuestGroup, GuestVcpu
from migpool_plugins.guest.layout import ADDRESS, BLOCK, MAX_VCPUS, OUT_BY_DOORBELL, OUT_BY_HALT, GuestLayout
from migpool_plugins.guest.options import OPTIONS, GuestOptions
from migpool_plugins.memory import Memory
from migpool_plugins.ram.logs import RING_SIZE, HookDirtyLog, KvmDirtyBitmap, KvmDirtyRing
from migpool_plugins.ram.memory import DirtyLog, RamDevice
from migpool_plugins.vcpu.backend import VcpuMachine, choose_backend
from migpool_plugins.vcpu.device import BoardDevice
from migpool_plugins.vcpu.kvm_machine import KvmMachine, MemoryRegion
from migpool_plugins.vcpu.options import VcpuOptions

__all__ = ["OPTIONS", "devices"]

_SLOT: Final = 1
"""The first region that a KVM machine is given."""
_LogMaker: TypeAlias = Callable[[Callable[[], AbstractContextManager[None]]], DirtyLog]
"""Makes the log of the writes to the memory from a context in which every vCPU stands."""


def devices(context: DeviceContext) -> list[Device]:
    """A guest with memory that it writes at a chosen rate: the memory, its vCPUs and their board, by KVM or by Unicorn.

    At the source every vCPU runs from now on; at the destination it stands, without state. The options are those of
    :class:`~migpool_plugins.guest.options.GuestOptions`.

    Arguments:
        context: ``count`` is the number of vCPUs, 1 to 64.

    Raises:
        DeviceError: an option or the count is wrong, or no backend works on this host.
    """
    options = GuestOptions.parse(context.options)
    if not 1 <= context.count <= MAX_VCPUS:
        raise DeviceError(f"guest: count is {context.count}, but must be from 1 to {MAX_VCPUS}")
    layout = GuestLayout(options.memory, context.count, options.pattern, options.hot // 4096, context.seed)
    limits = VcpuOptions(limit_s=options.limit_s)
    source = context.side == "source"
    with ExitStack() as opened:
        memory = Memory(options.memory, resident=options.resident and not source)
        opened.callback(memory.close)
        machine, way_out, most, make_log = _make_machine(options, context.count, memory)
        opened.callback(machine.close)
        group = GuestGroup(machine, limits, memory, layout, options.rate, most)
        if source:
            group.begin()
            for vcpu in machine.vcpus:
                vcpu.boot(layout.start_registers(vcpu.index, group.paces[vcpu.index].batch, way_out))
        log = make_log(group.paused)
        found: list[Device] = [RamDevice(memory, BLOCK, log, partial(layout.prove_untouched, memory.view))]
        found += [GuestVcpu(group, index, context.seed, limits) for index in range(context.count)]
        found.append(BoardDevice(group))
        opened.pop_all()  # The devices close it from here on, the memory last.
        for device in found:
            opened.callback(device.close)
        if source:
            group.run(options.limit_s)
        opened.pop_all()
    return found


def _make_machine(options: GuestOptions, vcpus: int, memory: Memory) -> tuple[VcpuMachine, int, int, _LogMaker]:
    """Make the VM with the guest's memory in it.

    Returns:
        The VM; its way out of the program; how many steps it does in a few milliseconds, the longest batch; its log.

    Raises:
        DeviceError: the chosen backend does not work here, or has no such log.
    """
    if choose_backend(options.backend) is KvmMachine:
        region = MemoryRegion(memory.address, ADDRESS, len(memory))
        kvm = KvmMachine(vcpus, [region], ring=RING_SIZE if options.dirty_log == "ring" else 0)
        log = KvmDirtyRing if options.dirty_log == "ring" else KvmDirtyBitmap
        return kvm, OUT_BY_DOORBELL, 4096, lambda _: log(kvm, _SLOT, region)
    if options.dirty_log != "auto":
        raise DeviceError(f'guest: dirty_log is "{options.dirty_log}", which only KVM has: set dirty_log = "auto"')
    # Imported only when it is wanted: the package behind it is optional.
    from migpool_plugins.vcpu.unicorn_machine import UnicornMachine

    machine = UnicornMachine(vcpus)
    for vcpu in machine.vcpus:
        vcpu.map_memory(ADDRESS, len(memory), memory.address)
        vcpu.halts_at = ADDRESS + OUT_BY_HALT
    return machine, OUT_BY_HALT, 64, partial(HookDirtyLog, machine.vcpus, ADDRESS, len(memory))
