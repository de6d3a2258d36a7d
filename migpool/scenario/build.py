"""Builds a scenario's machine, by its devices' plug-ins."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import cast

from migpool.core.machine import Machine
from migpool.device import Device, DeviceContext, OptionValue, Side
from migpool.errors import MigpoolError, PluginError, ScenarioError, UsageError
from migpool.scenario.messages import dotted, key_in_message
from migpool.scenario.plugins import load_device_plugin
from migpool.scenario.schema import DeviceEntry, Scenario


def build_machine(scenario: Scenario, side: Side, seed: int, where: str = "") -> Machine:
    """Have the plug-ins make every device. The caller closes the machine.

    Arguments:
        seed: the same at both ends.
        where: the scenario's file, for errors; its name without it.

    Raises:
        ScenarioError: a plug-in refuses its options; the line names the file and the key.
        PluginError: a plug-in is unknown or broken, or what it returned are no devices.
        MigpoolError: the devices cannot be made. Those that had been made are closed.
    """
    where = where or scenario.name
    made: list[Device] = []
    with ExitStack() as undo:
        for number, entry in enumerate(scenario.devices):
            for device in _make(entry, number, DeviceContext(side, _options(entry), entry.count, seed), where):
                undo.callback(device.close)
                _place(device, entry, f"{where}: {dotted(('devices', number, 'vmsd'))}")
                made.append(device)
        machine = Machine(scenario.machine.name, made)
        undo.pop_all()
    return machine


def _place(device: Device, entry: DeviceEntry, where: str) -> None:
    """Have the device's state cross as its entry says."""
    if entry.in_flight is not None:
        device.in_flight = entry.in_flight
    if entry.vmsd is None or device.iterable:
        return
    if entry.vmsd == "multifd" and device.config_channel == "main-channel":
        raise ScenarioError(f"{where}: {device.idstr} must stay on the main channel: remove the key")
    device.config_channel = entry.vmsd


def _make(entry: DeviceEntry, number: int, context: DeviceContext, where: str) -> Sequence[Device]:
    place = ("devices", number)
    try:
        plugin = load_device_plugin(entry.plugin)
    except PluginError as error:
        raise PluginError(f"{where}: {dotted((*place, 'plugin'))}: {error}") from error
    try:
        devices = list(plugin(context))
    except MigpoolError as error:
        key = key_in_message(str(error), {**entry.options, "count": entry.count})
        if key == "count":
            raise ScenarioError(f"{where}: {dotted((*place, 'count'))}: {error}") from error
        if key or isinstance(error, UsageError):
            path = (*place, "options", key) if key else (*place, "options")
            raise ScenarioError(f"{where}: {dotted(path)}: {error}") from error
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(f"{where}: {dotted(place)}: the device plug-in {entry.plugin!r} failed: {what}") from error
    wrong = next((thing for thing in devices if not isinstance(thing, Device)), None)
    if wrong is not None:
        for device in devices:
            if isinstance(device, Device):
                device.close()
        raise PluginError(
            f"{where}: {dotted(place)}: the device plug-in {entry.plugin!r} returned a {type(wrong).__name__}, "
            "but must return devices (migpool.device.Device)"
        )
    return devices


def _options(entry: DeviceEntry) -> dict[str, OptionValue]:
    # What TOML can hold and the scenario lets through (no dates, no null) is just what an option may be.
    return cast("dict[str, OptionValue]", entry.options)
