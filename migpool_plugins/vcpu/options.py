"""The ``options`` table of a scenario's ``vcpu`` entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self, get_args

from migpool.device import Option, Options, OptionValue
from migpool_plugins.vcpu.cpu_model import CpuChoice

BackendChoice = Literal["auto", "kvm", "unicorn"]
SaveChoice = Literal["together", "each"]
_BACKENDS: Final[tuple[BackendChoice, ...]] = get_args(BackendChoice)
_CPUS: Final[tuple[CpuChoice, ...]] = get_args(CpuChoice)
_SAVES: Final[tuple[SaveChoice, ...]] = get_args(SaveChoice)

BACKEND: Final = Option[BackendChoice].one_of(
    "backend", "auto", "what runs the vCPUs; auto: KVM where it works, else Unicorn", _BACKENDS
)
LIMIT: Final = Option.number(
    "limit_s", 5.0, "how long to wait at most for a vCPU to stop, to go on, or to end", least=0.1, unit="seconds"
)
_BATCH: Final = Option.whole(
    "batch",
    0,
    "iterations of the guest before it lets its thread look up; 0: half a millisecond's worth. A longer batch makes "
    "stopping slower. Only the source's counts: it travels in a register",
    least=0,
    most=1 << 32,
)
_HALT: Final = Option.number(
    "halt_ms",
    0.0,
    "how long a vCPU rests after each batch, as an idle guest would; 0 keeps a processor busy for each vCPU",
    least=0.0,
    unit="milliseconds",
)
_CPU: Final = Option[CpuChoice].one_of(
    "cpu",
    "small",
    "which CPU the guest sees, the same at both ends; small: one with SSE2 that every host has; avx: one with AVX, "
    "XSAVE and an APIC timer with a deadline, which only KVM has",
    _CPUS,
)
_SAVE: Final = Option[SaveChoice].one_of(
    "save",
    "together",
    "together: all vCPUs one after the other on the migration's thread; each: every one a job of its own under the "
    "threading model. Only the source's counts",
    _SAVES,
)
_OPTIONAL: Final = Option.flag(
    "optional",
    False,
    "whether, with backend auto, the vCPUs are left out with a warning where neither KVM nor Unicorn works; both ends "
    "must come to the same",
)
OPTIONS: Final = Options("vcpu", BACKEND, _BATCH, _HALT, LIMIT, _CPU, _SAVE, _OPTIONAL)


@dataclass(frozen=True, slots=True)
class VcpuOptions:
    """How the vCPUs are made and run: an option each."""

    backend: BackendChoice = BACKEND.default
    batch: int = _BATCH.default
    halt_ms: float = _HALT.default
    limit_s: float = LIMIT.default
    cpu: CpuChoice = _CPU.default
    save: SaveChoice = _SAVE.default
    optional: bool = _OPTIONAL.default

    @classmethod
    def parse(cls, options: Mapping[str, OptionValue]) -> Self:
        """Return the options of a scenario.

        Raises:
            DeviceError: one line with the option that is unknown or wrong, and what it may be.
        """
        return cls(**OPTIONS.values(options))
