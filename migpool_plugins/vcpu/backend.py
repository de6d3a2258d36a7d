"""What a backend has to offer: a machine and its vCPUs.

One file a backend: ``kvm_machine.py`` and ``unicorn_machine.py``. Nothing above them knows which one it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from migpool_plugins.vcpu.register_sets import RegisterFormat, VcpuState


class VirtualCpu(Protocol):
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

    def save(self) -> VcpuState:
        """Read the state of the vCPU between two batches, or before the first one."""

    def load(self, state: VcpuState) -> Sequence[str]:
        """Load a state into a vCPU that has not run; returns what this host lacks and the guest does not use, in words.

        Raises:
            DeviceError: the backend refused it, or the guest uses what this host lacks.
        """


class VcpuMachine(Protocol):
    """A VM: guest memory with the program in it, and vCPUs that have not run."""

    @property
    def name(self) -> str:
        """What a reader of the result should see: "KVM" or "Unicorn"."""

    @property
    def kind(self) -> str:
        """What both ends must have in common: the backend and the guest's CPU, in at most 8 ASCII characters."""

    @property
    def layout(self) -> Sequence[RegisterFormat]:
        """The register sets of a vCPU, in the order in which they travel."""

    @property
    def board(self) -> Sequence[RegisterFormat]:
        """The sets that the vCPUs share (interrupt controllers, timer, clock), in the order in which they travel."""

    @property
    def blank(self) -> Mapping[str, bytes]:
        """The sets that saving a vCPU on this host gives, with zeros."""

    @property
    def blank_board(self) -> Mapping[str, bytes]:
        """The sets that :meth:`save_board` on this host gives, with zeros."""

    @property
    def lacks(self) -> Sequence[str]:
        """What this host does not have of a whole machine's state, in words."""

    @property
    def way_out(self) -> int:
        """The address where the guest goes to leave after a batch; see ``guest/program.S``."""

    @property
    def batch(self) -> int:
        """How many iterations take this backend half a millisecond or so."""

    @property
    def vcpus(self) -> Sequence[VirtualCpu]:
        """All vCPUs, by index."""

    def comparable(self, state: VcpuState) -> VcpuState:
        """Return the state without what may differ between writing and reading it back, such as a clock."""

    def save_board(self) -> Mapping[str, bytes]:
        """Read what the vCPUs share while none of them runs."""

    def load_board(self, sets: Mapping[str, bytes]) -> Sequence[str]:
        """Load what the vCPUs share, after their own states; returns and raises as :meth:`VirtualCpu.load` does."""

    def comparable_board(self, sets: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return the sets without what may differ between writing and reading them back."""

    def expel(self) -> None:
        """Make every ``run_batch`` return soon, also of a guest gone astray. The VM is of no use after it.

        The only method that may be called while vCPUs run.
        """

    def close(self) -> None:
        """Give back memory and descriptors; no vCPU runs any more. Harmless when repeated."""
