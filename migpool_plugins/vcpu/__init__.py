"""vCPUs that really run: the guest counts and computes, moves within the downtime, and proves that it went on exactly.

``guest/program.S`` is the guest, ``program.py`` what it does and the proof, ``backend.py`` what a backend offers,
``kvm_machine.py`` and ``unicorn_machine.py`` the two; ``device.py`` has the vCPUs and what they share as devices,
``costs.py`` what they take.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack

from migpool.device import Device, DeviceContext, DeviceError, Outline
from migpool_plugins.vcpu import costs, program
from migpool_plugins.vcpu.backend import choose_backend
from migpool_plugins.vcpu.device import BoardDevice, VcpuDevice, VcpuGroup
from migpool_plugins.vcpu.options import OPTIONS, VcpuOptions

__all__ = ["OPTIONS", "devices"]


def devices(context: DeviceContext) -> list[Device]:
    """Running vCPUs of one VM (registers and a page of memory each) and what they share, by KVM or by Unicorn.

    After the vCPUs comes one device more, the board: interrupt controllers, timer and clock, as the backend has them.
    At the source every vCPU runs from now on; at the destination it stands, without state. The options are those of
    :class:`~migpool_plugins.vcpu.options.VcpuOptions`: if they are optional, there may be none, which is logged.

    Arguments:
        context: ``count`` is the number of vCPUs, 1 to 256.

    Raises:
        DeviceError: an option or the count is wrong, or no backend works on this host.
    """
    options = _given(context)
    try:
        kind = choose_backend(options.backend, options.cpu)
    except DeviceError as error:
        if not options.optional or options.backend != "auto":
            raise
        logging.getLogger(__name__).warning("the vCPUs are left out: %s", error)
        return []
    with ExitStack() as opened:
        machine = kind(context.count, cpu=options.cpu)
        opened.callback(machine.close)
        if context.side == "source":
            batch = options.batch or machine.batch
            for vcpu in machine.vcpus:
                vcpu.boot(program.start_registers(context.seed, vcpu.index, batch, machine.way_out))
        group = VcpuGroup(machine, options)
        made: list[Device] = [VcpuDevice(group, index, context.seed, options) for index in range(context.count)]
        made.append(BoardDevice(group))
        opened.pop_all()  # The devices close the machine from here on.
        for device in made:
            opened.callback(device.close)
        if context.side == "source":
            group.run(options.limit_s)
        opened.pop_all()
    return made


def outlines(context: DeviceContext) -> list[Outline]:
    """What the vCPUs and their board take on KVM, for the simulator; none is made.

    Raises:
        DeviceError: an option or the count is wrong.
    """
    return costs.outlines(context.count, _given(context))


def _given(context: DeviceContext) -> VcpuOptions:
    options = VcpuOptions.parse(context.options)
    if not 1 <= context.count <= program.MAX_VCPUS:
        raise DeviceError(f"vcpu: count is {context.count}, but must be from 1 to {program.MAX_VCPUS}")
    return options
