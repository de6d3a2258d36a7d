"""The kit for authors of threading models: does a model keep the contract at the top of ``migpool/schedulers/base.py``?

Jobs here wait for chunks and write them, at either end: so every model is given the same work, a source's too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from migpool.conformance.check import Check, check_of
from migpool.conformance.models import ending, order
from migpool.conformance.models.bench import Subject, subjects

__all__ = ["Subject", "checks", "subjects"]

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
    order.migrates,
    order.cancelled_migrations,
)


def checks(subject: Subject) -> list[Check[Subject]]:
    """Every check of a model at an end; none means anything without the first."""
    return [check_of(run, str(subject), first=run is order.runs) for run in _ALL]
