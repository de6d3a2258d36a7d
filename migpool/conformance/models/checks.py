"""The list of checks of a threading model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from migpool.conformance.check import Check, check_of
from migpool.conformance.models import ending, migration, order
from migpool.conformance.models.subject import Subject

_ALL: Final[Sequence[Callable[[Subject], str]]] = (
    order.runs,
    order.one_at_a_time,
    order.begins_in_order,
    order.many_devices,
    order.jobs_of_jobs,
    order.drain_waits,
    order.drain_with_nothing,
    order.traced,
    ending.first_error,
    ending.unexpected_error,
    ending.cancels,
    ending.after_cancel,
    ending.after_close,
    ending.leaves_no_thread,
    ending.ignored_abort,
    migration.migrates,
    migration.cancelled_migrations,
)
FIRST: Final = check_of(order.runs).name
"""The check without which no other means anything."""


def checks(subject: Subject) -> list[Check[Subject]]:
    return [check_of(run, str(subject)) for run in _ALL]
