"""The list of checks of a device plug-in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from migpool.conformance.check import Check, check_of
from migpool.conformance.devices import calling, migrating
from migpool.conformance.devices.subject import Subject
from migpool.conformance.naming import check_name
from migpool.device import DeviceError
from migpool.errors import UsageError
from migpool.scenario.model_names import all_models, parse_model, parse_models
from migpool.scenario.plugins import load_device_plugin, read_options

Run: TypeAlias = Callable[[Subject], str]


_CALLING: Final[Sequence[Run]] = (
    calling.identity,
    calling.out_of_order,
    calling.keeps_no_buffer,
    calling.damaged_config,
    calling.missing_state,
    calling.aborts,
)
_MIGRATING: Final[Sequence[Callable[..., str]]] = (
    migrating.round_trip,
    migrating.short_buffers,
    migrating.tight_window,
    migrating.spliced,
    migrating.cancels,
    migrating.errors,
    migrating.leaves_nothing,
)


def checks(models: Sequence[str], *, every_wait: bool = False) -> list[Check[Subject]]:
    """Every check, those under a threading model once for each.

    Arguments:
        models: names of threading models, as on the command line.
        every_wait: cancel at every wait, not only at some that are evenly spread.

    Raises:
        UsageError: there is no such model.
    """
    found = [check_of(run) for run in _CALLING]
    for name in models:
        model = parse_model(name)
        for run in _MIGRATING:
            more = {"every": every_wait} if run is migrating.cancels else {}
            found.append(check_of(run, name, model=model, **more))
    return found


def subject_of(name: str, options: Sequence[str], count: int) -> Subject:
    """The plug-in of that name.

    Arguments:
        options: ``KEY=VALUE`` each, the value as in a scenario (TOML); what is no TOML is taken as text.
        count: how many devices it is to make.

    Raises:
        UsageError: there is no such plug-in, an option is wrong, or one is missing without which it makes no devices.
        PluginError: it is broken.
    """
    if count < 1:
        raise UsageError(f"count is {count}: ask for 1 device or more")
    check_name("device", name)
    subject = Subject(name, load_device_plugin(name), read_options(options), count)
    try:
        devices = subject.devices("source")
    except DeviceError as error:
        raise UsageError(f"no devices to check: {error}; options are given as KEY=VALUE") from error
    for device in devices:
        device.close()
    return subject


def check_list(models: str, *, every_wait: bool = False) -> list[Check[Subject]]:
    """The checks under these models, all that are installed if none is named.

    Raises:
        UsageError: there is no such model.
    """
    names = [model.name for model in parse_models(models)] if models else all_models()
    return checks(names, every_wait=every_wait)
