"""The plug-in that is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from weakref import ReferenceType, ref

from migpool.conformance.check import Checked, Failure, Refused
from migpool.conformance.devices.guard import guard
from migpool.core.machine import Machine
from migpool.device import Device, DeviceContext, DevicePlugin, OptionValue, Side
from migpool.errors import BrokenDeviceError, MigpoolError
from migpool.scenario.plugins import made_by


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
            Refused: it makes none with these options.
            Failure: it makes none at all.
            BrokenDeviceError: it fails, or what it returned are no devices.
        """
        try:
            made = made_by(self.name, self.plugin, DeviceContext(side, self.options, self.count, seed))
        except BrokenDeviceError:
            raise
        except MigpoolError as error:
            raise Refused(f"no devices to check: {error}; options are given as KEY=VALUE") from error
        if not made:
            raise Failure(
                f"the device plug-in {self.name!r} made no devices: it must make as many as context.count says"
            )
        # Not to keep them: a check looks for what is kept.
        self.living.extend(partial(_abort, ref(device)) for device in made)
        return made

    def machine(self, side: Side, seed: int = 1) -> Machine:
        """A machine of those devices. The caller closes it."""
        made = self.devices(side, seed)
        with ExitStack() as undo:
            for device in made:
                undo.callback(device.close)
            machine = Machine("conformance", made, [self.name] * len(made))
            undo.pop_all()
        for slot in machine:
            guard(slot)
        return machine

    @contextmanager
    def machines(self) -> Iterator[tuple[Machine, Machine]]:
        """The source's and the destination's, closed at the end whatever happens."""
        with closing(self.machine("source")) as source, closing(self.machine("destination")) as destination:
            yield source, destination


def _abort(living: ReferenceType[Device]) -> None:
    if (device := living()) is not None:
        device.abort()
