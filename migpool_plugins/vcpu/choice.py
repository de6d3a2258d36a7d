"""Chooses the backend, by trying it: a VM of one vCPU has to run one iteration of the guest.

That KVM's device node can be opened says little: a sandbox may refuse an ioctl, and a nested host may lack what the
guest needs, or never come back from the guest. The trial takes some milliseconds, before any migration begins, and has
a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vcpu import program
from migpool_plugins.vcpu.backend import VcpuMachine
from migpool_plugins.vcpu.cpu_model import CpuChoice
from migpool_plugins.vcpu.kvm_machine import KvmMachine
from migpool_plugins.vcpu.options import BackendChoice
from migpool_plugins.vcpu.thread import VcpuThread

MachineMaker = Callable[[int], VcpuMachine]
_TRIAL_LIMIT: Final = 5.0
"""Seconds; a thousand times what the trial takes."""


def choose_backend(choice: BackendChoice, cpu: CpuChoice = "small") -> MachineMaker:
    """Return what makes a machine with a number of vCPUs.

    Arguments:
        choice: "kvm", "unicorn", or "auto" for the first of the two that works.
        cpu: which CPU the guest is to see.

    Raises:
        DeviceError: the chosen backend does not work here, or neither does; one line with the reasons and the remedy.
    """
    makers: dict[str, Callable[[], MachineMaker]] = {
        "kvm": lambda: partial(KvmMachine, cpu=cpu),
        "unicorn": lambda: _unicorn(cpu),
    }
    reasons: list[DeviceError] = []
    for name, maker in makers.items():
        if choice in (name, "auto"):
            try:
                make = maker()
                _try(make)
            except DeviceError as reason:
                reasons.append(reason)
            else:
                return make
    if len(reasons) == 1:
        raise reasons[0]
    raise DeviceError(f"no backend for vCPUs: {'; '.join(str(reason) for reason in reasons)}") from reasons[-1]


def _unicorn(cpu: CpuChoice) -> MachineMaker:
    if cpu != "small":
        raise DeviceError(f'Unicorn has no CPU "{cpu}": use KVM, or set cpu = "small"')
    try:
        # Imported only when it is wanted: the package is optional and loads a large library.
        from migpool_plugins.vcpu.unicorn_machine import UnicornMachine
    except ImportError as error:
        raise DeviceError(f"Unicorn cannot be used ({error}): pip install 'migpool[unicorn]'") from error
    return UnicornMachine


def _try(make: MachineMaker) -> None:
    with closing(make(1)) as machine:
        vcpu = machine.vcpus[0]
        vcpu.boot(program.start_registers(seed=0, index=0, batch=1, way_out=machine.way_out))
        trial = VcpuThread(0, vcpu.run_batch, halt=0.0)
        try:
            trial.go()
            if not trial.wait_batches(1, _TRIAL_LIMIT):
                raise DeviceError(f"{machine.name} does not work: its vCPU has not come back within {_TRIAL_LIMIT} s")
        finally:
            trial.end(machine.expel, _TRIAL_LIMIT)
