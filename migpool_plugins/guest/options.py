"""The ``options`` table of a scenario's ``guest`` entry.

::

    memory = "256MiB"        whole MiB, 16MiB to 512MiB
    pattern = "random"       "sequential", "random", or "hot": seven of eight writes go to a few pages
    hot = "4MiB"             how much of each vCPU's region is hot; a power of two
    rate = 2000              pages that each vCPU writes in a second; 0: as many as it can
    backend = "auto"         "kvm", "unicorn", or "auto": KVM where it works
    dirty_log = "auto"       how KVM tells what the guest has written: "bitmap", a bit for each page; "ring", a list of
                             pages for each vCPU; "auto": the bitmap, which costs less at every size that was measured
                             (benchmarks/README.md), or with Unicorn the write hook
    resident = true          the destination's memory is there before the migration begins; false: page by page, as it
                             is first touched, which is slower and spares what the guest has never used
    limit_s = 5              seconds to wait at most for a vCPU to stop, to go on, or to end
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, Self, get_args

from migpool.device import DeviceError, OptionValue
from migpool.scenario.units import MIB, parse_size
from migpool_plugins.guest.layout import PAGE_SIZE
from migpool_plugins.guest.pattern import HOT_PERIOD
from migpool_plugins.vcpu.options import BackendChoice, VcpuOptions

__all__ = ["DirtyLogChoice", "GuestOptions"]

DirtyLogChoice = Literal["auto", "bitmap", "ring"]

_LEAST, _MOST = 16 * MIB, 512 * MIB
_PATTERNS: Final = ("sequential", "random", "hot")
DIRTY_LOGS: Final[tuple[DirtyLogChoice, ...]] = get_args(DirtyLogChoice)
_MOST_PAGES: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class GuestOptions:
    """How the guest is made; the keys are explained at the top of this file, sizes here are in bytes."""

    memory: int = 256 * MIB
    pattern: str = "random"
    hot: int = 4 * MIB
    rate: int = 2000
    backend: BackendChoice = "auto"
    resident: bool = True
    dirty_log: DirtyLogChoice = "auto"
    limit_s: float = 5.0

    @classmethod
    def parse(cls, options: Mapping[str, OptionValue]) -> Self:
        """Return the options of a scenario.

        Raises:
            DeviceError: one line with the option that is unknown or wrong, and what it may be.
        """
        usual = cls()
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise DeviceError(f"guest: there is no option {name}; there are {', '.join(known)}")
        vcpu = VcpuOptions.parse({name: options[name] for name in ("backend", "limit_s") if name in options})
        memory = _size(options, "memory", usual.memory)
        if not _LEAST <= memory <= _MOST or memory % MIB:
            raise DeviceError(f"guest: memory is {options['memory']!r}, but must be whole MiB from 16MiB to 512MiB")
        pattern = options.get("pattern", usual.pattern)
        if pattern not in _PATTERNS:
            raise DeviceError(f"guest: pattern is {pattern!r}, but must be one of {', '.join(_PATTERNS)}")
        hot = _size(options, "hot", usual.hot)
        if hot < HOT_PERIOD * PAGE_SIZE or hot & (hot - 1):
            raise DeviceError(f"guest: hot is {options['hot']!r}, but must be a power of two from 32KiB on")
        rate = options.get("rate", usual.rate)
        if not isinstance(rate, int) or isinstance(rate, bool) or not 0 <= rate <= _MOST_PAGES:
            raise DeviceError(f"guest: rate is {rate!r}, but must be a whole number from 0 to {_MOST_PAGES}")
        resident = options.get("resident", usual.resident)
        if not isinstance(resident, bool):
            raise DeviceError(f"guest: resident is {resident!r}, but must be true or false")
        dirty_log = _dirty_log(options, usual.dirty_log)
        return cls(memory, str(pattern), hot, rate, vcpu.backend, resident, dirty_log, vcpu.limit_s)


def _dirty_log(options: Mapping[str, OptionValue], default: DirtyLogChoice) -> DirtyLogChoice:
    value = options.get("dirty_log", default)
    for choice in DIRTY_LOGS:
        if value == choice:
            return choice
    raise DeviceError(f"guest: dirty_log is {value!r}, but must be one of {', '.join(DIRTY_LOGS)}")


def _size(options: Mapping[str, OptionValue], name: str, default: int) -> int:
    value = options.get(name, default)
    try:
        return parse_size(value)
    except ValueError as error:
        raise DeviceError(f"guest: {name}: {error}") from None
