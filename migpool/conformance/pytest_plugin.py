"""The checks as tests of pytest: ``pytest --migpool-plugin NAME`` adds one for each check of a device plug-in,
``pytest --migpool-model NAME`` of a threading model.

Installed with migpool; without the options it does nothing, and imports nothing.

::

    # conftest.py or pytest.ini of a plug-in's package:
    #   addopts = --migpool-plugin my-device --migpool-option size=65536
    #   addopts = --migpool-model my-model
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from migpool.conformance.check import Check
    from migpool.conformance.course import Course


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
    from migpool.conformance.course import device_course, model_course
    from migpool.errors import MigpoolError

    limit = config.getoption("--migpool-limit")
    courses: list[tuple[str, Course]] = []
    try:
        if device:
            made = config.getoption("--migpool-option"), config.getoption("--migpool-count")
            comparable = not config.getoption("--migpool-no-fingerprint")
            models = config.getoption("--migpool-models")
            courses.append((device, device_course(device, *made, models, limit, comparable=comparable)))
        if model:
            courses.append((model, model_course(model, limit)))
    except MigpoolError as error:
        raise pytest.UsageError(f"migpool: {error}") from None
    for name, course in courses:
        config.add_cleanup(course.close)
        items.extend(
            ConformanceItem.from_parent(session, name=f"{name}::{check}", check=check, course=course)
            for check in course.checks
        )


class ConformanceItem(pytest.Item):
    def __init__(self, *, check: Check[Any], course: Course, **rest: object) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]  # pytest's own arguments, passed on
        self._check = check
        self._course = course

    def runtest(self) -> None:
        from migpool.conformance.check import Outcome
        from migpool.errors import MigpoolError

        try:
            finding = self._course.run(self._check)
        except MigpoolError as error:
            pytest.fail(str(error), pytrace=False)
        if finding.outcome is Outcome.SKIPPED:
            pytest.skip(finding.text)
        if finding.outcome is Outcome.NOT_RUN:
            pytest.skip(f"not run since {finding.text}")
        if finding.outcome is Outcome.FAILED:
            pytest.fail("\n  at ".join((finding.text, *finding.details.stack)), pytrace=False)

    def reportinfo(self) -> tuple[str, None, str]:
        return ("migpool.conformance", None, self.name)
