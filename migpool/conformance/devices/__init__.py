"""The kit for device authors: does a plug-in save, load, fail and get cancelled correctly, under every threading model?

Every check works on devices that the plug-in itself made, through the interface of ``migpool.device`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from migpool.conformance.check import Check, check_of
from migpool.conformance.devices import basics, calling, damage, leftovers, locking, migrating, parts
from migpool.conformance.devices.subject import Subject
from migpool.scenario.model_syntax import all_models, parse_model, parse_models

__all__ = ["Subject", "checks"]

_FIRST: Final[Sequence[Callable[[Subject], str]]] = (
    basics.identity,
    basics.ends_when_aborted,
    basics.saves_and_loads,
    basics.any_thread,
    basics.aborts,
)
"""Without them no other means anything."""
_CALLING: Final[Sequence[Callable[[Subject], str]]] = (
    calling.resumes,
    calling.out_of_order,
    calling.keeps_no_buffer,
    damage.damaged_config,
    damage.fingerprints,
    damage.missing_state,
    damage.changed_state,
    damage.changed_config,
    leftovers.gives_back,
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


def checks(models: str = "", every_wait: bool = False) -> list[Check[Subject]]:
    """Every check, those under a threading model once for each.

    Arguments:
        models: names of threading models, as on the command line; empty for all that are installed.
        every_wait: cancel at every wait, not only at some that are evenly spread.

    Raises:
        UsageError: there is no such model.
    """
    found = [check_of(run, first=True) for run in _FIRST]
    found += [check_of(run) for run in _CALLING]
    for model in parse_models(models) if models else map(parse_model, all_models()):
        for run in _MIGRATING:
            more = {"every": every_wait} if run is migrating.cancels else {}
            found.append(check_of(run, model.name, first=run is migrating.round_trip, model=model, **more))
    return found
