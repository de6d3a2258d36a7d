"""The kit for device authors: does a plug-in save, load, fail and get cancelled correctly, under every threading model?

Every check works on devices that the plug-in itself made, through the interface of ``migpool.device`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from migpool.conformance.check import Check, CheckResult, check_name, check_of, run_check
from migpool.conformance.devices import calling, locking, migrating, parts
from migpool.conformance.devices.subject import Subject
from migpool.device import DeviceError
from migpool.errors import UsageError
from migpool.scenario.model_names import all_models, parse_model, parse_models
from migpool.scenario.plugins import load_device_plugin, read_options

__all__ = ["Subject", "checks", "device_runs"]

_CALLING: Final[Sequence[Callable[[Subject], str]]] = (
    calling.identity,
    calling.out_of_order,
    calling.keeps_no_buffer,
    calling.damaged_config,
    calling.missing_state,
    calling.fingerprints,
    calling.aborts,
    locking.config_locks,
    parts.part_tags,
    parts.parts_in_any_order,
    parts.parts_at_once,
    parts.aborts_several,
)
_MIGRATING: Final[Sequence[Callable[..., str]]] = (
    migrating.round_trip,
    migrating.short_buffers,
    migrating.tight_window,
    migrating.two_jobs,
    migrating.live_jobs,
    migrating.spliced,
    migrating.cancels,
    migrating.errors,
    migrating.leaves_nothing,
)


def checks(models: str = "", *, every_wait: bool = False) -> list[Check[Subject]]:
    """Every check, those under a threading model once for each.

    Arguments:
        models: names of threading models, as on the command line; empty for all that are installed.
        every_wait: cancel at every wait, not only at some that are evenly spread.

    Raises:
        UsageError: there is no such model.
    """
    found = [check_of(run) for run in _CALLING]
    for model in parse_models(models) if models else map(parse_model, all_models()):
        for run in _MIGRATING:
            more = {"every": every_wait} if run is migrating.cancels else {}
            found.append(check_of(run, model.name, model=model, **more))
    return found


def device_runs(
    name: str,
    options: Sequence[str],
    count: int,
    models: str,
    limit: float,
    *,
    every_wait: bool = False,
    comparable: bool = True,
) -> list[tuple[Check[Subject], Callable[[], CheckResult]]]:
    """Every check of the plug-in of that name, and what runs it.

    Arguments:
        options: ``KEY=VALUE`` each, the value as in a scenario (TOML); what is no TOML is taken as text.
        count: how many devices it is to make.
        models, every_wait: as for :func:`checks`.
        limit: seconds that one check may take.
        comparable: as in :class:`Subject`.

    Raises:
        UsageError: there is no such plug-in, an option is wrong, or one is missing without which it makes no devices.
        PluginError: it is broken.
    """
    if count < 1:
        raise UsageError(f"count is {count}: ask for 1 device or more")
    check_name("device", name)
    subject = Subject(name, load_device_plugin(name), read_options(options), count, comparable)
    try:
        devices = subject.devices("source")
    except DeviceError as error:
        raise UsageError(f"no devices to check: {error}; options are given as KEY=VALUE") from error
    for device in devices:
        device.close()
    return [(check, partial(run_check, subject, check, limit)) for check in checks(models, every_wait=every_wait)]
