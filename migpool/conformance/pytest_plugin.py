"""The checks as tests of pytest: ``pytest --migpool-plugin NAME`` adds one for each.

Installed with migpool; without the option it does nothing, and imports nothing.

::

    # conftest.py or pytest.ini of a plug-in's package:
    #   addopts = --migpool-plugin my-device --migpool-option size=65536
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from migpool.conformance.check import Check
    from migpool.conformance.devices.subject import Subject

__all__ = ["ConformanceItem", "pytest_addoption", "pytest_collection_modifyitems"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("migpool", "conformance of a migpool device plug-in")
    group.addoption("--migpool-plugin", metavar="NAME", help="check this device plug-in, a test for each check")
    group.addoption(
        "--migpool-option", metavar="KEY=VALUE", action="append", default=[], help="an option of its devices; TOML"
    )
    group.addoption("--migpool-count", metavar="N", type=int, default=1, help="how many devices (default: 1)")
    group.addoption("--migpool-models", metavar="MODELS", default="", help="threading models (default: all)")
    group.addoption("--migpool-limit", metavar="SECONDS", type=float, default=60.0, help="for one check (default: 60)")


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the checks of the plug-in that was named."""
    name = config.getoption("--migpool-plugin")
    if not name:
        return
    from migpool.conformance.devices.naming import check_list, subject_of
    from migpool.errors import MigpoolError

    try:
        subject = subject_of(name, config.getoption("--migpool-option"), config.getoption("--migpool-count"))
        found: Iterable[Check[Subject]] = check_list(config.getoption("--migpool-models"))
    except MigpoolError as error:
        raise pytest.UsageError(f"migpool: {error}") from None
    items.extend(
        ConformanceItem.from_parent(
            session, name=f"{name}::{check}", check=check, subject=subject, limit=config.getoption("--migpool-limit")
        )
        for check in found
    )


class ConformanceItem(pytest.Item):
    """One check as a test."""

    def __init__(self, *, check: Check[Subject], subject: Subject, limit: float, **rest: object) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]  # pytest's own arguments, passed on
        self._check = check
        self._subject = subject
        self._limit = limit

    def runtest(self) -> None:
        """Run the check."""
        from migpool.conformance.running import Outcome, run_check

        finding = run_check(self._subject, self._check, self._limit)
        if finding.outcome is Outcome.SKIPPED:
            pytest.skip(finding.text)
        if finding.outcome is Outcome.FAILED:
            pytest.fail(finding.text, pytrace=False)

    def reportinfo(self) -> tuple[str, None, str]:
        """Where it comes from."""
        return ("migpool.conformance", None, self.name)
