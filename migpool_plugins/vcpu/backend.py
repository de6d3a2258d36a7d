"""What a backend has to offer: a machine and its vCPUs; and which backend it is.

One file a backend: ``kvm_machine.py`` and ``unicorn_machine.py``. Nothing above them knows which one it has.

A backend is chosen by trying it: a VM of one vCPU has to run one iteration of the guest. That KVM's device node can be
opened says little: a sandbox may refuse an ioctl, and a nested host may lack what the guest needs, or never come back
from the guest. The trial takes some milliseconds, before any migration begins, and has a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Final, Protocol

from migpool.device import DeviceError
from migpool_plugins.vcpu import program
from migpool_plugins.vcpu.cpu_model import CpuChoice
from migpool_plugins.vcpu.kvm_machine import KvmMachine
from migpool_plugins.vcpu.options import BackendChoice
from migpool_plugins.vcpu.state import RegisterFormat, Sets
from migpool_plugins.vcpu.thread import VcpuThread

_TRIAL_LIMIT: Final = 5.0
"""Seconds; a thousand times what the trial takes."""


class Stateful(Protocol):
    """What of a machine has a state of its own that moves: a vCPU, or the board. It stands meanwhile."""

    layout: Sequence[RegisterFormat]
    """The sets that a state may have, in the order in which they travel."""
    blank: Sets
    """The state that :meth:`save` on this host gives, with zeros."""

    def save(self) -> Sets:
        """Read the state; of a vCPU between two batches, or before the first one."""

    def load(self, sets: Sets) -> Sequence[str]:
        """Load a state before anything has run; returns what this host lacks and the guest does not use, in words.

        Raises:
            DeviceError: the backend refused it, or the guest uses what this host lacks.
        """

    def comparable(self, sets: Sets) -> Sets:
        """Return a state without what may differ between writing and reading it back, such as a clock."""


class VirtualCpu(Stateful, Protocol):
    """One vCPU. No method may be called while another one of the same vCPU runs; any thread will do."""

    index: int

    def boot(self, registers: Mapping[str, int]) -> None:
        """Set the vCPU up in 64-bit mode with these general registers; those not named are 0."""

    def run_batch(self) -> None:
        """Run the guest to the end of its batch, where its registers agree with its page; it goes on when called again.

        Raises:
            DeviceError: the guest left in another way.
        """

    def put(self, name: str, value: int) -> None:
        """Write one general register between two batches, as a device that the guest has asked would answer it."""


class VcpuMachine(Protocol):
    """A VM: guest memory with the program in it, and vCPUs that have not run."""

    name: str
    """What a reader of the result should see: "KVM" or "Unicorn"."""
    kind: str
    """What both ends must have in common: the backend and the guest's CPU, in at most 8 ASCII characters."""
    lacks: Sequence[str]
    """What this host does not have of a whole machine's state, in words."""
    way_out: int
    """The address where the guest goes to leave after a batch; see ``guest/program.S``."""
    batch: int
    """How many iterations take this backend half a millisecond or so."""

    def __init__(self, count: int, *, cpu: CpuChoice = "small") -> None:
        """Make a VM of so many vCPUs; a :class:`DeviceError` if the backend does not work here, or has no such CPU."""

    @property
    def vcpus(self) -> Sequence[VirtualCpu]:
        """All vCPUs, by index."""

    @property
    def board(self) -> Stateful:
        """What the vCPUs share: interrupt controllers, timer, clock. Saved while none runs, loaded after them."""

    def expel(self) -> None:
        """Make every ``run_batch`` return soon, also of a guest gone astray. The VM is of no use after it.

        The only method that may be called while vCPUs run.
        """

    def close(self) -> None:
        """Give back memory and descriptors; no vCPU runs any more. Harmless when repeated."""


def choose_backend(choice: BackendChoice, cpu: CpuChoice = "small") -> type[VcpuMachine]:
    """Return the class of the machines of a backend that works.

    Arguments:
        choice: "kvm", "unicorn", or "auto" for the first of the two that works.
        cpu: which CPU the guest is to see.

    Raises:
        DeviceError: the chosen backend does not work here, or neither does; one line with the reasons and the remedy.
    """
    backends: dict[str, Callable[[], type[VcpuMachine]]] = {
        "kvm": lambda: KvmMachine,
        "unicorn": partial(_unicorn, cpu),
    }
    reasons: list[DeviceError] = []
    for name, backend in backends.items():
        if choice in (name, "auto"):
            try:
                made = backend()
                _try(made, cpu)
            except DeviceError as reason:
                reasons.append(reason)
            else:
                return made
    if len(reasons) == 1:
        raise reasons[0]
    raise DeviceError(f"no backend for vCPUs: {'; '.join(str(reason) for reason in reasons)}") from reasons[-1]


def _unicorn(cpu: CpuChoice) -> type[VcpuMachine]:
    if cpu != "small":
        raise DeviceError(f'Unicorn has no CPU "{cpu}": use KVM, or set cpu = "small"')
    try:
        # Imported only when it is wanted: the package is optional and loads a large library.
        from migpool_plugins.vcpu.unicorn_machine import UnicornMachine
    except ImportError as error:
        raise DeviceError(f"Unicorn cannot be used ({error}): pip install 'migpool[unicorn]'") from error
    return UnicornMachine


def _try(backend: type[VcpuMachine], cpu: CpuChoice) -> None:
    with closing(backend(1, cpu=cpu)) as machine:
        vcpu = machine.vcpus[0]
        vcpu.boot(program.start_registers(seed=0, index=0, batch=1, way_out=machine.way_out))
        trial = VcpuThread(0, vcpu.run_batch, halt=0.0)
        try:
            trial.go()
            if not trial.wait_batches(1, _TRIAL_LIMIT):
                raise DeviceError(f"{machine.name} does not work: its vCPU has not come back within {_TRIAL_LIMIT} s")
        finally:
            trial.end(machine.expel, _TRIAL_LIMIT)
