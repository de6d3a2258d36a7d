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

from migpool.device import OptionValue
from migpool.units import MIB
from migpool_plugins.guest.layout import PAGE_SIZE
from migpool_plugins.guest.pattern import HOT_PERIOD
from migpool_plugins.options import Options
from migpool_plugins.vcpu.options import BACKENDS, BackendChoice

DirtyLogChoice = Literal["auto", "bitmap", "ring"]


_LEAST, _MOST = 16 * MIB, 512 * MIB
_PATTERNS: Final = ("sequential", "random", "hot")
_DIRTY_LOGS: Final[tuple[DirtyLogChoice, ...]] = get_args(DirtyLogChoice)
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
        usual, read = cls(), Options("guest", options, [field.name for field in fields(cls)])
        memory = read.size("memory", usual.memory)
        if not _LEAST <= memory <= _MOST or memory % MIB:
            raise read.wrong("memory", options["memory"], "whole MiB from 16MiB to 512MiB")
        hot = read.size("hot", usual.hot)
        if hot < HOT_PERIOD * PAGE_SIZE or hot & (hot - 1):
            raise read.wrong("hot", options["hot"], "a power of two from 32KiB on")
        return cls(
            memory,
            read.one_of("pattern", _PATTERNS, usual.pattern),
            hot,
            read.whole("rate", usual.rate, 0, _MOST_PAGES),
            read.one_of("backend", BACKENDS, usual.backend),
            read.flag("resident", usual.resident),
            read.one_of("dirty_log", _DIRTY_LOGS, usual.dirty_log),
            read.number("limit_s", usual.limit_s, least=0.1),
        )
