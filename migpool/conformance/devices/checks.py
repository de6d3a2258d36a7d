"""The list of checks of a device plug-in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from migpool.conformance.check import Check, about, named
from migpool.conformance.devices import calling, migrating
from migpool.conformance.devices.subject import Subject
from migpool.scenario.model_names import Model, parse_model

Run: TypeAlias = Callable[[Subject], str]


_CALLING: Final[Sequence[Run]] = (
    calling.identity,
    calling.out_of_order,
    calling.keeps_no_buffer,
    calling.damaged_config,
    calling.missing_state,
    calling.aborts,
)
_MIGRATING: Final[Sequence[Callable[[Subject, Model], str]]] = (
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
    found = [Check(named(run), "", about(run), run) for run in _CALLING]
    for name in models:
        model = parse_model(name)
        for run in _MIGRATING:
            if run is migrating.cancels:
                found.append(Check(named(run), name, about(run), partial(_cancels, model=model, every=every_wait)))
            else:
                found.append(Check(named(run), name, about(run), partial(_migrates, run=run, model=model)))
    return found


def _migrates(subject: Subject, *, run: Callable[[Subject, Model], str], model: Model) -> str:
    return run(subject, model)


def _cancels(subject: Subject, *, model: Model, every: bool) -> str:
    return migrating.cancels(subject, model, every=every)
