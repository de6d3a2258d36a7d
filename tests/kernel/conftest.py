"""Whether the sample driver is here, and two devices of it for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kernel.mtty import PARENT, Uart, make_devices


def what_is_missing() -> str:
    """Why these tests cannot run here; empty if they can."""
    if not PARENT.exists():
        return f"no {PARENT}: make kernel boots a guest that has it"
    return "" if os.geteuid() == 0 else "only root may make mediated devices: make kernel boots a guest"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tls-rounds", type=int, default=0, help="rounds in which TLS is measured; 0: not at all")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need the driver where it is not; where it is a must, they fail instead."""
    reason = what_is_missing()
    for item in items:
        if item.get_closest_marker("kernel") and reason and not os.environ.get("MIGPOOL_KERNEL_REQUIRED"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def devices() -> Iterator[tuple[str, str]]:
    """Two new devices with two serial ports each, by their UUIDs."""
    with make_devices(2) as (one, other):
        yield one, other


@pytest.fixture
def uarts(devices: tuple[str, str]) -> Iterator[tuple[Uart, Uart]]:
    """The same, opened."""
    with Uart(devices[0]) as one, Uart(devices[1]) as other:
        yield one, other
