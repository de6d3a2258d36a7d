"""The ``options`` table of a scenario's ``vcpu`` entry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, Self

from migpool.device import OptionValue
from migpool.errors import UsageError
from migpool_plugins.vcpu.cpu_model import CpuChoice

BackendChoice = Literal["auto", "kvm", "unicorn"]
SaveChoice = Literal["together", "each"]
_BACKENDS: Final = ("auto", "kvm", "unicorn")
_CPUS: Final = ("small", "avx")
_SAVES: Final = ("together", "each")
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
            UsageError: one line with the option that is unknown or wrong, and what it may be.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise UsageError(f"vcpu: there is no option {name}; there are {', '.join(known)}")
        backend = options.get("backend", "auto")
        if backend not in _BACKENDS:
            raise UsageError(f'vcpu: backend is {backend!r}, but must be "auto", "kvm" or "unicorn"')
        cpu = options.get("cpu", "small")
        if cpu not in _CPUS:
            raise UsageError(f'vcpu: cpu is {cpu!r}, but must be "small" or "avx"')
        save = options.get("save", "together")
        if save not in _SAVES:
            raise UsageError(f'vcpu: save is {save!r}, but must be "together" or "each"')
        batch = options.get("batch", 0)
        if not isinstance(batch, int) or isinstance(batch, bool) or not 0 <= batch <= _LARGEST_BATCH:
            raise UsageError(f"vcpu: batch is {batch!r}, but must be a whole number from 0 to {_LARGEST_BATCH}")
        return cls(
            backend,
            batch,
            _number(options, "halt_ms", 0.0, least=0.0),
            _number(options, "limit_s", 5.0, least=0.1),
            cpu,
            save,
        )


def _number(options: Mapping[str, OptionValue], name: str, default: float, least: float) -> float:
    value = options.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < least:
        raise UsageError(f"vcpu: {name} is {value!r}, but must be a number from {least} on")
    return float(value)
