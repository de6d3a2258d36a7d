"""A guest's migration whose source cancels itself at one of its waits."""

from __future__ import annotations

import threading
from pathlib import Path

from migpool.core.machine import Machine
from migpool.core.trace import Recorder, Tracer
from migpool.migration.report import SideReport
from migpool.migration.source import Source
from migpool.schedulers.pool import PoolScheduler
from migpool.transport.address import Address
from tests.support.guests import SETTINGS, group_of, run_end

__all__ = ["Cancelling", "migrate", "runs"]

LIMIT = 60.0


class Cancelling(Tracer):
    """Cancels a migration at one of its waits.

    Arguments:
        at: at which; 0 for none.
    """

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at
        self._counting = threading.Lock()
        self.count = 0
        self.source: Source | None = None

    def recorder(self) -> Recorder:
        plain = super().recorder()

        def counted(span: bytes) -> None:
            plain(span)
            with self._counting:
                self.count += 1
                cancel = self.count == self._at
            if cancel and self.source is not None:
                self.source.cancel()

        return counted


def migrate(here: Machine, there: Machine, path: Path, tracer: Cancelling) -> tuple[SideReport, SideReport]:
    listens = threading.Event()
    reports: list[SideReport] = []

    def receive() -> None:
        reports.append(run_end("destination", there, str(path), listening=lambda _: listens.set()))

    thread = threading.Thread(target=receive)
    thread.start()
    assert listens.wait(LIMIT)
    source = tracer.source = Source(here, SETTINGS, PoolScheduler(), tracer=tracer)
    sent = source.run(Address(path=str(path)))
    thread.join(LIMIT)
    assert not thread.is_alive()
    return sent, reports[0]


def runs(machine: Machine) -> bool:
    standing = {thread.standing for thread in group_of([slot.device for slot in machine]).threads}
    assert len(standing) == 1, "one vCPU runs and another one stands"
    return standing == {False}
