"""What an entry point of a plug-in is given, and what it must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from migpool.device.device import Device

Side: TypeAlias = Literal["source", "destination"]
OptionValue: TypeAlias = "str | int | float | bool | Sequence[OptionValue] | Mapping[str, OptionValue]"


@dataclass(frozen=True, slots=True)
class DeviceContext:
    """What a plug-in is told when its devices are made.

    Arguments:
        side: which end of the migration this process is.
        options: the ``options`` table of the device's entry in the scenario, as written there.
        count: how many devices of this kind the scenario asks for (its ``count`` key, 1 without it).
        seed: a number that is the same at both ends and may differ between migrations; for made-up state.
    """

    side: Side
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    count: int = 1
    seed: int = 0


DevicePlugin: TypeAlias = Callable[[DeviceContext], Sequence[Device]]
"""What an entry point in ``migpool.devices`` must be."""
