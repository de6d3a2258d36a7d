"""The ``options`` table of a scenario's ``guest`` entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self, get_args

from migpool.device import Option, Options, OptionValue
from migpool.units import MIB, parse_size
from migpool_plugins.guest.layout import PAGE_SIZE
from migpool_plugins.guest.pattern import HOT_PERIOD
from migpool_plugins.vcpu.options import BACKEND, LIMIT, BackendChoice

DirtyLogChoice = Literal["auto", "bitmap", "ring"]

_LEAST, _MOST = 16 * MIB, 512 * MIB
_DIRTY_LOGS: Final[tuple[DirtyLogChoice, ...]] = get_args(DirtyLogChoice)


def _whole_mib(value: object) -> int:
    size = parse_size(value)
    if not _LEAST <= size <= _MOST or size % MIB:
        raise ValueError
    return size


def _power_of_two(value: object) -> int:
    size = parse_size(value)
    if size < HOT_PERIOD * PAGE_SIZE or size & (size - 1):
        raise ValueError
    return size


_MEMORY: Final = Option(
    "memory", "size", 256 * MIB, "the guest's memory", "whole MiB from 16MiB to 512MiB", "bytes", _whole_mib
)
_PATTERN: Final = Option.one_of(
    "pattern",
    "random",
    "the order in which pages are written; hot: seven of eight writes go to a few pages",
    ("sequential", "random", "hot"),
)
_HOT: Final = Option(
    "hot",
    "size",
    4 * MIB,
    "how much of each vCPU's region is hot",
    "a power of two from 32KiB on",
    "bytes",
    _power_of_two,
)
_RATE: Final = Option.whole(
    "rate", 2000, "pages that each vCPU writes in a second; 0: as many as it can", least=0, most=10_000_000
)
_RESIDENT: Final = Option.flag(
    "resident",
    True,
    "whether the destination's memory is there before the migration begins; if not, it comes page by page as it is "
    "first touched, which is slower and spares what the guest has never used",
)
_DIRTY_LOG: Final = Option[DirtyLogChoice].one_of(
    "dirty_log",
    "auto",
    "how KVM tells what the guest has written; bitmap: a bit for each page; ring: a list of pages for each vCPU; auto: "
    "the bitmap, or with Unicorn the write hook",
    _DIRTY_LOGS,
)
OPTIONS: Final = Options("guest", _MEMORY, _PATTERN, _HOT, _RATE, BACKEND, _RESIDENT, _DIRTY_LOG, LIMIT)


@dataclass(frozen=True, slots=True)
class GuestOptions:
    """How the guest is made: an option each, sizes in bytes."""

    memory: int = _MEMORY.default
    pattern: str = _PATTERN.default
    hot: int = _HOT.default
    rate: int = _RATE.default
    backend: BackendChoice = BACKEND.default
    resident: bool = _RESIDENT.default
    dirty_log: DirtyLogChoice = _DIRTY_LOG.default
    limit_s: float = LIMIT.default

    @classmethod
    def parse(cls, options: Mapping[str, OptionValue]) -> Self:
        """Return the options of a scenario.

        Raises:
            DeviceError: one line with the option that is unknown or wrong, and what it may be.
        """
        return cls(**OPTIONS.values(options))
