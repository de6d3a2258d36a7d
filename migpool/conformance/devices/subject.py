"""The plug-in that is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self
from weakref import ReferenceType, ref

from migpool.core.machine import Machine
from migpool.device import Device, DeviceContext, DevicePlugin, OptionValue, Side
from migpool.errors import UsageError

MACHINE: Final = "conformance"


@dataclass(frozen=True, slots=True)
class Subject:
    """A plug-in and how its devices are made.

    Arguments:
        options: the options it is given, as in a scenario.
        seed: decides made-up state.
        living: the devices that were made, so that a check that hangs can be ended.
    """

    name: str
    plugin: DevicePlugin
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    count: int = 1
    seed: int = 1
    living: list[ReferenceType[Device]] = field(default_factory=list, repr=False, compare=False)

    def devices(self, side: Side) -> list[Device]:
        """Have the plug-in make the devices of one side. The caller closes them.

        Raises:
            UsageError: what it returned are no devices.
        """
        made = list(self.plugin(DeviceContext(side, self.options, self.count, self.seed)))
        if not made or not all(isinstance(device, Device) for device in made):
            raise UsageError(f"the plug-in {self.name!r} returned {made!r}: it must return a list of migpool devices")
        self.living.extend(ref(device) for device in made)  # not to keep them: a check looks for what is kept
        return made

    def machine(self, side: Side) -> Machine:
        """A machine of those devices. The caller closes it."""
        return Machine(MACHINE, self.devices(side))

    def fresh(self) -> Self:
        return replace(self, living=[])

    def abort(self) -> None:
        """End every wait of every device that was made."""
        for living in self.living:
            device = living()
            if device is not None:
                device.abort()
