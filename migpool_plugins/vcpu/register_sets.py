"""Sets of registers: how one is laid out, the three that every backend has, and the state of a vCPU made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from migpool_plugins.vcpu import kvm_abi


@dataclass(frozen=True, slots=True)
class RegisterFormat:
    """How a backend holds one set of registers.

    Arguments:
        name: of the set.
        struct: its layout in memory.
        fields: the names of its values, in their order.
        optional: whether a state may be without it; it then travels as a subsection.
        repeats: whether the set is any number of these structures, one after the other.
    """

    name: str
    struct: Struct
    fields: tuple[str, ...]
    optional: bool = False
    repeats: bool = False

    def values(self, data: bytes) -> dict[str, int]:
        """Return the values by name of a set that does not repeat and holds only numbers."""
        return dict(zip(self.fields, self.struct.unpack(data), strict=True))


REGS: Final = RegisterFormat("regs", kvm_abi.REGS, kvm_abi.REGS_FIELDS)
"""The general registers."""
SREGS: Final = RegisterFormat("sregs", kvm_abi.SREGS_BASE, kvm_abi.SREGS_FIELDS)
"""Segments, descriptor tables and control registers."""
FPU: Final = RegisterFormat(
    "fpu",
    # As FXSAVE has it, without MXCSR_MASK, which is a constant of the processor.
    Struct("<HHBxHQQI4x" + "QH6x" * 8 + "32Q"),
    (
        *("fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr"),
        *(f"st{n}_{part}" for n in range(8) for part in ("mantissa", "exponent")),
        *(f"xmm{n}_{half}" for n in range(16) for half in ("low", "high")),
    ),
)
"""The x87 and SSE registers."""


@dataclass(frozen=True, slots=True)
class VcpuState:
    """Everything of one vCPU that migrates, as its backend read it.

    Arguments:
        registers: sets of registers by name, each in the layout that its backend gives it. Every backend has ``regs``,
            ``sregs`` and ``fpu``, laid out as KVM's structures and as FXSAVE; the others are optional.
        page: the vCPU's own page of guest memory, 4096 bytes.
    """

    registers: Mapping[str, bytes]
    page: bytes

    @property
    def checksum(self) -> int:
        """The low half of the first SSE register."""
        return FPU.values(self.registers["fpu"])["xmm0_low"]
