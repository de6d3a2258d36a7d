"""A destination beside a test, for a source that is made by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from migpool.core.machine import Machine
from migpool.device import Device
from migpool.migration.destination import Destination
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.scenario.model_syntax import parse_model
from migpool.transport.address import Address
from tests.support.rig import Scripted

LIMIT = 60.0


class Exact(Scripted):
    """A device whose config says by itself where it ends, as QEMU's do; without a digest, which QEMU has not."""

    def exact_config(self) -> bool:
        return True

    def measure_config(self, data: memoryview) -> int | None:
        return len(self.config) if len(data) >= len(self.config) else None


@contextmanager
def receiving(
    folder: Path, devices: Sequence[Device], settings: Settings, model: str = "pool", name: str = "machine"
) -> Iterator[tuple[Address, Callable[[], SideReport]]]:
    """A destination under a model; yields where it listens, and what waits for its report."""
    part = parse_model(model).destination
    listening, where, reports = threading.Event(), list[Address](), list[SideReport]()

    def heard(address: Address) -> None:
        where.append(address)
        listening.set()

    end = Destination(Machine(name, devices), settings, part.make(), workers=part.workers, listening=heard)
    thread = threading.Thread(target=lambda: reports.append(end.run(Address(path=str(folder / "d")))))
    thread.start()

    def report() -> SideReport:
        thread.join(2 * LIMIT)
        assert not thread.is_alive(), "the destination did not end"
        return reports[0]

    try:
        assert listening.wait(LIMIT)
        yield where[0], report
    finally:
        end.cancel()
        thread.join(2 * LIMIT)
