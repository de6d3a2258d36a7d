"""The ``options`` table of a scenario's ``vcpu`` entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, Self, get_args

from migpool.device import OptionValue
from migpool_plugins.options import Options
from migpool_plugins.vcpu.cpu_model import CpuChoice

BackendChoice = Literal["auto", "kvm", "unicorn"]
SaveChoice = Literal["together", "each"]
BACKENDS: Final[tuple[BackendChoice, ...]] = get_args(BackendChoice)
_CPUS: Final[tuple[CpuChoice, ...]] = get_args(CpuChoice)
_SAVES: Final[tuple[SaveChoice, ...]] = get_args(SaveChoice)
_LARGEST_BATCH: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class VcpuOptions:
    """How the vCPUs are made and run.

    Arguments:
        backend: "kvm", "unicorn", or "auto": KVM where it works, else Unicorn.
        batch: iterations of the guest before it lets its thread look up; 0 means half a millisecond's worth. A longer
            batch makes stopping slower. Only the source's counts: it travels in a register.
        halt_ms: for how many milliseconds a vCPU rests after each batch, as an idle guest would; 0 keeps a processor
            busy for each vCPU.
        limit_s: for how many seconds to wait at most for a vCPU to stop, to go on, or to end.
        cpu: which CPU the guest sees: "small", one with SSE2 that every host has, or "avx", one with AVX, XSAVE and an
            APIC timer with a deadline, which only KVM has. The same at both ends.
        save: "together" saves all vCPUs one after the other on the migration's thread; "each" hands every one to the
            threading model as a job of its own. Only the source's counts.
    """

    backend: BackendChoice = "auto"
    batch: int = 0
    halt_ms: float = 0.0
    limit_s: float = 5.0
    cpu: CpuChoice = "small"
    save: SaveChoice = "together"

    @classmethod
    def parse(cls, options: Mapping[str, OptionValue]) -> Self:
        """Return the options of a scenario.

        Raises:
            DeviceError: one line with the option that is unknown or wrong, and what it may be.
        """
        usual, read = cls(), Options("vcpu", options, [field.name for field in fields(cls)])
        return cls(
            read.one_of("backend", BACKENDS, usual.backend),
            read.whole("batch", usual.batch, 0, _LARGEST_BATCH),
            read.number("halt_ms", usual.halt_ms, least=0.0),
            read.number("limit_s", usual.limit_s, least=0.1),
            read.one_of("cpu", _CPUS, usual.cpu),
            read.one_of("save", _SAVES, usual.save),
        )
