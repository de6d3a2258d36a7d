"""A migration that is cancelled at any of the source's waits: the guest runs on in one place, whole."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.core.trace import Recorder, Tracer
from migpool.migration.report import SideReport
from migpool.migration.source import Source
from migpool.migration.states import State
from migpool.schedulers.pool import PoolScheduler
from migpool.transport.address import Address
from tests.support.guests import SETTINGS, ends_for, group_of, need, run_end, steps

LIMIT = 60.0
TURNS = 12


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


@pytest.mark.parametrize("backend", ["kvm", "unicorn"])
def test_a_cancel_at_any_wait_leaves_one_guest(backend: str, tmp_path: Path) -> None:
    need(backend)
    numbers = random.Random(3)
    with ends_for("source", backend) as here, ends_for("destination", backend) as there:
        tracer = Cancelling(0)
        sent, _ = migrate(here, there, tmp_path / "whole", tracer)
        assert sent.outcome is State.COMPLETED, sent.error
        usual = tracer.count
    seen = set()
    for turn in range(TURNS):
        at = numbers.randint(1, usual)
        with ends_for("source", backend) as here, ends_for("destination", backend) as there:
            before = steps([slot.device for slot in here])
            sent, received = migrate(here, there, tmp_path / str(turn), Cancelling(at))
            where = f"turn {turn}, cancelled at wait {at} of {usual}: {sent.outcome.value}, {received.outcome.value}"
            assert (runs(here), runs(there)) in ((True, False), (False, True)), where
            assert runs(here) == (sent.outcome is State.CANCELLED), where
            left = here if runs(here) else there
            for slot in left:
                slot.device.verify()
            after = steps([slot.device for slot in left])
            assert all(now > then for now, then in zip(after, before, strict=True)), where
            seen.add(sent.outcome)
    assert State.CANCELLED in seen
