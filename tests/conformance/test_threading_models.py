"""Every registered threading model, a third party's included, keeps the contract: the kit's checks, at each end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import pytest

from migpool.conformance.check import Check, Outcome, run_check
from migpool.conformance.models import Subject, checks, subjects
from migpool.scenario.plugins import names
from tests.support import LONG

LIMIT = 100.0


def tried(name: str) -> Iterator[Subject]:
    """A model and its variants, each at each end; in the short profile a variant at one, the next at the other."""
    for number, (_, ends) in enumerate(groupby(subjects(name, LIMIT), lambda subject: subject.name)):
        each = list(ends)
        yield from each if LONG or not number else [each[number % len(each)]]


CASES = [
    (subject, check)
    for name in names("scheduler")
    for subject in tried(name)
    for check in checks(subject)
    # The words after a name change nothing in it, and a migration for each wait takes its time.
    if ":" not in subject.name or check.name != "cancelled-migrations"
]


@pytest.mark.parametrize(("subject", "check"), CASES, ids=[str(check) for _, check in CASES])
def test_the_contract_is_kept(subject: Subject, check: Check[Subject]) -> None:
    finding = run_check(subject, check, LIMIT)
    assert finding.outcome is Outcome.PASSED, finding.text
