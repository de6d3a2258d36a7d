"""Builds a scenario's machine, by its devices' plug-ins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from typing import cast

from migpool.core.machine import Machine
from migpool.device import Device, DeviceContext, DevicePlugin, OptionValue, Side
from migpool.errors import BrokenDeviceError, MigpoolError, PluginError, ScenarioError, UsageError
from migpool.scenario.messages import dotted, key_in_message
from migpool.scenario.plugins import load_device_plugin, made_by
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
    plugins: list[str] = []
    load = cache(load_device_plugin)  # a machine of a trace has an entry a device
    with ExitStack() as undo:
        for number, entry in enumerate(scenario.devices):
            # What TOML can hold and the scenario lets through (no dates, no null) is just what an option may be.
            options = cast("dict[str, OptionValue]", entry.options)
            devices = _make(entry, number, DeviceContext(side, options, entry.count, seed), where, load)
            for device in devices:
                undo.callback(_closed, device)
            _place(devices, entry, f"{where}: {dotted(('devices', number, 'vmsd'))}")
            made += devices
            plugins += [entry.plugin] * len(devices)
        machine = Machine(scenario.machine.name, made, plugins)
        undo.pop_all()
    return machine


def _closed(device: Device) -> None:
    with suppress(Exception, SystemExit):  # why the machine cannot be made is the error to tell
        device.close()


def _place(devices: Sequence[Device], entry: DeviceEntry, where: str) -> None:
    """Have the devices' state cross as their entry says; a device that must stay on the main channel does."""
    for device in devices:
        if entry.in_flight is not None:
            device.in_flight = entry.in_flight
        if device.iterable and entry.vmsd == "main-channel":
            device.config_channel = entry.vmsd
    described = [device for device in devices if not device.iterable]
    free = [
        device
        for device in described
        if device.config_channel != "main-channel" and not (device.early or device.optional)
    ]
    if entry.vmsd is None:
        return
    if entry.vmsd == "multifd" and described and not free:
        raise ScenarioError(f"{where}: {described[0].idstr} must stay on the main channel: remove the key")
    for device in free:
        device.config_channel = entry.vmsd


def _make(
    entry: DeviceEntry, number: int, context: DeviceContext, where: str, load: Callable[[str], DevicePlugin]
) -> Sequence[Device]:
    place = ("devices", number)
    try:
        plugin = load(entry.plugin)
    except PluginError as error:
        raise PluginError(f"{where}: {dotted((*place, 'plugin'))}: {error}") from error
    try:
        devices = made_by(entry.plugin, plugin, context)
    except BrokenDeviceError as error:
        raise PluginError(f"{where}: {dotted(place)}: {error}") from error.__cause__
    except MigpoolError as error:
        key = key_in_message(str(error), {**entry.options, "count": entry.count})
        if key == "count":
            raise ScenarioError(f"{where}: {dotted((*place, 'count'))}: {error}") from error
        if key or isinstance(error, UsageError):
            path = (*place, "options", key) if key else (*place, "options")
            raise ScenarioError(f"{where}: {dotted(path)}: {error}") from error
        raise
    return devices
