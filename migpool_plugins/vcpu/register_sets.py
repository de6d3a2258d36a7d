"""The three sets of registers that every backend has, in KVM's and the processor's own layout."""

from __future__ import annotations

from struct import Struct
from typing import Final

from migpool_plugins.vcpu import kvm_abi
from migpool_plugins.vcpu.backend import RegisterFormat

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
