"""A guest that writes its memory while it moves, and proves afterwards that no write was lost.

``program/program.S`` is the guest, ``layout.py`` its memory, ``pattern.py`` and ``proof.py`` the proof, ``machines.py``
the VM of either backend, ``device.py`` the vCPUs. The memory is a device of ``migpool_plugins.ram``.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from migpool.device import Device, DeviceContext, DeviceError
from migpool_plugins.guest.device import GuestGroup, GuestVcpu
from migpool_plugins.guest.layout import BLOCK, MAX_VCPUS, GuestLayout
from migpool_plugins.guest.machines import make_machine
from migpool_plugins.guest.options import GuestOptions
from migpool_plugins.guest.proof import prove_untouched
from migpool_plugins.ram.memory import GuestMemory, RamDevice
from migpool_plugins.vcpu.board import BoardDevice
from migpool_plugins.vcpu.options import VcpuOptions

__all__ = ["devices"]


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
        memory = GuestMemory(options.memory, resident=options.resident and not source)
        opened.callback(memory.close)
        made = make_machine(options.backend, context.count, memory, options.dirty_log)
        opened.callback(made.machine.close)
        group = GuestGroup(made.machine, limits, memory, layout, options.rate, made.steps)
        if source:
            group.begin()
            for vcpu in made.machine.vcpus:
                batch = group.paces[vcpu.index].batch
                vcpu.boot(layout.start_registers(vcpu.index, batch, made.way_out))
        log = made.log(group.paused)
        found: list[Device] = [RamDevice(memory, BLOCK, log, partial(prove_untouched, layout, memory.view))]
        found += [GuestVcpu(group, index, context.seed, limits) for index in range(context.count)]
        found.append(BoardDevice(group))
        opened.pop_all()  # The devices close it from here on, the memory last.
        for device in found:
            opened.callback(device.close)
        if source:
            group.run(options.limit_s)
        opened.pop_all()
    return found
