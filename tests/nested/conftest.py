"""Whether there is a QEMU beside the sample driver, and in how many ways it is to migrate."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kernel.conftest import what_is_missing
from tests.nested.attached import EVERY_WAY, PAIRS
from tests.qemu.qemuprocess import qemu_here

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-way", action="store_true", help="all ways to migrate, not only every pair of choices")
    parser.addoption("--rounds", type=int, default=0, help="rounds in which loading is measured; 0: not at all")
    parser.addoption("--state", type=int, default=0, help="bytes of state that each device has besides its own")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test every ``way`` to migrate, unless it names its own."""
    own = any("way" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize"))
    if "way" in metafunc.fixturenames and not own:
        ways = EVERY_WAY if metafunc.config.getoption("--every-way", default=False) else PAIRS
        metafunc.parametrize("way", ways, ids=str)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this directory; skip them where the driver or QEMU is not, or fail where they are a must."""
    reason = what_is_missing() or ("" if qemu_here() else "no QEMU: make nested boots a guest that has it")
    for item in items:
        if str(item.path).startswith(f"{HERE}/"):
            item.add_marker(pytest.mark.nested)
            if reason and not os.environ.get("MIGPOOL_NESTED_REQUIRED"):
                item.add_marker(pytest.mark.skip(reason=reason.replace("make kernel", "make nested")))
