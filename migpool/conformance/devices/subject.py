"""The plug-in that is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from weakref import ReferenceType, ref

from migpool.conformance.check import Checked
from migpool.core.machine import Machine
from migpool.device import Device, DeviceContext, DevicePlugin, OptionValue, Side
from migpool.errors import UsageError


@dataclass(frozen=True, slots=True)
class Subject(Checked):
    """A plug-in and how its devices are made.

    Arguments:
        options: the options it is given, as in a scenario.
        count: how many devices it makes.
        comparable: whether a device with state must have a fingerprint, unless it says itself that it can have none.
    """

    name: str
    plugin: DevicePlugin
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    count: int = 1
    comparable: bool = True

    def devices(self, side: Side, seed: int = 1) -> list[Device]:
        """Have the plug-in make the devices of one side. The caller closes them.

        Arguments:
            seed: of what they are filled with.

        Raises:
            UsageError: what it returned are no devices.
        """
        made = list(self.plugin(DeviceContext(side, self.options, self.count, seed)))
        if not made or not all(isinstance(device, Device) for device in made):
            raise UsageError(f"the plug-in {self.name!r} returned {made!r}: it must return a list of migpool devices")
        # Not to keep them: a check looks for what is kept.
        self.living.extend(partial(_abort, ref(device)) for device in made)
        return made

    def machine(self, side: Side, seed: int = 1) -> Machine:
        """A machine of those devices. The caller closes it."""
        return Machine("conformance", self.devices(side, seed))

    @contextmanager
    def machines(self) -> Iterator[tuple[Machine, Machine]]:
        """The source's and the destination's, closed at the end whatever happens."""
        with closing(self.machine("source")) as source, closing(self.machine("destination")) as destination:
            yield source, destination


def _abort(living: ReferenceType[Device]) -> None:
    if (device := living()) is not None:
        device.abort()
