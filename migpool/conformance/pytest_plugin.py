"""The checks as tests of pytest: ``pytest --migpool-plugin NAME`` adds one for each check of a device plug-in,
``pytest --migpool-model NAME`` of a threading model.

Installed with migpool; without the options it does nothing, and imports nothing.

::

    # conftest.py or pytest.ini of a plug-in's package:
    #   addopts = --migpool-plugin my-device --migpool-option size=65536
    #   addopts = --migpool-model my-model
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from migpool.conformance.check import CheckResult


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("migpool", "conformance of a migpool device plug-in or threading model")
    group.addoption("--migpool-plugin", metavar="NAME", help="check this device plug-in, a test for each check")
    group.addoption("--migpool-model", metavar="NAME", help="check this threading model, a test for each check")
    group.addoption(
        "--migpool-option", metavar="KEY=VALUE", action="append", default=[], help="an option of its devices; TOML"
    )
    group.addoption("--migpool-count", metavar="N", type=int, default=1, help="how many devices (default: 1)")
    group.addoption("--migpool-models", metavar="MODELS", default="", help="check devices under these (default: all)")
    group.addoption("--migpool-no-fingerprint", action="store_true", help="its devices can have no fingerprint")
    group.addoption("--migpool-limit", metavar="SECONDS", type=float, default=60.0, help="for one check (default: 60)")


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    device, model = config.getoption("--migpool-plugin"), config.getoption("--migpool-model")
    if not (device or model):
        return
    from migpool.conformance.devices import device_runs
    from migpool.conformance.models.child import model_runs
    from migpool.errors import MigpoolError

    limit = config.getoption("--migpool-limit")
    found: list[tuple[str, Callable[[], CheckResult]]] = []
    try:
        if device:
            made = config.getoption("--migpool-option"), config.getoption("--migpool-count")
            comparable = not config.getoption("--migpool-no-fingerprint")
            models = config.getoption("--migpool-models")
            of_device = device_runs(device, *made, models, limit, comparable=comparable)
            found += [(f"{device}::{check}", run) for check, run in of_device]
        if model:
            found += [(f"{model}::{check}", run) for check, run in model_runs(model, limit, config.add_cleanup)]
    except MigpoolError as error:
        raise pytest.UsageError(f"migpool: {error}") from None
    items.extend(ConformanceItem.from_parent(session, name=name, check=check) for name, check in found)


class ConformanceItem(pytest.Item):
    def __init__(self, *, check: Callable[[], CheckResult], **rest: object) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]  # pytest's own arguments, passed on
        self._check = check

    def runtest(self) -> None:
        from migpool.conformance.check import Outcome

        finding = self._check()
        if finding.outcome is Outcome.SKIPPED:
            pytest.skip(finding.text)
        if finding.outcome is Outcome.FAILED:
            pytest.fail(finding.text, pytrace=False)

    def reportinfo(self) -> tuple[str, None, str]:
        return ("migpool.conformance", None, self.name)
