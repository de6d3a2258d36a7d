"""A guest that writes its memory while it moves, and proves afterwards that no write was lost.

``program/program.S`` is the guest, ``layout.py`` its memory, ``pattern.py`` and ``proof.py`` the proof, ``machines.py``
the VM of either backend, ``device.py`` the vCPUs. The memory is a device of ``migpool_plugins.ram``.
"""

from __future__ import annotations

from functools import partial

from migpool.device import Device, DeviceContext, DeviceError
from migpool_plugins.guest.device import GuestGroup, GuestVcpu
from migpool_plugins.guest.layout import BLOCK, MAX_VCPUS, Layout
from migpool_plugins.guest.machines import make_machine
from migpool_plugins.guest.options import GuestOptions
from migpool_plugins.guest.proof import prove_untouched
from migpool_plugins.ram.device import RamDevice
from migpool_plugins.ram.memory import GuestMemory
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
    memory = GuestMemory(options.memory, resident=options.resident and context.side == "destination")
    layout = Layout(options.memory, context.count, options.pattern, options.hot // 4096, context.seed)
    try:
        made = make_machine(options.backend, context.count, memory, options.dirty_log)
    except BaseException:
        memory.close()
        raise
    try:
        limits = VcpuOptions(limit_s=options.limit_s)
        group = GuestGroup(made.machine, limits, memory, layout, options.rate, made.steps)
        if context.side == "source":
            group.begin()
            for vcpu in made.machine.vcpus:
                batch = group.paces[vcpu.index].batch
                vcpu.boot(layout.start_registers(vcpu.index, batch, made.way_out))
    except BaseException:
        made.machine.close()
        memory.close()
        raise
    check = partial(prove_untouched, layout, memory.view)
    ram = RamDevice(memory, BLOCK, made.log(group.paused), check)
    found: list[Device] = [ram]
    found += [GuestVcpu(group, index, context.seed, limits) for index in range(context.count)]
    found.append(BoardDevice(group))
    if context.side == "source":
        try:
            group.run(options.limit_s)
        except BaseException:
            for device in reversed(found):
                device.close()
            raise
    return found
