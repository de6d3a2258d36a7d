"""A plug-in, its options and the models, as they are named on a command line."""

from __future__ import annotations

from collections.abc import Sequence

from migpool.conformance.check import Check
from migpool.conformance.devices.checks import checks
from migpool.conformance.devices.subject import Subject
from migpool.conformance.naming import check_name
from migpool.device import DeviceError
from migpool.errors import UsageError
from migpool.scenario.model_names import all_models, parse_models
from migpool.scenario.option_text import read_options
from migpool.scenario.plugins import load_device_plugin


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
