"""What a backend has to offer: a machine, its vCPUs, and the state of one of them.

One file a backend: ``kvm_machine.py`` and ``unicorn_machine.py``. Nothing above them knows which one it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RegisterFormat:
    """How a backend holds one set of registers.

    Arguments:
        name: of the set.
        struct: its layout in memory.
        fields: the names of its values, in their order.
    """

    name: str
    struct: Struct
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VcpuState:
    """Everything of one vCPU that migrates, as its backend read it.

    Arguments:
        registers: sets of registers by name, each in the layout that its backend gives it; ``regs`` is
            ``struct kvm_regs`` in every backend.
        page: the vCPU's own page of guest memory, 4096 bytes.
    """

    registers: Mapping[str, bytes]
    page: bytes


class VirtualCpu(Protocol):
    """One vCPU. No method may be called while another one of the same vCPU runs; any thread will do."""

    index: int

    def boot(self, registers: Mapping[str, int]) -> None:
        """Set the vCPU up in 64-bit mode with these general registers; those not named are 0."""

    def run_batch(self) -> None:
        """Run the guest to the end of its batch, where its registers agree with its page. It goes on when called again.

        Raises:
            DeviceError: the guest left in another way.
        """

    def put(self, name: str, value: int) -> None:
        """Write one general register between two batches, as a device that the guest has asked would answer it."""

    def save(self) -> VcpuState:
        """Read the state of the vCPU between two batches, or before the first one."""

    def load(self, state: VcpuState) -> None:
        """Load a state into a vCPU that has not run.

        Raises:
            DeviceError: the backend refused it.
        """


class Machine(Protocol):
    """A VM: guest memory with the program in it, and vCPUs that have not run."""

    @property
    def name(self) -> str:
        """What a reader of the result should see: "KVM" or "Unicorn"."""

    @property
    def layout(self) -> Sequence[RegisterFormat]:
        """The register sets, in the order in which they are loaded and travel."""

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

    def checksum(self, state: VcpuState) -> int:
        """Return the low half of the first SSE register."""

    def expel(self) -> None:
        """Make every ``run_batch`` return soon, also of a guest gone astray. The VM is of no use after it.

        The only method that may be called while vCPUs run.
        """

    def close(self) -> None:
        """Give back memory and descriptors; no vCPU runs any more. Harmless when repeated."""
