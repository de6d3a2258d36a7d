"""Streams to store and to send: captured from QEMU, and made up."""

from __future__ import annotations

import pytest

from tests.support import DATA
from tests.support.made_machine import machine_stream

CAPTURES = DATA / "qemu-streams"


@pytest.fixture(params=["made up", "microvm-smp2", "none", "q35-rich"])
def stream(request: pytest.FixtureRequest) -> bytes:
    """A stream of each kind."""
    name = str(request.param)
    return machine_stream() if name == "made up" else (CAPTURES / f"{name}.mig").read_bytes()
